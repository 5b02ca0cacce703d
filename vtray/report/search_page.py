"""The page about a search: the best configuration, the map, the curves, what it cost, and how to repeat it."""

from collections.abc import Sequence

from vtray.report import axes, heat_map, line_chart, scatter, tables
from vtray.report import fragments as html
from vtray.report.document import Heading, document, how_made
from vtray.report.heat_map import short
from vtray.report.line_chart import Curve, LineChart, key
from vtray.report.numbers import count_text, seconds_text
from vtray.report.ratios import DASH, percent_text
from vtray.report.scatter import Point
from vtray.report.search_findings import SearchFindings, TrialRow
from vtray.report.settings_table import dotted

STYLE = axes.STYLE + line_chart.STYLE + tables.STYLE + heat_map.STYLE + scatter.STYLE
TO_THE_END, STOPPED = 0, 1  # numbers of curves and points
LEAST_SPREAD = 0.02  # of the y axis
CHART = (720, 300)


def search_page(findings: SearchFindings) -> str:
    """A whole HTML document, UTF-8, to be written as index.html."""
    sections = {
        "Totals": [_totals(findings)],
        "Best configuration": _best(findings),
        "Learning rate and frozen stages": _map(findings),
        "Learning curves": _curves(findings),
        "Accuracy against cost": _against_cost(findings),
        "Cost of the search": _cost(findings),
        "Trials": [_table(findings)],
        "Settings": [html.pairs(dotted(findings.config))] if findings.config else [],
        "Run it again": _repeat(findings),
    }
    heading = Heading(job="tune", output=findings.output, status=findings.status)
    return document(heading, sections, style=STYLE)


def _totals(findings: SearchFindings) -> str:
    kinds = [trial.status for trial in findings.trials]
    tiles = {
        "trials": count_text(len(kinds)),
        "stopped early": count_text(kinds.count("stopped")),
        "failed": count_text(kinds.count("failed")),
        "best trial on val": percent_text(findings.winner.top1),
        "default on val": percent_text(findings.trials[0].top1),
    }
    if findings.model_top1 is not None:
        tiles["model on val"] = percent_text(findings.model_top1)
    return html.tiles(tiles)


def _best(findings: SearchFindings) -> list[str]:
    """The winner's values beside the default's, what was trained in full, and the command that repeats it."""
    winner, default = findings.winner, findings.trials[0]
    rows = [[name, winner.values.get(name, DASH), value] for name, value in default.values.items()]
    if winner is default:
        note = "The default configuration is the best: no other trial was better on the validation images."
    else:
        note = f"Trial {winner.name}; trials are short trainings on stored rows, the model is trained in full."
    trained = [[row.name, percent_text(row.top1), seconds_text(row.seconds)] for row in findings.trained]
    full = tables.table(("trained in full", "top-1 on val", "time"), trained)
    soup = ""
    if len(findings.members) > 1:
        soup = html.paragraph(f"The model is the average of {', '.join(findings.members)}.", kind="note")
    return [
        html.paragraph(note, kind="note"),
        tables.table(("key", "best", "default"), rows),
        full,
        soup,
        html.code(findings.command),
    ]


def _map(findings: SearchFindings) -> list[str]:
    note = (
        "The best top-1 on val of the trials in each cell; the frame is the winner, a cross stands for failed "
        "trials. Stopped trials count as far as they came."
    )
    depths = {trial.depth: depth_name(trial.depth, findings.stages) for trial in findings.trials}
    return [html.paragraph(note, kind="note"), heat_map.heat_map(findings.trials, depths, best=findings.best)]


def depth_name(depth: int, stages: Sequence[str]) -> str:
    """How many stages are frozen, and the last of them."""
    if depth == 0:
        return "0, none frozen"
    return f"{depth}, all frozen" if depth == len(stages) else f"{depth}, through {stages[depth - 1]}"


