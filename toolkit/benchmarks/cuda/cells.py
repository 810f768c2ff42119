"""Lists the cells of the CUDA benchmark in order of their value, and holds what is kept of each. No torch here."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationError

from toolkit.base.errors import RecordError
from toolkit.base.files import write_atomically
from toolkit.base.settings import Data
from toolkit.measure.results import Environment, Latency, MeasuredRuntime, Precision
from toolkit.record.plan import PlanRecord

SHARES: Final = (0.76, 0.5)  # shares of the dense multiply-adds, which depth approximates

SAME_MACS: Final = 0.01  # share of the dense multiply-adds by which depth and width may differ

SAME_TIME: Final = 0.02  # the ratio of a model's time to its own may differ from 1 by so much

Part = Literal["a", "b", "c", "d", "e"]

CORE: Final = ("videomae_s", "vit_b_16")

OTHERS: Final = ("deit_s_16", "resnet50", "videomae_b")

BATCHES: Final[Mapping[str, tuple[int, ...]]] = {
    "videomae_s": (1, 48),
    "vit_b_16": (1, 8, 64),
    "deit_s_16": (1, 8, 64),
    "resnet50": (1, 8, 64),
    "videomae_b": (1, 48),
}

TINY_BATCHES: Final[Mapping[str, tuple[int, ...]]] = dict.fromkeys(BATCHES, (2,))  # batch sizes of a rehearsal

CORE_PRECISIONS: Final[tuple[Precision, ...]] = ("float32", "bfloat16")

RECIPES: Final = ("smoke", "depth_then_width")


@dataclass(frozen=True)
class PairPlan:
    """Describes depth and width of one model at equal multiply-adds, which are timed in one way.

    share: the share of the dense multiply-adds that depth approximates.
    round_to: the number of which widths are multiples.
    """

    model: str
    batch_size: int
    share: float = SHARES[0]
    round_to: int = 8
    precision: Precision = "float32"
    runtime: MeasuredRuntime = "eager"


@dataclass(frozen=True)
class CellPlan:
    """Describes one cell.

    part: the part of the benchmark.
    kind: cells of one kind take about the same time.
    pair: the models of a cell of part b.
    what: the recipe of a cell of part d, or the device of a cell of part e.
    batch_size: the batch size of a plan of part e.
    """

    part: Part
    name: str
    kind: str
    pair: PairPlan | None = None
    what: str = ""
    batch_size: int = 1


class PairTimes(Data):
    """Holds the timings of a pair.

    macs: multiply-adds of one example: the dense model's, depth's and width's.
    depth, width: latencies that were timed in turns with the dense model.
    against: the latency of width, timed in turns with depth in the dense model's place; above 1, depth is faster.
    """

    macs: tuple[int, int, int]
    num_blocks: int
    dropped: tuple[str, ...]
    widths: dict[str, int]
    depth: Latency
    width: Latency
    against: Latency


class JobResult(Data):
    """Holds what a command left.

    output: the end of what it printed.
    columns, rows: its result as a table.
    plan: the plan of a cell of part e.
    """

    exit_code: int
    output: str
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    plan: PlanRecord | None = None


class CudaCell(Data):
    """Holds what is kept of one cell.

    seconds: how long the cell took in all.
    rehearsal: whether it was run with tiny sizes on the CPU, so that no figure of it means anything.
    reason: why nothing was measured; empty where something was.
    clocks: what nvidia-smi printed about the device.
    same: the latency of a model that was timed in turns with itself.
    times: the timings of part b.
    job: the result of a command.
    """

    name: str
    seconds: Annotated[float, Field(ge=0.0)]
    rehearsal: bool
    environment: Environment
    reason: str = ""
    clocks: str = ""
    same: Latency | None = None
    times: PairTimes | None = None
    job: JobResult | None = None


Cells = dict[str, CudaCell]


def cells_in_order(batches: Mapping[str, tuple[int, ...]] = BATCHES) -> tuple[CellPlan, ...]:
    """Returns all cells in order of their value.

    batches: the batch sizes of every model, by the model's name.
    """
    return (
        CellPlan("a", "a_environment", "a"),
        *_pairs(_core(batches)),
        CellPlan("c", "c_gpu_tests", "c"),
        *(CellPlan("d", f"d_{name}", f"d_{name}", what=name) for name in RECIPES),
        *(
            CellPlan("e", f"e_plan_{device}_batch{size}", f"e_{device}", what=device, batch_size=size)
            for size in (1, 16)
            for device in ("cuda", "cpu")
        ),
        *_pairs(_rest(batches)),
    )


def _core(batches: Mapping[str, tuple[int, ...]]) -> Iterator[PairPlan]:
    for share, name, precision in itertools.product(SHARES, CORE, CORE_PRECISIONS):
        for size in batches[name]:
            yield PairPlan(name, size, share, precision=precision)


def _rest(batches: Mapping[str, tuple[int, ...]]) -> Iterator[PairPlan]:
    """Yields the other models, then widths in multiples of 64, then TF32, CUDA graphs, and at last torch.compile."""
    for name, share, precision in itertools.product(OTHERS, SHARES, CORE_PRECISIONS):
        for size in batches[name]:
            yield PairPlan(name, size, share, precision=precision)
    all_models = (*CORE, *OTHERS)
    for name, share, precision in itertools.product(all_models, SHARES, CORE_PRECISIONS):
        for size in batches[name]:
            yield PairPlan(name, size, share, 64, precision)
    for name in all_models:
        for size in batches[name]:
            yield PairPlan(name, size, precision="tf32")
    ways = itertools.product(("cuda_graph", "compile"), all_models, CORE_PRECISIONS)
    for runtime, name, precision in ways:
        for size in batches[name]:
            yield PairPlan(name, size, precision=precision, runtime=runtime)  # type: ignore[arg-type]


def _pairs(plans: Iterator[PairPlan]) -> Iterator[CellPlan]:
    for plan in plans:
        way = "_".join((plan.runtime, plan.precision))
        name = f"b_{plan.model}_macs{plan.share:g}_multiples{plan.round_to}_{way}_batch{plan.batch_size}"
        yield CellPlan("b", name, f"b_{plan.runtime}", plan)


def cell_file(out: Path, name: str) -> Path:
    """Returns the path of the file of a cell."""
    return out / "cells" / f"{name}.json"


def save_cell(out: Path, cell: CudaCell) -> None:
    """Writes the file of a cell."""
    path = cell_file(out, cell.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, cell.model_dump_json(indent=1, exclude_defaults=True) + "\n")


def load_cells(out: Path) -> Cells:
    """Returns all kept cells by name.

    Raises:
        RecordError: a file is damaged.
    """
    cells: Cells = {}
    for path in sorted((out / "cells").glob("*.json")):
        try:
            cells[path.stem] = CudaCell.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            reason = str(error).splitlines()[0]
            raise RecordError(f"{path}: damaged or not a cell of the benchmark ({reason}); delete the file") from error
    return cells
