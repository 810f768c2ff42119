"""The cells of the CUDA benchmark: which there are, in order of worth, and what is kept of each. No torch here."""

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

SHARES: Final = (0.76, 0.5)  # of the dense multiply-adds, that depth comes nearest to

SAME_MACS: Final = 0.01  # of the dense multiply-adds: what depth and width may differ by

SAME_TIME: Final = 0.02  # what a model may differ by from itself

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

TINY_BATCHES: Final[Mapping[str, tuple[int, ...]]] = dict.fromkeys(BATCHES, (2,))  # of a rehearsal

CORE_PRECISIONS: Final[tuple[Precision, ...]] = ("float32", "bfloat16")

RECIPES: Final = ("smoke", "depth_then_width")


@dataclass(frozen=True)
class PairPlan:
    """Depth and width of one model at equal multiply-adds, to be timed in one way.

    share: of the dense multiply-adds, that depth comes nearest to.
    round_to: the number that widths are multiples of.
    """

    model: str
    batch_size: int
    share: float = SHARES[0]
    round_to: int = 8
    precision: Precision = "float32"
    runtime: MeasuredRuntime = "eager"


@dataclass(frozen=True)
class CellPlan:
    """One cell. kind: cells of one kind take about the same time.

    what: the recipe of a cell of part d, or the device of one of part e.
    """

    part: Part
    name: str
    kind: str
    pair: PairPlan | None = None
    what: str = ""
    batch_size: int = 1


class PairTimes(Data):
    """What was timed of a pair.

    macs: multiply-adds of one example: the dense model's, depth's and width's.
    depth, width: in turns with the dense model.
    against: width in turns with depth, which takes the place of the dense model; a ratio above 1: depth is faster.
    """

    macs: tuple[int, int, int]
    num_blocks: int
    dropped: tuple[str, ...]
    widths: dict[str, int]
    depth: Latency
    width: Latency
    against: Latency


class JobResult(Data):
    """What a command left: its exit code, the end of what it printed, and what it found, as a table.

    plan: of a cell of part e.
    """

    exit_code: int
    output: str
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    plan: PlanRecord | None = None


class CudaCell(Data):
    """What is kept of one cell. reason: why nothing was measured; empty where something was.

    seconds: what the cell took in all.
    rehearsal: made with tiny sizes on the CPU; no figure of it means anything.
    clocks: what nvidia-smi says of the device, in its own words.
    same: a model timed in turns with itself.
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
    """Returns all cells in order of worth.

    batches: the batch sizes of every model, by its name.
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
    """Yields other models, then multiples of 64, then TF32, CUDA graphs and torch.compile, which takes longest."""
    for name, share, precision in itertools.product(OTHERS, SHARES, CORE_PRECISIONS):
        for size in batches[name]:
            yield PairPlan(name, size, share, precision=precision)
    every = (*CORE, *OTHERS)
    for name, share, precision in itertools.product(every, SHARES, CORE_PRECISIONS):
        for size in batches[name]:
            yield PairPlan(name, size, share, 64, precision)
    for name in every:
        for size in batches[name]:
            yield PairPlan(name, size, precision="tf32")
    ways = itertools.product(("cuda_graph", "compile"), every, CORE_PRECISIONS)
    for runtime, name, precision in ways:
        for size in batches[name]:
            yield PairPlan(name, size, precision=precision, runtime=runtime)  # type: ignore[arg-type]


def _pairs(plans: Iterator[PairPlan]) -> Iterator[CellPlan]:
    for plan in plans:
        way = "_".join((plan.runtime, plan.precision))
        name = f"b_{plan.model}_macs{plan.share:g}_multiples{plan.round_to}_{way}_batch{plan.batch_size}"
        yield CellPlan("b", name, f"b_{plan.runtime}", plan)


def cell_file(out: Path, name: str) -> Path:
    return out / "cells" / f"{name}.json"


def save_cell(out: Path, cell: CudaCell) -> None:
    path = cell_file(out, cell.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, cell.model_dump_json(indent=1, exclude_defaults=True) + "\n")


def load_cells(out: Path) -> Cells:
    """Returns what is kept, by name.

    Raises:
        RecordError: a file is damaged.
    """
    cells: Cells = {}
    for path in sorted((out / "cells").glob("*.json")):
        try:
            cells[path.stem] = CudaCell.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            reason = str(error).splitlines()[0]
            raise RecordError(f"{path}: damaged or not a cell of the benchmark ({reason}); delete it") from error
    return cells
