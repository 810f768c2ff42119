"""Lists the cells of the CIFAR-10 benchmark, and holds what is kept of each as JSON. No torch here."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from toolkit.base.errors import RecordError
from toolkit.base.files import write_atomically
from toolkit.base.settings import Data
from toolkit.measure.results import Environment, Latency
from toolkit.recipe.recipe import Recipe
from toolkit.record.plan import PlanRecord
from toolkit.tasks.cifar10.card import DEPTHS

BenchmarkPart = Literal["training_free", "recovery", "latency"]

PARTS: Final[tuple[BenchmarkPart, ...]] = ("training_free", "recovery", "latency")

DENSE: Final = "dense"

FAMILY_METHODS: Final = ("depth", "width", "combined")

WITH_BYPASS: Final = "_bypass"  # the end of the name of a family whose plans may use bypasses

BYPASS_METHODS: Final = ("depth_bypass", "combined_bypass")  # for ResNet-20 alone

PEERS: Final = ("torch_pruning", "torch_pruning_global", "torch_pruning_taylor")

CONTROLS: Final = ("plain_drop", "plain_width", *PEERS, "toast", "replace_me", "grail")

BY_HAND: Final = ("fold_2", "fold_3", "width_half", "both_3_75", "both_3_60")  # for ResNet-20 alone, not planned

MACS_BUDGETS: Final = (0.75, 0.6, 0.5, 0.35)

LATENCY_BUDGETS: Final = (0.75, 0.5)  # shares of the dense model's latency at BUDGET_BATCH

BUDGET_BATCH: Final = 64

RECOVERED: Final = ("depth", "width", "combined", "torch_pruning", "plain_drop")

RECOVERED_DEPTHS: Final = (20, 44)

RECOVERED_BUDGETS: Final = (0.5, 0.35)

RECOVERY_SEEDS: Final = (0, 1, 2)

CELLS_FOLDER, TIMINGS_FOLDER = "cells", "timings"


@dataclass(frozen=True)
class CellKey:
    """Names a cell.

    depth: the depth of the network.
    resource: the resource that is limited; empty for the dense model.
    budget: the limit of the resource, as a share of what the dense model takes.
    seed: the seed of the fine-tuning; None for a model that is not trained.
    draw: which draw of images the choices and repairs were made on.
    """

    depth: int
    method: str
    resource: Literal["macs", "latency", ""] = ""
    budget: float = 1.0
    seed: int | None = None
    draw: int = 0

    @property
    def place(self) -> Path:
        """Returns the path of the cell below a folder, without the suffix."""
        limit = Path(f"{self.resource}_{self.budget:g}") if self.resource else Path()
        seed = "" if self.seed is None else f"_recovered_seed{self.seed}"
        draw = f"_draw{self.draw}" if self.draw else ""
        return Path(f"resnet{self.depth}") / limit / f"{self.method}{seed}{draw}"


class ImageCell(Data):
    """Describes one model and its accuracy on the test images, or the `reason` why there is no model.

    macs, dense_macs: multiply-adds of one example, of the model and of the dense model.
    hits: base64 of one bit per test image, 1 if the model is right, in the order of the images and filled up to whole
        bytes.
    dropped: the blocks that the stages dropped, in order.
    recipe: the stages that made the model; `replace_me` and `grail` refit layers after them.
    plan: the record of the plan; None for a model that was not planned.
    """

    depth: int
    method: str
    resource: Literal["macs", "latency", ""] = ""
    budget: float = 1.0
    seed: int | None = None
    draw: int = 0
    macs: int = 0
    dense_macs: int = 0
    num_params: int = 0
    dense_params: int = 0
    accuracy: float | None = None
    num_images: int = 0
    hits: str = ""
    dropped: tuple[str, ...] = ()
    recipe: Recipe | None = None
    plan: PlanRecord | None = None
    reason: str = ""
    seconds: float = 0.0
    environment: Environment

    @property
    def key(self) -> CellKey:
        """Returns the name of the cell."""
        return CellKey(self.depth, self.method, self.resource, self.budget, self.seed, self.draw)

    @property
    def macs_ratio(self) -> float:
        """Returns the multiply-adds as a share of the dense model's."""
        return self.macs / self.dense_macs

    @property
    def params_ratio(self) -> float:
        """Returns the number of parameters as a share of the dense model's."""
        return self.num_params / self.dense_params

    @property
    def right(self) -> NDArray[np.bool_]:
        """Returns for each test image whether the model is right: [num_images]."""
        bits = np.frombuffer(base64.b64decode(self.hits), dtype=np.uint8)
        return np.unpackbits(bits, count=self.num_images).astype(bool)

    @property
    def cuts_both(self) -> bool:
        """Returns whether the plan both drops blocks and cuts widths."""
        return self.plan is not None and bool(self.plan.dropped) and bool(self.plan.widths)


