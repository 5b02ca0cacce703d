"""How the learning rate goes through a training: a linear warm-up, then half a cosine down to zero."""

import math


def learning_rate_factor(step: int, *, warmup_steps: int, num_steps: int) -> float:
    """What the learning rate of optimizer step `step` (from 0) is multiplied by, above 0 and at most 1.

    Rises in equal parts to 1 at step `warmup_steps`, then falls; it would be 0 one step after the last.
    Raises: ValueError for a step outside the training, or a warm-up as long as all of it.
    Source: cosine annealing, Loshchilov and Hutter 2016, without restarts; warm-up, Goyal et al. 2017.
    """
    if not 0 <= step < num_steps:
        raise ValueError(f"step {step} is not in a training of {num_steps} steps; give 0 to {num_steps - 1}")
    if not 0 <= warmup_steps < num_steps:
        raise ValueError(
            f"a warm-up of {warmup_steps} steps does not fit a training of {num_steps}; make it shorter"
        )
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / (num_steps - warmup_steps)))
