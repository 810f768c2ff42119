"""Shows what an export made, in the terminal. Nothing here imports torch."""

from __future__ import annotations

from pathlib import Path

from toolkit.base.console import Console
from toolkit.exporting.formats.registry import FILE_FORMATS
from toolkit.exporting.report import ExportReport

PARITY_NOTE = (
    "Compared with the model in PyTorch, on the CPU and the same inputs, after reading the file back. "
    "Scale: the largest absolute number in the model's output."
)

LATENCY_NOTE = (
    "Latency: median per call, timed in turns; a ratio below 1 is faster. On a busy machine it says little: time it on "
    "an idle one."
)


def show_report(report: ExportReport, path: Path, console: Console) -> None:
    """Shows which file was made, how far its outputs are from the model's, and how fast it is."""
    if report.fixed_because is not None:
        console.line(f"The batch size is fixed at {report.batch_size}. Any batch size was not possible:")
        console.line(f"  {report.fixed_because}")
    parity = [
        [entry.output, entry.size, f"{entry.difference:.2e}", f"{entry.scale:.3g}", f"{entry.relative:.2e}"]
        for entry in report.parity
    ]
    columns = ["output", "batch", "largest difference", "scale", "difference / scale"]
    title = f"parity: all below the tolerance of {report.settings.tolerance:g} of the output's scale"
    console.table(title, columns, parity)
    console.line(PARITY_NOTE)
    _show_latency(report, console)
    console.line()
    batch = "any batch size" if report.batch_size is None else f"batch size {report.batch_size}"
    opset = "" if report.opset is None else f", opset {report.opset}"
    console.line(f"exported model: {path}    ({report.settings.format}{opset}, {batch})")
    console.line(f"its record:     {path}.json")
    if note := FILE_FORMATS[report.settings.format].note:
        console.line(note)


def _show_latency(report: ExportReport, console: Console) -> None:
    name = report.settings.format
    beside_model = [(each.eager_median_s, each) for each in report.latency]
    beside_dense = [(each.dense_median_s, each) for each in report.against_dense]
    title = "latency on the CPU"
    for other, entries in (("PyTorch", beside_model), (f"unmodified, {name}", beside_dense)):
        if not entries:
            continue
        rows = [
            [
                str(entry.batch_size),
                f"{median_s * 1000:.3f} ms",
                f"{entry.median_s * 1000:.3f} ms",
                f"{entry.ratio:.3f}",
                str(entry.threads),
                str(len(entry.samples_s)),
            ]
            for median_s, entry in entries
        ]
        console.line()
        console.table(title, ["batch", other, f"exported, {name}", "ratio", "threads", "samples"], rows)
        title += ", against the unmodified model"
    if report.latency:
        console.line(LATENCY_NOTE)
