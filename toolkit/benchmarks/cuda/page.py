"""Makes the page of the CUDA benchmark, README.md, from the kept cells; without cells it says how to measure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

from toolkit.base.files import write_atomically
from toolkit.benchmarks.cuda.cells import (
    BATCHES,
    CORE,
    CORE_PRECISIONS,
    SAME_MACS,
    SAME_TIME,
    TINY_BATCHES,
    CellPlan,
    Cells,
    CudaCell,
    PairTimes,
    cells_in_order,
    load_cells,
)
from toolkit.measure.counted import percentile
from toolkit.measure.results import Latency

PAGE_FILE = "README.md"

COMMAND = "python -m toolkit.benchmarks.cuda --out reports/results/cuda --minutes 8"

INTRODUCTION = f"""\
At equal multiply-adds, are dropped blocks faster than pruned channels on a GPU? All weights are random: only time is
measured. Depth drops the number of blocks that comes nearest to a share of the dense multiply-adds; width keeps heads
and MLP channels (of a ResNet: channels inside blocks), in multiples of 8 or 64, so that its multiply-adds, attention
included, are depth's within {SAME_MACS:g} of dense. Each is timed in turns with the dense model, and width in turns
with depth. How to run it on a machine without a network:
[toolkit/benchmarks/README.md](../../../toolkit/benchmarks/README.md).

