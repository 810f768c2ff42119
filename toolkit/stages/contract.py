"""What the settings of every stage answer, so that nothing outside of a stage's folder has to name the stage.

Nothing here imports torch. To add a stage: its folder with `settings.py` (a subclass of `StageSettings`) and
`apply.py`, its place in `stages/settings.py` and in `stages/registry.py`, and a recipe that uses it.
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
    """Base of the settings of every stage.

    type: the name of the stage in recipes; a subclass narrows it to one literal, its default.
    axis: what the stage cuts: blocks (depth), channels (width), or work that depends on the input (dynamic). None for
        a stage that cuts nothing. The family of a recipe and the lines about slower models follow from it.
    detail: the class of what the stage leaves in the record.
    if_slower: what to try instead where the stage made the model slower; said to the user.
    """

    type: str

    axis: ClassVar[Axis | None] = None
    detail: ClassVar[DetailClass] = StageDetail
    if_slower: ClassVar[str] = ""

    @property
    def target_macs_ratio(self) -> float | None:
        """The share of the unmodified multiply-adds that the stage is to reach; None if it has no such target."""
        return None

    @property
    def num_dropped(self) -> int:
        """The number of blocks that the settings say will be dropped; 0 where they do not say."""
        return 0

    @property
    def trains(self) -> bool:
        """Whether the stage takes gradient steps."""
        return False

    def in_words(self) -> str:
        """Returns what the stage does in one phrase for people; without a subclass's own words, its settings."""
        settings = self.model_dump(mode="json", exclude={"type"})
        return ", ".join(f"{name} = {value}" for name, value in settings.items())

    def faults(self, card: TaskCard | None, earlier: Earlier) -> Iterator[StageFault]:
        """Yields what keeps the stage from doing what it says: the place within its settings, and the message.

        card: what is known of the task; None for a user's own task.
        earlier: the sound stages before this one, by their index in the recipe.
        """
        yield from ()

    def estimate_s(self, costs: TaskCosts, num_blocks: int, dense_blocks: int) -> float:
        """Returns the seconds that the stage takes on 2 idle CPU cores, when it begins with `num_blocks` blocks.

        dense_blocks: the number of blocks of the unmodified model.
        """
        return 0.0

    def estimated_drops(self, num_blocks: int, dense_blocks: int) -> int:
        """Returns how many of the `num_blocks` blocks that are left the stage drops, as far as its settings tell."""
        return 0


def useless_macs_ratio(asked: float | None, earlier: Earlier) -> Iterator[StageFault]:
    """Yields a fault if a share of the multiply-adds is reached before the stage that asks for it begins."""
    reached, by = 1.0, "the unmodified model is at 1.0"
    for index, stage in earlier.items():
        target = stage.target_macs_ratio
        if target is not None and target < reached:
            reached, by = target, f"stage {index} is to reach {target} already"
    if asked is not None and asked >= reached:
        message = f"{asked} would change nothing: {OF_UNMODIFIED}, and {by}; go below {reached}"
        yield ("macs_ratio",), f"{message} or set allow_no_change: true"
