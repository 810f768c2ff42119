"""The tasks that a recipe can name. Nothing here imports torch: a card says what a recipe may ask of its task."""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from toolkit.base.errors import UserError
from toolkit.zoo.settings import ZooModel

ZOO: Final = "zoo"  # the task whose model the recipe says


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


@dataclass(frozen=True)
class TaskCard:
    """What can be known of a task without importing it; None where it depends on the recipe's model.

    `factory` is "module:callable" and takes no arguments; with `takes_model`, the recipe's model and a folder.
    """

    name: str
    summary: str
    factory: str
    num_blocks: int | None
    criteria: tuple[str, ...]
    metric: str
    kinds: tuple[str, ...] | None  # kinds of channel that can be pruned
    costs: TaskCosts | None
    takes_model: bool = False  # the recipe says which model


def _hapt(seed: int) -> TaskCard:
    """The same task with the baseline of another seed. It needs TOOLKIT_DATA, and baselines do not ship."""
    return TaskCard(
        name="tad-hapt" if seed == 0 else f"tad-hapt-seed{seed}",
        summary=f"temporal action detection: activities and postural transitions of UCI HAPT (baseline of seed {seed})",
        factory=f"toolkit.tasks.tad.hapt.task:make_seed{seed}",
        num_blocks=12,
        criteria=("task_metric", "loss", "block_mse", "random"),
        metric="average mAP",
        kinds=("mlp", "heads", "head_dim", "embedding"),
        costs=TaskCosts(
            start_s=5.0, evaluate_s=3.0, score_pass_s=0.5, recover_step_s=0.27, prune_s=6.0, forward_s=0.005
        ),
    )


TASKS: dict[str, TaskCard] = {
    "tad-watch": TaskCard(
        name="tad-watch",
        summary="temporal action detection: exercises in spliced smartwatch recordings",
        factory="toolkit.tasks.tad.watch.task:make_watch_task",
        num_blocks=12,
        criteria=("task_metric", "loss", "block_mse", "random"),
        metric="average mAP",
        kinds=("mlp", "heads", "head_dim", "embedding"),
        costs=TaskCosts(
            start_s=5.0, evaluate_s=1.2, score_pass_s=0.4, recover_step_s=0.27, prune_s=6.0, forward_s=0.005
        ),
    ),
    **{card.name: card for card in map(_hapt, range(3))},
    ZOO: TaskCard(
        name=ZOO,
        summary="any model of torchvision, timm or transformers on made-up inputs, compared with itself",
        factory="toolkit.tasks.agreement:make_zoo_task",
        num_blocks=None,
        criteria=("task_metric", "loss", "block_mse", "random"),
        metric="agreement",
        kinds=None,
        costs=None,
        takes_model=True,
    ),
}


def with_own_model() -> list[str]:
    """Returns the names of the tasks that bring their own model."""
    return [name for name, card in TASKS.items() if not card.takes_model]


def taking_a_model() -> str:
    """Returns the name of the task whose model the recipe says."""
    (name,) = (name for name, card in TASKS.items() if card.takes_model)
    return name


def make_task(name: str, model: ZooModel | None = None, folder: Path | None = None) -> Any:
    """The task called `name`, with its data and trained model at hand.

    `model` is for task `zoo` alone; a relative path of weights in it starts from `folder` (None: the current one).

    Raises:
        UserError: there is no such task, or it cannot be made of that model.
    """
    if name not in TASKS:
        raise UserError(f"{name!r} is not a known task; choose one of: {', '.join(TASKS)}")
    if (model is None) == TASKS[name].takes_model:
        raise UserError(f"task {name!r} {'needs a model: ZooModel(...)' if model is None else 'has its own model'}")
    module, attribute = TASKS[name].factory.split(":")
    make = getattr(importlib.import_module(module), attribute)
    return make() if model is None else make(model, folder)
