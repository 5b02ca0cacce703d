import pytest
import torch

from vtray.classify.schedule import learning_rate_factor


def factors(warmup_steps, num_steps):
    return [learning_rate_factor(s, warmup_steps=warmup_steps, num_steps=num_steps) for s in range(num_steps)]


def test_worked_example():
    # warm-up of 3: quarters; then half a cosine over 4 steps: angles 0, 45, 90 and 135 degrees
    assert factors(3, 7) == pytest.approx([0.25, 0.5, 0.75, 1.0, 0.853553, 0.5, 0.146447], abs=1e-6)


def test_without_warm_up_it_is_torchs_cosine():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50)
    expected = []
    for _ in range(50):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert factors(0, 50) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("warmup_steps", "num_steps"), [(0, 1), (1, 2), (5, 100), (99, 100)])
def test_it_rises_to_one_and_then_falls_above_zero(warmup_steps, num_steps):
    values = factors(warmup_steps, num_steps)
    assert max(values) == values[warmup_steps] == 1.0
    assert min(values) > 0
    assert values[: warmup_steps + 1] == sorted(values[: warmup_steps + 1])
    assert values[warmup_steps:] == sorted(values[warmup_steps:], reverse=True)


@pytest.mark.parametrize("step", [-1, 10])
def test_steps_outside_of_the_training_are_refused(step):
    with pytest.raises(ValueError, match=f"step {step} is not in a training of 10 steps; give 0 to 9"):
        learning_rate_factor(step, warmup_steps=0, num_steps=10)


def test_a_warm_up_as_long_as_the_training_is_refused():
    with pytest.raises(ValueError, match="a warm-up of 10 steps does not fit"):
        learning_rate_factor(0, warmup_steps=10, num_steps=10)
