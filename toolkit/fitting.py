"""The one training loop: AdamW, warm-up + cosine, gradient clip, weight averaging, early stopping on validation."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from toolkit.console import Console
from toolkit.errors import StageError
from toolkit.task import Batch


@dataclass(frozen=True)
class FitConfig:
    """`ema_decay` is of the averaged weights, which are the ones validated and kept; 0 turns averaging off."""

    max_steps: int
    learning_rate: float
    weight_decay: float
    warmup_steps: int
    validate_every: int
    patience: int | None = None
    gradient_clip: float = 1.0
    ema_decay: float = 0.0


@dataclass(frozen=True)
class CurvePoint:
    step: int
    loss: float  # mean training loss since the point before
    validation: float


@dataclass
class FitResult:
    """`stopped` is "max_steps" or "patience"; `best_step` is the step whose weights were kept."""

    steps: int = 0
    stopped: str = "max_steps"
    best_step: int = 0
    curve: list[CurvePoint] = field(default_factory=list)


def fit(
    model: nn.Module,
    batches: Iterator[Batch],
    loss: Callable[[nn.Module, Batch], Tensor],
    validate: Callable[[nn.Module], float],
    config: FitConfig,
    *,
    keep_best: bool,
    console: Console,
    title: str,
) -> FitResult:
    """Train `model` in place. With `keep_best`, ends with the weights of the best validation, else with the last.

    Raises:
        StageError: the loss or the validation is not a finite number.
    """
    optimiser = torch.optim.AdamW(_parameter_groups(model, config.weight_decay), lr=config.learning_rate)
    average = copy.deepcopy(model).requires_grad_(False) if config.ema_decay else model
    result = FitResult()
    best_value, best_state = -math.inf, None
    since_point: list[float] = []
    with console.progress(title, config.max_steps) as progress:
        for step in range(1, config.max_steps + 1):
            _set_rate(optimiser, config, step)
            since_point.append(_step(model, next(batches), loss, optimiser, config.gradient_clip))
            if config.ema_decay:
                _update_average(average, model, min(config.ema_decay, step / (step + 10)))
            progress.advance()
            result.steps = step
            if step % config.validate_every and step != config.max_steps:
                continue
            value = validate(average)
            if not math.isfinite(value):
                raise StageError(f"validation is {value} after {step} steps; the model or its data is broken")
            point = CurvePoint(step, sum(since_point) / len(since_point), value)
            result.curve.append(point)
            since_point = []
            progress.note(f"loss {point.loss:.4f}, validation {value:.4f}")
            if value > best_value:
                best_value, result.best_step = value, step
                best_state = copy.deepcopy(average.state_dict()) if keep_best else None
            if config.patience and _validations_since_best(result) >= config.patience:
                result.stopped = "patience"
                break
    if best_state is None:
        best_state, result.best_step = average.state_dict(), result.steps
    model.load_state_dict(best_state)
    model.eval()
    return result


def _step(
    model: nn.Module,
    batch: Batch,
    loss: Callable[[nn.Module, Batch], Tensor],
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