def _curves(findings: SearchFindings) -> list[str]:
    """Top-1 by epoch; trials that were stopped are red and dashed."""
    curves = tuple(
        Curve(
            name=f"trial {trial.name}{', stopped' if trial.status == 'stopped' else ''}",
            points=tuple((float(epoch), value) for epoch, value in enumerate(trial.curve, start=1)),
            number=_number(trial),
        )
        for trial in findings.trials
        if trial.curve
    )
    if not curves:
        return []
    chart = LineChart(
        label="Top-1 on val by epoch, one line for each trial", curves=curves, percent=True, size=CHART
    )
    legend = key(
        [Curve(name="to its last epoch", points=()), Curve(name="stopped early", points=(), number=STOPPED)]
    )
    return [legend, line_chart.line_chart(chart)]


def _number(trial: TrialRow) -> int:
    return TO_THE_END if trial.status == "complete" else STOPPED


def _against_cost(findings: SearchFindings) -> list[str]:
    points = [
        Point(
            x=trial.seconds,
            y=trial.top1,
            words=f"trial {trial.name}: {percent_text(trial.top1)} in {seconds_text(trial.seconds)}",
            number=_number(trial),
            best=trial.name == findings.best,
        )
        for trial in findings.trials
        if trial.top1 is not None
    ]
    chart = scatter.scatter(points, label="Top-1 on val against seconds of the trial", x_name="s")
    legend = "Seconds of a trial's epochs; red ones were stopped early, the ring is the winner."
    return [html.paragraph(legend, kind="note"), chart] if chart else []


def _cost(findings: SearchFindings) -> list[str]:
    """Bars of work: this search, and the same trials without stored rows and stopping."""
    spent = findings.caches_s + findings.trials_s
    if not spent or not findings.uncached_s:
        return []
    bars = [
        ("caches", findings.caches_s, seconds_text(findings.caches_s)),
        ("trials", findings.trials_s, seconds_text(findings.trials_s)),
        ("search in all", spent, seconds_text(spent)),
        ("without caches and stopping", findings.uncached_s, seconds_text(findings.uncached_s)),
    ]
    note = (
        f"Seconds of work of all processes. The search took {percent_text(spent / findings.uncached_s)} of what "
        "the same trials would take to their last epoch with every image decoded and run through the "
        "frozen stages in every epoch; that is computed from the speeds measured here."
    )
    rows = [[cache.name, cache.contents, seconds_text(cache.seconds)] for cache in findings.caches]
    listed = tables.table(("cache", "holds", "work"), rows, text_columns=2)
    return [html.bars(bars, longest=max(spent, findings.uncached_s)), html.paragraph(note, kind="note"), listed]


def _table(findings: SearchFindings) -> str:
    names = list(findings.trials[0].values)
    rows = [
        [
            trial.name,
            *(trial.values.get(name, DASH) for name in names),
            percent_text(trial.top1),
            f"{len(trial.curve)} of {findings.epochs}",
            seconds_text(trial.seconds),
            _outcome(trial),
        ]
        for trial in findings.trials
    ]
    return tables.table(("trial", *names, "top-1 on val", "epochs", "time", "outcome"), rows)


def _outcome(trial: TrialRow) -> str:
    again = f", {trial.attempts} attempts" if trial.attempts > 1 else ""
    return f"{trial.status}{again}{f': {trial.reason}' if trial.reason else ''}"


def _repeat(findings: SearchFindings) -> list[str]:
    made = findings.fingerprint or findings.versions
    return [
        html.paragraph("The winner's training, in a new output:"),
        html.code(findings.command),
        html.paragraph("The search; where it is finished, nothing is done again:"),
        html.code(findings.again),
        *([how_made(findings.fingerprint, findings.versions)] if made else []),
    ]


def value_text(value: object) -> str:
    """A value of a configuration as people read it."""
    if isinstance(value, float):
        return short(value) if value < 0.01 else f"{value:.4g}"
    if isinstance(value, list | tuple):
        return " – ".join(map(str, value))
    return "none" if value is None else str(value)
