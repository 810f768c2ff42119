"""Treats the starting point of a training as a candidate, like every step that is validated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from toolkit.hooks.held import PlainValues, plain_values, put_plain_values
from toolkit.hooks.modes import evaluating
from toolkit.hooks.state import load_state
from toolkit.measure.results import Quality
from toolkit.training.checkpoint import FitStart, FitState


def judge_starting_point(state: FitState, validate: Callable[[nn.Module], Quality]) -> None:
    """Validates the model before its first step; only a step that is better can become the best one.

    Raises:
        StageError: the model gives no usable metric before the first step.
    """
    with evaluating(state.model):
        quality = validate(state.model)
    low, high = quality.interval or (None, None)
    margin = None if low is None or high is None else (high - low) / 2
    state.result.start = FitStart(quality.value, quality.num_examples, margin)
    state.best_value = quality.value


@dataclass(frozen=True)
class Begun:
    """Holds a model before its first step.

    tensors: copies of all parameters and buffers by name, including those that a state_dict leaves out.
    values: what forward code may change beside them, such as a temperature that falls in training.
    """

    tensors: dict[str, Tensor]
    values: PlainValues

    @classmethod
    def of(cls, model: nn.Module) -> Begun:
        """Copies what may change."""
        return cls(tensors_of(model), plain_values(model))


def keep_chosen(state: FitState, begun: Begun | None, select: Literal["best", "last"]) -> None:
    """Puts the chosen weights into the model, and the plain values that it had with them.

    begun: the model before the first step; None where the starting point is no candidate.
    """
    if select == "last":
        state.result.best_step = state.result.steps
        load_state(state.model, state.average.state_dict())
        put_plain_values(state.model, plain_values(state.average))
    elif state.best_state is not None:
        load_state(state.model, state.best_state)
        put_plain_values(state.model, state.best_values)
    else:
        assert begun is not None, "a training from nothing ends with a validation"
        put_tensors(state.model, begun.tensors)
        put_plain_values(state.model, begun.values)


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Returns copies of all parameters and buffers by name, including those that a state_dict leaves out."""
    return {name: tensor.detach().clone() for name, tensor in _named_tensors(model).items()}


@torch.no_grad()
def put_tensors(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Puts copies of the tensors into the model, in the places of the parameters and buffers with these names."""
    current = _named_tensors(model)
    for name, tensor in tensors.items():
        if name in current and current[name].shape == tensor.shape:
            current[name].copy_(tensor)
        else:  # a buffer that the forward method replaces
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, tensor.detach().clone())


def _named_tensors(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}
