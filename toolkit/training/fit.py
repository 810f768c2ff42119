"""The one training loop: AdamW or SGD, warm-up + cosine, gradient clip, weight averaging, early stopping."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from toolkit.base.console import Console
from toolkit.base.errors import StageError
from toolkit.hooks.memory import out_of_memory_named
from toolkit.hooks.modes import evaluating
from toolkit.hooks.tensors import model_sha256
from toolkit.tasks.task import Batch
from toolkit.training.checkpoint import FitCheckpoint, FitPoint, FitResult, FitState

Loss = Callable[[nn.Module, Batch], Tensor]


@dataclass(frozen=True)
class FitConfig:
    """How to train.

    ema_decay: of the averaged weights, which are the ones validated and kept; 0 turns averaging off.
    momentum: of SGD; AdamW does not use it.
    """

    max_steps: int
    learning_rate: float
    weight_decay: float
    warmup_steps: int
    validate_every: int
    patience: int | None = None
    gradient_clip: float = 1.0
    ema_decay: float = 0.0
    optimizer: Literal["adamw", "sgd"] = "adamw"
    momentum: float = 0.9

    @classmethod
    def of(cls, settings: BaseModel) -> FitConfig:
        """From a stage or training configuration, whose settings of the same names mean the same."""
        names = {field.name for field in fields(cls)} & type(settings).model_fields.keys()
        return cls(**{name: getattr(settings, name) for name in names})

    def identity(self) -> dict[str, Any]:
        """Returns all settings but those of AdamW, which checkpoints of before there was SGD do not have either."""
        told = asdict(self)
        return (
            told if self.optimizer == "sgd" else {k: v for k, v in told.items() if k not in ("optimizer", "momentum")}
        )


@dataclass(frozen=True)
class Objective:
    """What a model is trained for.

    batches: endless training batches.
    loss: gives the loss of a model on a batch; it is minimised.
    validate: gives the quality of a model on validation data, larger is better.
    """

    batches: Iterator[Batch]
    loss: Loss
    validate: Callable[[nn.Module], float]


def fit(
    model: nn.Module,
    objective: Objective,
    config: FitConfig,
    *,
    keep_best: bool,
    console: Console,
    title: str,
    checkpoint: Path | None = None,
    checkpoint_every: int = 50,
) -> FitResult:
    """Train `model` in place. With `keep_best`, ends with the weights of the best validation, else with the last.

    Where `checkpoint` is a file that the same training left, it goes on from there, with the same result as if it had
    never stopped; batches already used are drawn and thrown away. The caller removes the file.

    Raises:
        StageError: the loss or the validation is not a finite number, or the checkpoint is not of this training.
        UserError: the device is out of memory.
    """
    state = _begin(model, config)
    keeper = None
    if checkpoint is not None:
        keeper = FitCheckpoint(checkpoint, checkpoint_every, model_sha256(model, [config.identity(), keep_best]))
        if keeper.load(state):
            console.line(f"{title}: continuing after step {state.result.steps}")
            _throw_away(objective.batches, state.result.steps)
    with console.progress(title, config.max_steps) as progress:
        progress.advance(state.result.steps)
        while not state.finished:
            batch = _next(objective.batches)
            with out_of_memory_named(title, partial(_size, batch), "give a smaller batch_size"):
                _train_step(state, batch, objective.loss, config)
            progress.advance()
            if state.result.steps % config.validate_every == 0 or state.result.steps == config.max_steps:
                point = _validate(state, objective.validate, config, keep_best)
                progress.note(f"loss {point.loss:.4f}, validation {point.validation:.4f}")
            if keeper is not None and (state.finished or state.result.steps % keeper.every == 0):
                keeper.save(state)
    if state.best_state is None:
        state.best_state, state.result.best_step = state.average.state_dict(), state.result.steps
    model.load_state_dict(state.best_state)
    model.eval()
    return state.result


def _size(batch: Batch) -> int:
    return len(batch.inputs[0])


def _begin(model: nn.Module, config: FitConfig) -> FitState:
    groups = _parameter_groups(model, config.weight_decay)
    optimiser: torch.optim.Optimizer
    if config.optimizer == "sgd":
        optimiser = torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum)
    else:
        optimiser = torch.optim.AdamW(groups, lr=config.learning_rate)
    average = copy.deepcopy(model).requires_grad_(False) if config.ema_decay else model
    return FitState(model, average, optimiser)


def _throw_away(batches: Iterator[Batch], count: int) -> None:
    """Draw batches that were used before; the random state stays the one of the checkpoint."""
    random_state = torch.get_rng_state()
    for _ in range(count):
        _next(batches)
    torch.set_rng_state(random_state)


def _next(batches: Iterator[Batch]) -> Batch:
    batch = next(batches, None)
    if batch is None:
        raise StageError("the training batches have ended; train_batches of a task must be endless")
    return batch


def _train_step(state: FitState, batch: Batch, loss: Loss, config: FitConfig) -> None:
    step = state.result.steps + 1
    _set_rate(state.optimiser, config, step)
    state.since_point.append(_step(state.model, batch, loss, state.optimiser, config.gradient_clip))
    if config.ema_decay:
        _update_average(state.average, state.model, min(config.ema_decay, step / (step + 10)))
    state.result.steps = step


def _validate(state: FitState, validate: Callable[[nn.Module], float], config: FitConfig, keep_best: bool) -> FitPoint:
    """Note a point of the curve and the best weights; the training is finished at its last step or without patience."""
    result = state.result
    with evaluating(state.average):
        value = validate(state.average)
    if not math.isfinite(value):
        raise StageError(f"validation is {value} after {result.steps} steps; the model or its data is broken")
    point = FitPoint(result.steps, sum(state.since_point) / len(state.since_point), value)
    result.curve.append(point)
    state.since_point = []
    if value > state.best_value:
        state.best_value, result.best_step = value, result.steps
        state.best_state = copy.deepcopy(state.average.state_dict()) if keep_best else None
    state.finished = result.steps == config.max_steps
    if config.patience and _validations_since_best(result) >= config.patience:
        state.finished, result.stopped = True, "patience"
    return point


def _step(
    model: nn.Module,
    batch: Batch,
    loss: Loss,
    optimiser: torch.optim.Optimizer,
    gradient_clip: float,
) -> float:
    model.train()
    optimiser.zero_grad(set_to_none=True)
    value = loss(model, batch)
    if not torch.isfinite(value):
        raise StageError(f"the training loss became {value.item()}; lower learning_rate")
    value.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), gradient_clip)
    optimiser.step()
    return float(value.item())


def _validations_since_best(result: FitResult) -> int:
    return sum(point.step > result.best_step for point in result.curve)


def _parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Weight decay on matrices and kernels only, as usual for transformers."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def _set_rate(optimiser: torch.optim.Optimizer, config: FitConfig, step: int) -> None:
    """Linear warm-up, then cosine to a hundredth."""
    warm = min(1.0, step / max(1, config.warmup_steps))
    done = max(0.0, (step - config.warmup_steps) / max(1, config.max_steps - config.warmup_steps))
    cosine = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))
    for group in optimiser.param_groups:
        group["lr"] = config.learning_rate * warm * cosine


@torch.no_grad()
def _update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    for mean, weight in zip(average.parameters(), model.parameters(), strict=True):
        mean.lerp_(weight, 1 - decay)
    for kept, value in zip(average.buffers(), model.buffers(), strict=True):
        kept.copy_(value)