class TimingCell(Data):
    """Holds the latencies of a cell's model, one for each batch size."""

    latency: tuple[Latency, ...]
    environment: Environment


def packed(right: NDArray[np.bool_]) -> str:
    """Returns which images are right as `ImageCell.hits`."""
    return base64.b64encode(np.packbits(right).tobytes()).decode()


def cell_file(out: Path, key: CellKey) -> Path:
    """Returns the path of the file that keeps a cell."""
    return out / CELLS_FOLDER / f"{key.place}.json"


def timing_file(out: Path, key: CellKey) -> Path:
    """Returns the path of the file that keeps the latencies of a cell's model."""
    return out / TIMINGS_FOLDER / f"{key.place}.json"


def save(path: Path, content: Data) -> None:
    """Writes a cell or its latencies to a file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content.model_dump_json(indent=1) + "\n")


def load_image_cell(path: Path) -> ImageCell | None:
    """Returns the cell in a file, or None if there is no file.

    Raises:
        RecordError: the file is damaged.
    """
    if not path.exists():
        return None
    try:
        return ImageCell.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise RecordError(f"{path}: damaged or not a cell of the benchmark; remove it to run it again") from error


def load_timing(path: Path) -> TimingCell | None:
    """Returns the latencies in a file, or None if there is no file.

    Raises:
        RecordError: the file is damaged.
    """
    if not path.exists():
        return None
    try:
        return TimingCell.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise RecordError(f"{path}: damaged or not a timing of the benchmark; remove it to run it again") from error


def load_all(out: Path) -> list[ImageCell]:
    """Returns all cells that are kept below `out`, in order of their paths."""
    cells = (load_image_cell(path) for path in sorted((out / CELLS_FOLDER).rglob("*.json")))
    return [cell for cell in cells if cell is not None]


def keys_of(part: BenchmarkPart, depths: Sequence[int] = DEPTHS, draw: int = 0) -> Iterator[CellKey]:
    """Yields the cells of a part in the order in which they are run: the plan that a control follows comes first.

    The part `latency` plans for budgets of latency, which needs an idle machine as the timing of all models does.
    """
    for depth in depths:
        if part == "training_free":
            yield CellKey(depth, DENSE, draw=draw)
            if depth == DEPTHS[0]:
                yield from (CellKey(depth, method, draw=draw) for method in BY_HAND)
            for budget in MACS_BUDGETS:
                bypass = BYPASS_METHODS if depth == DEPTHS[0] else ()
                for method in (*FAMILY_METHODS, *CONTROLS, *bypass):
                    yield CellKey(depth, method, "macs", budget, draw=draw)
        elif part == "latency":
            for budget in LATENCY_BUDGETS:
                for method in FAMILY_METHODS:
                    yield CellKey(depth, method, "latency", budget, draw=draw)
        elif depth in RECOVERED_DEPTHS:
            yield from _recovered(depth, draw)


def _recovered(depth: int, draw: int) -> Iterator[CellKey]:
    """Yields the fine-tuned cells of a network, all of one seed before those of the next."""
    for seed in RECOVERY_SEEDS:
        yield CellKey(depth, DENSE, seed=seed, draw=draw)
        for budget in RECOVERED_BUDGETS:
            for method in RECOVERED:
                yield CellKey(depth, method, "macs", budget, seed, draw)
