"""Accuracies and other shares as people read them; what is not known or not a number is a dash."""

import math

DASH = "–"
TENTH = 0.001  # of a share: a tenth of a percent
NORMAL_95 = 1.959964  # the standard normal's 97.5 % quantile


def percent_text(share: float | None) -> str:
    """A share in percent with one decimal: 95.3 %; only 0 is 0.0 %, and only 1 is 100.0 %."""
    if share is None or not math.isfinite(share):
        return DASH
    if 0 < share < TENTH / 2:
        return "<0.1 %"
    if 1 - TENTH / 2 <= share < 1:
        return ">99.9 %"
    return f"{100 * share:.1f} %"


def decimals_text(value: float | None, decimals: int = 3) -> str:
    """A number with that many decimals: 0.042."""
    return DASH if value is None or not math.isfinite(value) else f"{value:.{decimals}f}"


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """Where the true share lies in 95 of 100 cases, if `share` was found among `count` > 0 images.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    spread = NORMAL_95**2 / count
    middle = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread**2 / 4) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def interval_text(share: float | None, count: int) -> str:
    """The Wilson interval of a share: 93.1 – 96.8 %."""
    if share is None or not math.isfinite(share) or count <= 0:
        return DASH
    low, high = wilson_interval(share, count)
    return f"{100 * low:.1f} {DASH} {100 * high:.1f} %"
