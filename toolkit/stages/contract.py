"""Defines what the settings of every stage answer, so that other folders need not know single stages.

Nothing here imports torch. To add a stage: its folder with `settings.py` (a subclass of `StageSettings`), `detail.py`
and `apply.py`, its place in `stages/settings.py` and in `stages/registry.py`, and a recipe that uses it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

from toolkit.base.settings import Settings
from toolkit.stages.detail import DetailClass, StageDetail
from toolkit.tasks.contract import TaskCard, TaskCosts

Axis = Literal["depth", "width", "dynamic"]
Earlier = Mapping[int, "StageSettings"]
StageFault = tuple[tuple[str | int, ...], str]

OF_UNMODIFIED = "ratios are of the unmodified model"


class StageSettings(Settings):
    """Is the base of the settings of every stage.

    type: name of the stage in recipes; a subclass narrows it to one literal, its default.
    axis: what the stage cuts: blocks (depth), channels (width), or work that depends on the input (dynamic). None for a
        stage that cuts nothing. The axes of a recipe's stages make its family, such as `combined` for depth and width.
    detail: class of what the stage writes into the record.
    if_slower: advice to the user if the model became slower.
    """

    type: str

    axis: ClassVar[Axis | None] = None
    detail: ClassVar[DetailClass] = StageDetail
    if_slower: ClassVar[str] = ""

    @property
    def target_macs_ratio(self) -> float | None:
        """Returns the share of the unmodified multiply-adds to reach, or None if the stage has no such target."""
        return None

    @property
    def num_dropped(self) -> int:
        """Returns the number of blocks that the settings say will be dropped, or 0 if they do not say."""
        return 0

    @property
    def named_blocks(self) -> tuple[str, ...]:
        """Returns the names of the blocks that the settings say will be dropped, or nothing if they name none."""
        return ()

    @property
    def may_change_nothing(self) -> bool:
        """Returns the setting `allow_no_change` of stages that have it, and False for others."""
        return bool(getattr(self, "allow_no_change", False))

    @property
    def trains(self) -> bool:
        """Says whether the stage takes gradient steps."""
        return False

    def in_words(self) -> str:
        """Returns in one phrase what the stage does; without a subclass's own words, its settings."""
        settings = self.model_dump(mode="json", exclude={"type"})
        return ", ".join(f"{name} = {value}" for name, value in settings.items())

    def faults(self, card: TaskCard | None, earlier: Earlier) -> Iterator[StageFault]:
        """Yields why the stage cannot do what its settings say: the place within the settings, and the message.

        card: what is known of the task, or None for a user's own task.
        earlier: the earlier stages without faults, by their index in the recipe.
        """
        yield from ()

    def estimate_s(self, costs: TaskCosts, num_blocks: int, dense_blocks: int) -> float:
        """Returns the estimated seconds of the stage on 2 idle CPU cores.

        num_blocks: number of blocks when the stage begins.
        dense_blocks: number of blocks of the unmodified model.
        """
        return 0.0

    def estimated_drops(self, num_blocks: int, dense_blocks: int) -> int:
        """Returns how many of the `num_blocks` remaining blocks the stage drops, as far as its settings tell."""
        return 0


def useless_macs_ratio(asked: float | None, earlier: Earlier) -> Iterator[StageFault]:
    """Yields a fault if the share of multiply-adds is already reached when the stage begins."""
    reached, reason = 1.0, "the unmodified model is at 1.0"
    for index, stage in earlier.items():
        target = stage.target_macs_ratio
        if target is not None and target < reached:
            reached, reason = target, f"stage {index} is to reach {target} already"
    if asked is not None and asked >= reached:
        message = f"{asked} would change nothing: {OF_UNMODIFIED}, and {reason}; go below {reached}"
        yield ("macs_ratio",), f"{message} or set allow_no_change: true"
