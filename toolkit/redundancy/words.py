"""Puts a redundancy report into tables and sentences. Nothing here imports torch."""

from __future__ import annotations

from toolkit.base.console import Console
from toolkit.redundancy.report import LayerRedundancy, RedundancyReport

CHANNEL_COLUMNS = (
    "layer", "kind", "channels", "correlation", "RMSE",
    "half: first", "half: chosen", "quarter: first", "quarter: chosen",
)  # fmt: skip

TIME_COLUMNS = (
    "layer", "kind", "steps", "correlation", "RMSE",
    "every 2nd: repeated", "every 2nd: rebuilt", "every 4th: repeated", "every 4th: rebuilt",
)  # fmt: skip

MOST_NAMES = 6  # layers in one sentence

NOTE = (
    "All figures are of held-out data, of each convolution's own output. Correlation and RMSE (relative to the spread) "
    "compare a channel with its best partner, and a time step with the next one. The other figures are the R^2 of what "
    "is not computed: 1 is exact, 0 is as good as the mean, below 0 is worse."
)


def show_redundancy(report: RedundancyReport, console: Console) -> None:
    """Prints a table of channels, one of time steps if there are any, and a sentence for what has no figures."""
    console.line(
        f"{report.model}: {len(report.layers)} convolutions measured, on at most {report.examples} examples of each "
        f"split and {report.positions} positions of each example"
    )
    console.line(NOTE)
    for title, columns, rows in tables_of(report):
        console.line()
        console.table(title, columns, rows)
    console.line()
    for sentence in remarks_of(report):
        console.line(sentence)


def tables_of(report: RedundancyReport) -> list[tuple[str, tuple[str, ...], list[list[str]]]]:
    """Returns (title, columns, rows) of the tables that have a row."""
    channels = [_channel_row(layer) for layer in report.layers if layer.channels is not None]
    steps = [_time_row(layer) for layer in report.layers if layer.time is not None]
    tables = [
        ("R^2 of the other channels from half and from a quarter of the channels", CHANNEL_COLUMNS, channels),
        ("R^2 of the steps between from every 2nd and from every 4th time step", TIME_COLUMNS, steps),
    ]
    return [table for table in tables if table[2]]


def remarks_of(report: RedundancyReport) -> list[str]:
    """Returns a sentence for each reason why figures are missing or need a word, with the layers that share it."""
    names: dict[str, list[str]] = {}
    for layer in report.layers:
        for note in layer.notes:
            names.setdefault(note, []).append(layer.name)
        if layer.num_constant:
            names.setdefault("some channels are constant", []).append(
                f"{layer.name} ({layer.num_constant} of {layer.num_channels})"
            )
    for name, reason in report.not_measured.items():
        names.setdefault(f"not measured: {reason}", []).append(name)
    return [f"{_listed(of_reason)}: {reason}" for reason, of_reason in names.items()]


def _listed(names: list[str]) -> str:
    more = len(names) - MOST_NAMES
    return ", ".join(names) if more <= 1 else f"{', '.join(names[:MOST_NAMES])} and {more} more"


def figure_text(value: float | None) -> str:
    """Returns a figure with three decimals, without them below -10, and a dash for None."""
    if value is None:
        return "-"
    return f"{value:.0f}" if value <= -10 else f"{value + 0.0:.3f}"


def _channel_row(layer: LayerRedundancy) -> list[str]:
    found = layer.channels
    assert found is not None
    figures = [found.correlation, found.relative_rmse]
    for kept in found.explained:
        figures += [kept.first, kept.chosen]
    return [layer.name, layer.kind, str(layer.num_channels), *map(figure_text, figures)]


def _time_row(layer: LayerRedundancy) -> list[str]:
    found = layer.time
    assert found is not None
    steps = str(found.most_steps)
    if found.least_steps != found.most_steps:
        steps = f"{found.least_steps} to {found.most_steps}"
    figures = [found.correlation, found.relative_rmse]
    for kept in found.explained:
        figures += [kept.repeated, kept.rebuilt]
    return [layer.name, layer.kind, steps, *map(figure_text, figures)]
