"""Holds the settings of the zoo matrix: the models, and how far each is cut. No torch here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from toolkit.base.settings import Ratio, Settings, Version
from toolkit.recipe.read_settings import read_settings
from toolkit.recipe.recipe import Measure, Recipe
from toolkit.stages.block_drop.settings import BlockDrop
from toolkit.stages.channel_prune.settings import ChannelPrune
from toolkit.stages.settings import Stage
from toolkit.zoo.settings import ZooModel

CutOrder = Literal["depth", "width", "depth_then_width", "width_then_depth"]

ROUND_TO = 4  # finer than the default, as some models have layers of 16 channels and no latency is compared

ORDERS: tuple[CutOrder, ...] = ("depth", "width", "depth_then_width", "width_then_depth")


class Matrix(Settings):
    """States the matrix: each of the `models` is cut to `macs_ratio` of its MACs in every order.

    The order `depth` drops blocks until the ratio is reached; the combined orders drop one block and cut widths for the
    rest.

    macs_tolerance: the largest difference to `macs_ratio` that passes.
    """

    version: Version = 1
    macs_ratio: Ratio
    macs_tolerance: Ratio
    models: Annotated[tuple[ZooModel, ...], Field(min_length=1, strict=False)]

    def recipe(
        self, model: ZooModel, order: CutOrder, width_ratio: float | None = None, block: str | None = None
    ) -> Recipe:
        """Returns the recipe of a cell.

        width_ratio: the ratio of MACs of the width stage where it comes first.
        block: the block that is dropped; None chooses it.
        """
        drop_one = BlockDrop(num_blocks=1, criterion="block_mse") if block is None else BlockDrop(blocks=(block,))
        narrow = ChannelPrune(macs_ratio=self.macs_ratio, macs_tolerance=self.macs_tolerance, round_to=ROUND_TO)
        stages: dict[CutOrder, tuple[Stage, ...]] = {
            "depth": (BlockDrop(macs_ratio=self.macs_ratio, criterion="block_mse"),),
            "width": (narrow,),
            "depth_then_width": (drop_one, narrow),
            "width_then_depth": (narrow.model_copy(update={"macs_ratio": width_ratio}), drop_one),
        }
        return Recipe(
            name=order,
            task="zoo",
            seed=0,
            device="cpu",
            model=model,
            stages=stages[order],
            measure=Measure(batch_sizes=(1,), threads=1, repeats=3, warmup=1, splits=("test",)),
        )


def folder_of(model: ZooModel) -> str:
    """Returns the name of a model's folder, such as `torchvision-resnet18`."""
    return model.name.replace("/", "-")


def read_matrix(path: Path) -> Matrix:
    """Returns the matrix in the file at `path`.

    Raises:
        RecipeError: the file has faults; the message holds all of them with their lines.
    """
    return read_settings(path, Matrix)[0]
