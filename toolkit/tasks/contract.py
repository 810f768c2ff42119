"""States what a task's card and settings hold, so that no file outside a task's folder has to name the task.

Nothing here imports torch. A new task takes a folder with a card, a place in `tasks/cards.py`, and a recipe. If the
card names a class of settings, a recipe says `task: {type: NAME, ...}` instead of `task: NAME`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from toolkit.base.settings import Settings
from toolkit.zoo.settings import ZooModel

TaskFault = tuple[tuple[str | int, ...], str]


@dataclass(frozen=True)
class TaskCosts:
    """Holds seconds on 2 CPU cores with the dense model, for estimates only."""

    start_s: float  # to load the data and the trained model
    evaluate_s: float  # to evaluate one split
    score_pass_s: float  # to score one block
    recover_step_s: float  # one fine-tuning step
    prune_s: float  # to collect statistics, prune and repair, once
    forward_s: float  # one example through the model

    def training_s(self, steps: int, validate_every: int) -> float:
        """Returns the seconds of a training that validates after every `validate_every` steps and at its end."""
        return steps * self.recover_step_s + math.ceil(steps / validate_every) * self.evaluate_s


class TaskSettings(Settings):
    """Is the base of the settings of a task.

    type: the name of the task; a subclass narrows it to one literal.
    """

    type: str

    def faults(self) -> Iterator[TaskFault]:
        """Yields place and message of each fault of the settings that shows without the data."""
        yield from ()

    def card(self, card: TaskCard) -> TaskCard:
        """Returns the task's card completed by these settings: number of blocks, kinds of channel, costs."""
        return card

    def moved(self, old: Path, new: Path) -> Self:
        """Returns the settings for a file in the folder `new`: relative paths start from the folder of their file.

        old: the folder that relative paths start from in these settings.
        """
        return self

    def zoo_model(self) -> ZooModel | None:
        """Returns the model, if it is one of a public zoo, so that a saved model is built by this name alone."""
        return None


@dataclass(frozen=True)
class FilesSeen:
    """Holds what a look at the files that a task's settings name has found.

    faults: each fault, with its place in the settings.
    notes: what there is, in sentences for people.
    """

    faults: tuple[TaskFault, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class TaskCard:
    """Says what is known of a task without importing it; None stands for what depends on the recipe.

    summary: what the task is, in a few words.
    factory: what makes the task, as "module:callable". The callable takes no arguments; with `settings`, it takes the
        settings and the folder that relative paths start from; with `takes_model`, it takes the recipe's model and that
        folder.
    num_blocks: the number of blocks that can be dropped.
    criteria: the criteria that block_drop can use.
    metric: the name of the metric.
    kinds: the kinds of channel that can be pruned, by the keys of the setting `keep` of channel_prune.
    settings: the class of the settings that a recipe may give the task.
    takes_model: whether the recipe names the model of this task under its key `model`.
    has_labels: whether the targets come from data; where they come from the unmodified model, training only distils.
    look: what looks at the files that the settings name, as "module:callable"; the callable takes the settings and the
        folder that relative paths start from, and returns `FilesSeen`. None if there are no such files.
    """

    name: str
    summary: str
    factory: str
    num_blocks: int | None
    criteria: tuple[str, ...]
    metric: str
    kinds: tuple[str, ...] | None
    costs: TaskCosts | None
    settings: type[TaskSettings] | None = None
    takes_model: bool = False
    has_labels: bool = True
    look: str | None = None


def seeded_name(family: str, seed: int) -> str:
    """Returns the name of the task with the baseline of a seed, in a family of tasks that differ in that alone."""
    return family if seed == 0 else f"{family}-seed{seed}"
