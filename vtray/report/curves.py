"""Training curves: loss, accuracy and learning rate by epoch, of training and validation, and their numbers."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from vtray.report import fragments as html
from vtray.report.line_chart import Curve, LineChart, key, line_chart
from vtray.report.numbers import count_text, number_text
from vtray.report.ratios import DASH, percent_text
from vtray.report.tables import folded, table

Epoch = Mapping[str, Any]

SHARES = ("accuracy", "top1", "top5", "val_accuracy", "val_top1", "val_top5")
PANELS = {  # title -> key of an epoch's numbers -> name of its line
    "Loss": {"loss": "training", "val_loss": "validation"},
    "Accuracy": {"accuracy": "training", "val_top1": "validation"},
    "Learning rate": {"lr": "learning rate"},
}


def training_curves(epochs: Sequence[Epoch]) -> list[str]:
    """HTML: one panel for each of PANELS that has numbers, the best epoch, a table; nothing for no epochs.

    An epoch has any of the keys of PANELS, `epoch` (otherwise they are counted from 1) and any others, which are
    in the table only. Values that are not finite leave gaps.
    """
    if not epochs:
        return []
    panels = [_panel(title, names, epochs) for title, names in PANELS.items()]
    charts = f'<div class="charts">\n{"".join(panels)}</div>\n' if any(panels) else ""
    return [charts, _best(epochs), folded("Numbers by epoch", _table(epochs))]


def _panel(title: str, names: Mapping[str, str], epochs: Sequence[Epoch]) -> str:
    lines = (
        Curve(name=name, points=_points(epochs, key), number=n) for n, (key, name) in enumerate(names.items())
    )
    curves = tuple(curve for curve in lines if curve.finite)
    chart = line_chart(LineChart(label=f"{title} by epoch", curves=curves, percent=title == "Accuracy"))
    legend = key(curves) if len(names) > 1 else ""
    return f"<div>{html.subtitle(title)}{legend}{chart}</div>\n" if chart else ""


def _points(epochs: Sequence[Epoch], name: str) -> tuple[tuple[float, float], ...]:
    return tuple((_number(epoch, place), _value(epoch, name)) for place, epoch in enumerate(epochs, start=1))


def _number(epoch: Epoch, place: int) -> int:
    return int(epoch.get("epoch", place))


def _value(epoch: Epoch, name: str) -> float:
    value = epoch.get(name)
    return math.nan if value is None else float(value)


def _best(epochs: Sequence[Epoch]) -> str:
    points = [(number, value) for number, value in _points(epochs, "val_top1") if math.isfinite(value)]
    if not points:
        return ""
    number, value = max(points, key=lambda point: (point[1], -point[0]))
    words = f"Best top-1 on the validation split: {percent_text(value)}, epoch {number:g}"
    return html.paragraph(f"{words}; {count_text(len(epochs))} epochs in all.", kind="note")


def _table(epochs: Sequence[Epoch]) -> str:
    names = [name for name in dict.fromkeys(name for epoch in epochs for name in epoch) if name != "epoch"]
    rows = [
        [str(_number(epoch, place)), *(_cell(name, epoch.get(name)) for name in names)]
        for place, epoch in enumerate(epochs, start=1)
    ]
    return table(["epoch", *names], rows)


def _cell(name: str, value: object) -> str:
    if not isinstance(value, int | float):
        return DASH if value is None else str(value)
    if name in SHARES:
        return percent_text(value)
    return number_text(value) if math.isfinite(value) else DASH
