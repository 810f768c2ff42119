"""Keeps the state of a training loop on disk, so that an interrupted training continues exactly where it stopped.

The state is one safetensors file without pickle: its body holds the tensors, its header everything else as JSON. It is
replaced whole. It holds only what training changes: trainable parameters, buffers, their averages, the optimiser's
moments and the random states.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from toolkit.base.errors import StageError
from toolkit.base.files import replacing
from toolkit.hooks.held import PlainValues
from toolkit.hooks.state import load_state

VERSION = 1

_PLAIN = "training"  # the header's entry with everything that is no tensor


@dataclass(frozen=True)
class FitPoint:
    """Holds one point of the training curve; `validation` is the task's metric."""

    step: int
    loss: float  # mean training loss since the previous point
    validation: float


@dataclass(frozen=True)
class FitStart:
    """Says how good the model was on validation data before the first step.

    validation: the task's metric.
    margin: half the width of its 95 % interval; None where the task gives no interval.
    """

    validation: float
    num_examples: int
    margin: float | None


@dataclass
class FitResult:
    """Says how a training went.

    stopped: "max_steps", "patience", or "broken" where a loss or an output became infinite or NaN.
    best_step: the step whose weights were kept; 0 is the model before the first step.
    start: the quality before the first step; None where it was not measured.
    failure: what broke the training; empty where nothing did.
    """

    steps: int = 0
    stopped: str = "max_steps"
    best_step: int = 0
    curve: list[FitPoint] = field(default_factory=list)
    start: FitStart | None = None
    failure: str = ""


@dataclass
class FitState:
    """Holds a training in progress.

    average: the model with averaged weights; the model itself where no weights are averaged.
    best_state: the weights of the best validated step; None while the starting point is the best, or with
        `select: last`.
    best_values: what the modules' attributes held at the best validated step.
    """

    model: nn.Module
    average: nn.Module
    optimiser: torch.optim.Optimizer
    result: FitResult = field(default_factory=FitResult)
    since_point: list[float] = field(default_factory=list)  # training losses since the last validation
    best_value: float = -math.inf
    best_state: dict[str, Tensor] | None = None
    best_values: PlainValues = field(default_factory=dict)
    finished: bool = False


@dataclass(frozen=True)
class FitCheckpoint:
    """Says where and how often the state of a training is kept.

    every: number of steps between two saves; the state is also saved at the end of the training.
    identity: hash of the training's settings and of the weights it began with.
    """

    path: Path
    every: int
    identity: str

    def save(self, state: FitState) -> None:
        """Replaces the file by this state; a crash leaves either the old file or the new one."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        plain = json.dumps({"version": VERSION, "identity": self.identity, **_plain(state)})
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in _tensors(state).items()}
        with replacing(self.path) as part:
            save_file(tensors, part, metadata={_PLAIN: plain})

    def load(self, state: FitState) -> bool:
        """Brings a new state to that of the file, and returns True; returns False if there is no file.

        Raises:
            StageError: the file is damaged, or belongs to another training.
        """
        if not self.path.exists():
            return False
        try:
            with safe_open(self.path, framework="pt") as file:
                plain = json.loads((file.metadata() or {}).get(_PLAIN, "{}"))
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118  # not a dict
        except (OSError, SafetensorError, json.JSONDecodeError) as error:
            raise StageError(f"{self.path}: damaged ({error}); remove it to begin this training again") from error
        if (plain.get("version"), plain.get("identity")) != (VERSION, self.identity):
            raise StageError(
                f"{self.path} is the checkpoint of a training with other settings or other weights to begin with; "
                "remove it to begin this training afresh"
            )
        _restore(state, plain, tensors)
        return True


def _plain(state: FitState) -> dict[str, Any]:
    return {
        "result": asdict(state.result),
        "since_point": state.since_point,
        "best_value": state.best_value if math.isfinite(state.best_value) else None,
        "has_best": state.best_state is not None,
        "finished": state.finished,
    }


def _changing(model: nn.Module) -> set[str]:
    """Returns the names of the entries of the model's state that training may change."""
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    return set(model.state_dict()) - frozen


def _tensors(state: FitState) -> dict[str, Tensor]:
    """Returns all tensors to keep, by names such as `model/...` and `average/...`."""
    changing = _changing(state.model)
    parts: dict[str, dict[str, Any]] = {"model": state.model.state_dict()}
    if state.average is not state.model:
        parts["average"] = state.average.state_dict()
    if state.best_state is not None:
        parts["best"] = state.best_state
    tensors = {f"{part}/{name}": entries[name] for part, entries in parts.items() for name in changing}
    for index, moments in state.optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser/{index}/{name}": value for name, value in moments.items()}
    tensors |= {f"random/{name}": value for name, value in _random_states(state.model).items()}
    return tensors


def _restore(state: FitState, plain: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        part, _, rest = name.partition("/")
        parts.setdefault(part, {})[rest] = tensor
    _load_changing(state.model, parts["model"])
    if state.average is not state.model:
        _load_changing(state.average, parts["average"])
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in parts.get("optimiser", {}).items():
        index, _, key = name.partition("/")
        moments.setdefault(int(index), {})[key] = tensor
    state.optimiser.load_state_dict({**state.optimiser.state_dict(), "state": moments})
    result = plain["result"]
    curve = [FitPoint(**point) for point in result["curve"]]
    start = None if result["start"] is None else FitStart(**result["start"])
    state.result = FitResult(**{**result, "curve": curve, "start": start})
    state.since_point, state.finished = plain["since_point"], plain["finished"]
    state.best_value = -math.inf if plain["best_value"] is None else plain["best_value"]
    if plain["has_best"]:
        device = next(state.model.parameters()).device
        best = {name: tensor.to(device) for name, tensor in parts["best"].items()}
        state.best_state = {**state.average.state_dict(), **best}
    _set_random_states(state.model, parts["random"])


def _load_changing(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    load_state(model, {**model.state_dict(), **tensors})


def _random_states(model: nn.Module) -> dict[str, Tensor]:
    device = next(model.parameters()).device
    states = {"cpu": torch.get_rng_state()}
    return {**states, "cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else states


def _set_random_states(model: nn.Module, states: dict[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], next(model.parameters()).device)