```bash
{COMMAND}
```
"""

Row = Sequence[str]


def write_page(out: Path) -> Path:
    """Writes `README.md` into the folder of the results, and returns its path.

    Raises:
        RecordError: the file of a cell is damaged.
    """
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / PAGE_FILE, page_of(load_cells(out)))
    return out / PAGE_FILE


def page_of(cells: Cells) -> str:
    """Returns the page as Markdown."""
    parts = ["# Depth against width on CUDA", answer(cells), INTRODUCTION.rstrip()]
    if cells:
        parts += [*_machine(cells), *_pairs(cells), *_memory(cells), *_jobs(cells), *_plans(cells), *_gaps(cells)]
    return "\n\n".join(parts) + "\n"


def answer(cells: Cells) -> str:
    """Returns the answer in one sentence, whichever way it turns out, or why there is none.

    The answer is about the core cells: eager, float32 with TF32 off and bfloat16, widths in multiples of 8.
    """
    if not cells:
        return "**Not measured.** No machine with CUDA was at hand."
    if any(cell.rehearsal for cell in cells.values()):
        return "**A rehearsal on the CPU with tiny sizes: no figure of this page means anything.**"
    core_times = [times for cell, times in _timed(cells, _core_names())]
    if not core_times:
        return "**Not measured.** No pair of depth and width was reached."
    ratios = [times.against.ratio for times in core_times]
    gpu = next(iter(cells.values())).environment.gpu or "this GPU"
    sentence = (
        f"**At equal multiply-adds depth is {statistics.median(ratios):.2f} times as fast as width on {gpu}** "
        f"(median of {len(ratios)} pairs, {min(ratios):.2f} to {max(ratios):.2f}; "
        f"{sum(ratio > 1 for ratio in ratios)} of them above 1; PyTorch {_torch(cells)})."
    )
    return sentence if (fault := _unsteady(cells)) is None else f"**No figure of this page is to be quoted: {fault}.**"


def _unsteady(cells: Cells) -> str | None:
    """Returns why the timings cannot be trusted; None if a model takes as long as itself."""
    same = next((cell.same for cell in cells.values() if cell.same is not None), None)
    if same is None:
        return "a model was not timed against itself"
    if abs(same.ratio - 1) <= SAME_TIME:
        return None
    return f"a model timed against itself took {same.ratio:.3f} of its own time, more than {SAME_TIME:g} from 1"


def _core_names() -> set[str]:
    return {
        plan.name
        for plan in cells_in_order()
        if plan.pair is not None
        and (plan.pair.model in CORE and plan.pair.precision in CORE_PRECISIONS)
        and (plan.pair.runtime, plan.pair.round_to) == ("eager", 8)
    }


def _timed(cells: Cells, names: Iterable[str]) -> list[tuple[CudaCell, PairTimes]]:
    measured = [cells[name] for name in names if name in cells]
    return [(cell, cell.times) for cell in measured if cell.times is not None]


def _torch(cells: Cells) -> str:
    return next(iter(cells.values())).environment.packages.get("torch", "unknown")


def _machine(cells: Cells) -> list[str]:
    environment = next(iter(cells.values())).environment
    lines = [
        f"- GPU {environment.gpu or 'none'}; processor {environment.processor}, {environment.num_cores} cores",
        f"- Python {environment.python}, "
        + ", ".join(f"{name} {version}" for name, version in sorted(environment.packages.items())),
        f"- {len(cells)} cells took {sum(cell.seconds for cell in cells.values()):.0f} s",
    ]
    for cell in cells.values():
        if cell.same is not None:
            lines.append(f"- a model against itself: {cell.same.ratio:.3f} ({_spread(cell.same)})")
        if cell.clocks:
            lines.append("- clocks: " + "; ".join(cell.clocks.splitlines()))
    return ["## Machine", "\n".join(lines)]


def _pairs(cells: Cells) -> list[str]:
    """Returns a table for each model, in the order of the cells."""
    plans = [plan for plan in _in_order(cells) if plan.pair is not None]
    parts = []
    for model in dict.fromkeys(plan.pair.model for plan in plans if plan.pair):
        rows = []
        for plan in plans:
            cell = cells[plan.name]
            if plan.pair is None or plan.pair.model != model or cell.times is None:
                continue
            dense, depth, width = cell.times.macs
            rows.append(
                [
                    f"{plan.pair.runtime} {plan.pair.precision}",
                    str(plan.pair.batch_size),
                    f"{depth / dense:.3f} ({len(cell.times.dropped)} of {cell.times.num_blocks} blocks)",
                    f"{width / dense:.3f} (of {plan.pair.round_to})",
                    f"{1000 * cell.times.depth.dense_median_s:.2f}",
                    f"{1 / cell.times.depth.ratio:.3f}",
                    f"{1 / cell.times.width.ratio:.3f}",
                    f"{cell.times.against.ratio:.3f} ({_spread(cell.times.against)})",
                    f"{cell.seconds:.0f}",
                ]
            )
        if rows:
            parts += [f"### {model}", _table(_PAIR_HEAD, rows)]
    note = (
        "Speed-ups are over the dense model. The last ratio is of width's time to depth's, taken in turns: above 1, "
        "depth is faster; in brackets its 10th and 90th percentile."
    )
    return ["## Depth against width", note, *parts] if parts else []


_PAIR_HEAD = (
    "", "batch", "MACs, depth", "MACs, width", "dense, ms", "speed-up, depth", "speed-up, width", "depth over width",
    "cell, s",
)  # fmt: skip


def _memory(cells: Cells) -> list[str]:
    rows = []
    for plan in _in_order(cells):
        times = cells[plan.name].times
        if times is None or times.depth.peak_bytes is None or plan.pair is None or plan.pair.round_to != 8:
            continue
        peaks = [times.depth.dense_peak_bytes, times.depth.peak_bytes, times.width.peak_bytes]
        name = f"{plan.pair.model}, {plan.pair.share:g}, {plan.pair.runtime} {plan.pair.precision}"
        rows.append([name, str(plan.pair.batch_size), *(f"{(peak or 0) / 2**20:.0f}" for peak in peaks)])
    if not rows:
        return []
    note = "MiB that a call takes, its weights included, by CUDA's own counter."
    return ["## Peak memory", note, _table(["", "batch", "dense", "depth", "width"], rows)]


def _jobs(cells: Cells) -> list[str]:
    parts = []
    for plan in _in_order(cells):
        job = cells[plan.name].job
        if job is None or plan.part == "e":
            continue
        last = next((line for line in reversed(job.output.splitlines()) if line.strip()), "")
        parts.append(f"### {plan.name}: exit code {job.exit_code}, {cells[plan.name].seconds:.0f} s")
        parts.append(_table(job.columns, job.rows) if job.columns else f"`{last.strip()}`")
    return ["## Tests and recipes", *parts] if parts else []


def _plans(cells: Cells) -> list[str]:
    """Returns a table of predicted and measured latencies, and whether both devices have the same plan."""
    rows, plans = [], {}
    for plan in _in_order(cells):
        job = cells[plan.name].job
        if plan.part != "e" or job is None:
            continue
        note = job.plan
        if note is None:
            rows.append([plan.what, str(plan.batch_size), f"no plan: exit code {job.exit_code}", "", "", ""])
            continue
        plans[plan.batch_size, plan.what] = note.dropped, note.widths, note.bypassed
        latencies = note.predicted.latency_ratio, note.measured_latency_ratio
        ratios = [next(iter(by_key.values()), None) for by_key in latencies]
        shown = ["–" if ratio is None else f"{ratio:.3f}" for ratio in ratios]
        rows.append([plan.what, str(plan.batch_size), f"{len(note.dropped)}", f"{len(note.widths)}", *shown])
    if not rows:
        return []
    lines = []
    for size in sorted({size for size, _ in plans}):
        if {(size, "cuda"), (size, "cpu")} <= plans.keys():
            same = "the same" if plans[size, "cuda"] == plans[size, "cpu"] else "different"
            lines.append(f"At batch {size} the plans of the two devices are {same}.")
    head = ["device", "batch", "blocks that go", "widths that change", "predicted latency", "measured latency"]
    return ["## Plans for half of the latency, from each device's own table", _table(head, rows), *lines]


def _gaps(cells: Cells) -> list[str]:
    failed = [f"- {cell.name}: {cell.reason}" for cell in cells.values() if cell.reason]
    missing = [f"- {plan.name}" for plan in _plan_of(cells) if plan.name not in cells]
    parts = ["## Nothing measured", "\n".join(failed)] if failed else []
    return parts + (["## Not reached", "\n".join(missing)] if missing else [])


def _in_order(cells: Cells) -> list[CellPlan]:
    return [plan for plan in _plan_of(cells) if plan.name in cells]


def _plan_of(cells: Cells) -> tuple[CellPlan, ...]:
    return cells_in_order(TINY_BATCHES if any(cell.rehearsal for cell in cells.values()) else BATCHES)


def _spread(latency: Latency) -> str:
    return f"{percentile(latency.ratios, 10):.3f} to {percentile(latency.ratios, 90):.3f}"


def _table(head: Row, rows: Sequence[Row]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))
