"""What can be known of every task without importing it, so that nothing outside of a task's folder has to name it.

Nothing here imports torch. To add a task: its folder with a card, its place in `tasks/cards.py`, and a recipe. A card
may name a class of settings; a recipe then says `task: {type: NAME, ...}` instead of `task: NAME`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from toolkit.base.settings import Settings

TaskFault = tuple[tuple[str | int, ...], str]


@dataclass(frozen=True)
class TaskCosts:
    """Seconds on 2 CPU cores with the dense model, for estimates only."""

    start_s: float  # load the data and the trained model
    evaluate_s: float  # one split
    score_pass_s: float  # score one block
    recover_step_s: float  # one fine-tuning step
    prune_s: float  # collect statistics, prune and repair, once
    forward_s: float  # one example through the model

    def training_s(self, steps: int, validate_every: int) -> float:
        """Returns the seconds of a training, with a validation after every `validate_every` steps and at its end."""
        return steps * self.recover_step_s + math.ceil(steps / validate_every) * self.evaluate_s


class TaskSettings(Settings):
    """Base of the settings of a task that takes any. `type` is the name of the task; a subclass narrows it."""

    type: str

    def faults(self) -> Iterator[TaskFault]:
        """Yields what keeps the task from being made, as far as it can be told without data: place and message."""
        yield from ()

    def card(self, card: TaskCard) -> TaskCard:
        """Returns the task's card with what these settings tell: the number of blocks, the kinds of channel, costs."""
        return card


@dataclass(frozen=True)
class TaskCard:
    """What can be known of a task without importing it; None where it depends on the recipe.

    factory: "module:callable". The callable takes no arguments; with `settings`, it takes them and the folder that
        relative paths start from; with `takes_model`, it takes the recipe's model and that folder.
    kinds: the kinds of channel that can be pruned.
    settings: the class of the settings that a recipe may give the task.
    takes_model: the recipe says the model of this task under its key `model`.
    has_labels: the targets come from data. Where they come from the unmodified model, a training only distils.
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
