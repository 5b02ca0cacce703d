"""Successive halving in numbers: at which epochs trials are compared, and how many epochs are left of a search.

Source: Li et al. 2018, "A system for massively parallel hyperparameter tuning" (ASHA), in the variant that stops
trials and never resumes one.
"""


def rungs(*, grace_epochs: int, reduction_factor: int, epochs: int) -> tuple[int, ...]:
    """The epochs, counted from 1, after which a trial may be stopped; none at the last epoch, where all end."""
    found = []
    rung = grace_epochs
    while rung < epochs:
        found.append(rung)
        rung *= reduction_factor
    return tuple(found)


def expected_epochs(*, grace_epochs: int, reduction_factor: int, epochs: int) -> float:
    """Epochs of an average trial if at each rung one in `reduction_factor` goes on, as with very many trials."""
    marks = rungs(grace_epochs=grace_epochs, reduction_factor=reduction_factor, epochs=epochs)
    total, share, last = 0.0, 1.0, 0
    for mark in (*marks, epochs):
        total += share * (mark - last)
        share, last = share / reduction_factor, mark
    return total
