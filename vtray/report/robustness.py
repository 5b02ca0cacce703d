"""How the accuracy falls under worse and worse conditions: a small curve for each, and all numbers as a table."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from vtray.report import fragments as html
from vtray.report.line_chart import Curve, LineChart, line_chart
from vtray.report.ratios import DASH, percent_text
from vtray.report.tables import Cell, Tinted, table

Severities = Mapping[int, float]  # severity (1 mild to 5 strong) -> top-1 as a share

SIZE = (240, 140)
WORST_DROP = 0.5  # of top-1: the deepest tint


def robustness_parts(conditions: Mapping[str, Severities], *, clean: float | None = None) -> list[str]:
    """HTML: what it comes to, one curve for each condition and the table; nothing without conditions.

    clean: top-1 of the same images without any condition. A severity that was not measured, or is no number, is a
    dash in the table and a gap in the curve.
    """
    if not conditions:
        return []
    clean = clean if clean is not None and math.isfinite(clean) else None
    curves = "".join(_panel(name, severities, clean) for name, severities in conditions.items())
    return [
        _summary(conditions, clean),
        _table(conditions, clean),
        f'<div class="charts small">\n{curves}</div>\n',
    ]


def mean_top1(conditions: Mapping[str, Severities]) -> float | None:
    """The mean over conditions of each one's mean over severities, so that all conditions count the same."""
    means = [mean for severities in conditions.values() if (mean := _mean(severities)) is not None]
    return fmean(means) if means else None


def _mean(severities: Severities) -> float | None:
    values = [value for value in severities.values() if math.isfinite(value)]
    return fmean(values) if values else None


def _summary(conditions: Mapping[str, Severities], clean: float | None) -> str:
    parts = [f"Top-1 without any condition: {percent_text(clean)}"] if clean is not None else []
    measured = [
        (value, name, severity)
        for name, severities in conditions.items()
        for severity, value in severities.items()
        if math.isfinite(value)
    ]
    if measured:
        worst, name, severity = min(measured)
        parts.append(f"mean over all conditions: {percent_text(mean_top1(conditions))}")
        parts.append(f"worst: {percent_text(worst)} ({name}, severity {severity})")
    return html.paragraph("; ".join(parts) + ".") if parts else ""


def _panel(name: str, severities: Severities, clean: float | None) -> str:
    start = () if clean is None else ((0.0, clean),)
    points = (*start, *((float(severity), value) for severity, value in sorted(severities.items())))
    chart = LineChart(
        label=f"Top-1 under {name} by severity",
        curves=(Curve(name=name, points=points),),
        percent=True,
        y_range=(0.0, 1.0),
        x_words={0.0: "clean"},
        level=clean,
        size=SIZE,
    )
    return f"<div>{html.subtitle(name)}{line_chart(chart)}</div>\n"


def _table(conditions: Mapping[str, Severities], clean: float | None) -> str:
    levels = sorted({severity for severities in conditions.values() for severity in severities})
    rows = [_row(name, severities, levels, clean) for name, severities in conditions.items()]
    columns = ("top-1 by severity", *map(str, levels), "mean")
    return table(columns, rows)


def _row(name: str, severities: Severities, levels: Sequence[int], clean: float | None) -> list[Cell]:
    values = [*(severities.get(level) for level in levels), _mean(severities)]
    return [name, *(_cell(value, clean) for value in values)]


def _cell(value: float | None, clean: float | None) -> Cell:
    """Tinted by what is lost of the clean accuracy, or of all where that is not known."""
    if value is None or not math.isfinite(value):
        return DASH
    return Tinted(percent_text(value), ((1.0 if clean is None else clean) - value) / WORST_DROP)
