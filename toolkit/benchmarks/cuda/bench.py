"""Measures the cells of the CUDA benchmark one after another, as long as there is time."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from toolkit.base.console import Console
from toolkit.base.errors import UserError
from toolkit.benchmarks.cuda.cells import (
    CellPlan,
    CudaCell,
    PairPlan,
    PairTimes,
    cell_file,
    cells_in_order,
    load_cells,
    save_cell,
)
from toolkit.benchmarks.cuda.jobs import Job, gpu_tests_job, plan_job, recipe_job, run_job
from toolkit.benchmarks.cuda.pairs import MODELS, BenchModel, EqualPair, PairMaker, on_device
from toolkit.measure.environment import describe_environment
from toolkit.measure.results import Latency, MeasurementKey
from toolkit.measure.runtimes.registry import RUNTIMES, Runtimes
from toolkit.measure.timed import time_pairs

Clock = Callable[[], float]

_GUESSES = {"b_eager": 15.0, "b_cuda_graph": 15.0, "b_compile": 90.0}  # seconds of the first cell of a kind

_CLOCKS = "name,driver_version,clocks.sm,clocks.max.sm,clocks.mem,temperature.gpu,power.draw,power.limit"


@dataclass
class Deadline:
    """Says how much of `seconds` is left; None has no end."""

    seconds: float | None
    clock: Clock = time.monotonic

    def __post_init__(self) -> None:
        self.begun = self.clock()

    def left(self) -> float:
        """Returns the seconds that are left."""
        return float("inf") if self.seconds is None else self.seconds - (self.clock() - self.begun)


@dataclass(frozen=True)
class Sizes:
    """Holds the sizes of the benchmark; `rehearse.py` has the tiny ones.

    recipes: the recipes of part d, by the name of their cells.
    planned: arguments of the planning command of part e.
    same: the model that is timed against itself, and its batch size.
    """

    models: Mapping[str, BenchModel]
    recipes: Mapping[str, Path]
    planned: tuple[str, ...]
    runtimes: Runtimes = field(default_factory=lambda: RUNTIMES)
    device: str = "cuda"
    same: tuple[str, int] = ("vit_b_16", 8)
    warmup: int = 3
    repeats: int = 20
    threads: int = 2
    rehearsal: bool = False

    def plan(self) -> tuple[CellPlan, ...]:
        """Returns all cells in the order in which they are measured."""
        return cells_in_order({name: model.batches for name, model in self.models.items()})


FULL = Sizes(
    models=MODELS,
    recipes={name: Path("recipes") / f"{name}.yaml" for name in ("smoke", "depth_then_width")},
    planned=("--task", "tad-watch"),
)


class CudaBench:
    """Measures cells; `out` is the folder of the cells, `work` that of runs and tables."""

    def __init__(self, out: Path, work: Path, sizes: Sizes, console: Console) -> None:
        self.out, self.work, self.sizes, self.console = out, work, sizes, console
        self._maker: tuple[str, PairMaker] | None = None
        self._pair: tuple[tuple[str, float, int], EqualPair] | None = None

    def do(self, plan: CellPlan, left_s: float) -> CudaCell:
        """Measures a cell and returns it; an error that the user could fix becomes its reason.

        left_s: seconds after which a command is stopped.

        Raises:
            subprocess.TimeoutExpired: a command was stopped.
        """
        started = time.monotonic()
        cell = CudaCell(name=plan.name, seconds=0.0, rehearsal=self.sizes.rehearsal, environment=describe_environment())
        try:
            content = self._content(plan, left_s)
        except UserError as error:
            content = {"reason": " ".join(str(error).split())}
        finally:
            if self.sizes.device == "cuda":
                torch.cuda.empty_cache()
        return cell.model_copy(update={**content, "seconds": time.monotonic() - started})

    def _content(self, plan: CellPlan, left_s: float) -> Mapping[str, object]:
        if plan.pair is not None:
            return {"times": self._times(plan.pair)}
        if plan.part == "a":
            return {"same": self._same(), "clocks": clocks()}
        return {"job": run_job(self._job(plan), left_s)}

    def _same(self) -> Latency:
        """Returns the latency of a model that is timed in turns with another model of its kind."""
        name, size = self.sizes.same
        dense = self._maker_of(name).dense
        key = MeasurementKey(device=self.sizes.device, batch_size=size)
        same_model = on_device(self.sizes.models[name].build(), torch.device(self.sizes.device))
        return self._timed([dense, same_model], [(1, 0)], name, key)[0]

    def _times(self, plan: PairPlan) -> PairTimes:
        pair = self._pair_of(plan)
        key = MeasurementKey(
            runtime=plan.runtime, device=self.sizes.device, precision=plan.precision, batch_size=plan.batch_size
        )
        depth, width, against = self._timed(
            [pair.dense, pair.depth, pair.width], [(1, 0), (2, 0), (2, 1)], plan.model, key
        )
        return PairTimes(
            macs=pair.macs,
            num_blocks=pair.num_blocks,
            dropped=pair.dropped,
            widths=pair.widths,
            depth=depth,
            width=width,
            against=against,
        )

    def _timed(
        self, models: Sequence[nn.Module], pairs: Sequence[tuple[int, int]], name: str, key: MeasurementKey
    ) -> tuple[Latency, ...]:
        return time_pairs(
            models,
            pairs,
            self.sizes.models[name].inputs(key.batch_size),
            key,
            threads=self.sizes.threads,
            warmup=self.sizes.warmup,
            repeats=self.sizes.repeats,
            runtimes=self.sizes.runtimes,
        )

    def _maker_of(self, name: str) -> PairMaker:
        """Returns the maker of a model's pairs; the last one is kept, as neighbouring cells are of the same model."""
        if self._maker is None or self._maker[0] != name:
            self._maker = self._pair = None  # frees memory before the next model is built
            self._maker = name, PairMaker(self.sizes.models[name], torch.device(self.sizes.device), self.console)
        return self._maker[1]

    def _pair_of(self, plan: PairPlan) -> EqualPair:
        which = plan.model, plan.share, plan.round_to
        maker = self._maker_of(plan.model)
        if self._pair is None or self._pair[0] != which:
            self._pair = None
            self._pair = which, maker.pair(plan.share, plan.round_to)
        return self._pair[1]

    def _job(self, plan: CellPlan) -> Job:
        if plan.part == "c":
            return gpu_tests_job()
        if plan.part == "d":
            return recipe_job(self.sizes.recipes[plan.what], self.sizes.device, self.work / plan.name)
        device = self.sizes.device if plan.what == "cuda" else plan.what
        return plan_job(self.sizes.planned, device, plan.batch_size, self.work / plan.name)


def run_cells(
    plan: Sequence[CellPlan],
    out: Path,
    do: Callable[[CellPlan, float], CudaCell],
    deadline: Deadline,
    console: Console,
) -> list[str]:
    """Measures the missing cells, keeps each as soon as it is done, and returns the names of those not reached.

    A cell is started only if more time is left than the longest cell of its kind took, or is guessed to take.

    do: measures a cell within a number of seconds.
    """
    kinds = {cell.name: cell.kind for cell in plan}
    longest: dict[str, float] = {}
    for name, kept in load_cells(out).items():
        _note(longest, kinds.get(name, ""), kept.seconds)
    for number, cell in enumerate(plan, 1):
        place = f"[{number}/{len(plan)}] {cell.name}"
        if cell_file(out, cell.name).exists():
            continue
        left = deadline.left()
        if left <= longest.get(cell.kind, _GUESSES.get(cell.kind, 0.0)):
            continue
        started = deadline.clock()
        try:
            measured = do(cell, left)
        except subprocess.TimeoutExpired:
            _note(longest, cell.kind, left)
            console.line(f"{place}: stopped, the time is over")
            continue
        save_cell(out, measured)
        _note(longest, cell.kind, deadline.clock() - started)
        console.line(f"{place}: {words_of(measured)}")
    return [cell.name for cell in plan if not cell_file(out, cell.name).exists()]


def _note(longest: dict[str, float], kind: str, seconds: float) -> None:
    longest[kind] = max(longest.get(kind, 0.0), seconds)


def words_of(cell: CudaCell) -> str:
    """Returns the result of a cell in one line."""
    seconds = f"({cell.seconds:.0f} s)"
    if cell.reason:
        return f"nothing measured: {cell.reason} {seconds}"
    if cell.times is not None:
        depth, width, against = (1 / cell.times.depth.ratio, 1 / cell.times.width.ratio, cell.times.against.ratio)
        return (
            f"depth {depth:.3f}, width {width:.3f} times as fast as dense, depth {against:.3f} times as width {seconds}"
        )
    if cell.same is not None:
        return f"a model takes {cell.same.ratio:.3f} of its own time {seconds}"
    assert cell.job is not None
    return f"exit code {cell.job.exit_code} {seconds}"


def clocks() -> str:
    """Returns what nvidia-smi says of the device; an empty text if there is no such program."""
    try:
        result = subprocess.run(
            ["nvidia-smi", f"--query-gpu={_CLOCKS}", "--format=csv"], capture_output=True, text=True, check=False
        )
    except OSError:
        return ""
    return result.stdout.strip()
