"""Defines the ways to run a model that a change is checked on: example inputs, other inputs, and training mode."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from toolkit.hooks.dropout import NoDropout, train_without_dropout
from toolkit.hooks.modes import evaluating, without_fast_path
from toolkit.hooks.points import Inputs
from toolkit.hooks.tensors import tensors_in
from toolkit.hooks.untouched import untouched

SEED = 0

TRAINING = "in training mode"  # the first words for a pass in training mode


@dataclass(frozen=True)
class Path:
    """Describes one forward pass: its inputs, its mode, and `words` for it in messages, such as "in training mode"."""

    inputs: Inputs
    training: bool = False
    words: str = "on the example inputs"

    @contextmanager
    def taken(self, *models: nn.Module) -> Iterator[None]:
        """Puts the models into this pass's mode, without dropout, and restores them when the `with` ends."""
        with ExitStack() as stack:
            stack.enter_context(untouched(*models))
            stack.enter_context(evaluating(*models))
            stack.enter_context(without_fast_path())
            if self.training:
                stack.enter_context(NoDropout())
                for model in models:
                    train_without_dropout(model)
            yield

    def run(self, model: nn.Module, seed: int = SEED) -> list[Tensor]:
        """Returns copies of the output tensors; remaining randomness follows `seed`.

        It must be called inside `taken`.
        """
        if self.training:
            torch.manual_seed(seed)
            np.random.seed(seed)  # models draw from the global generator
            random.seed(seed)
        return [part.clone() for part in tensors_in(model(*(part.clone() for part in self.inputs)))]


@dataclass(frozen=True)
class Paths:
    """Holds the passes that a model runs without an error, and one sentence about each other pass that says why not."""

    taken: tuple[Path, ...]
    refused: tuple[str, ...] = ()


def find_paths(model: nn.Module, examples: Callable[[int], Inputs], others: Sequence[Inputs] = ()) -> Paths:
    """Returns eval mode on one example, eval mode on each of `others`, and training mode on two examples and on each.

    examples: returns example inputs of a batch size. A pass that fails is left out and its error is noted in `refused`;
        only the first pass is returned untried.
    """
    wanted = [Path(inputs, words=f"on other_inputs[{number}]") for number, inputs in enumerate(others)]
    wanted.append(Path(examples(2), training=True, words=TRAINING))
    wanted += [
        Path(inputs, training=True, words=f"{TRAINING} on other_inputs[{number}]")
        for number, inputs in enumerate(others)
    ]
    taken, refused = [Path(examples(1))], []
    for path in wanted:
        fault = _fault(model, path)
        if fault is None:
            taken.append(path)
        else:
            refused.append(f"{path.words} the model does not run ({fault})")
    return Paths(tuple(taken), tuple(refused))


def _fault(model: nn.Module, path: Path) -> str | None:
    with path.taken(model), torch.no_grad():
        try:
            outputs, again = path.run(model), path.run(model)
        except Exception as error:  # the user's code may raise anything
            return " ".join(str(error).split())[:160] or type(error).__name__
    if not outputs:
        return "it returns no tensor"
    return None if _alike(outputs, again) else "its outputs differ from pass to pass with the same random seed"


def _alike(first: list[Tensor], second: list[Tensor]) -> bool:
    shapes = [[part.shape for part in outputs] for outputs in (first, second)]
    return shapes[0] == shapes[1] and all(
        torch.allclose(one, other, equal_nan=True) for one, other in zip(first, second, strict=True)
    )


def called(model: nn.Module, path: Path) -> list[str]:
    """Returns the names of the modules that the pass calls, in the order in which their calls begin."""
    order: list[str] = []
    with path.taken(model), ExitStack() as stack, torch.no_grad():
        for name, module in model.named_modules():
            if name:
                stack.callback(module.register_forward_pre_hook(lambda _, __, n=name: order.append(n)).remove)
        path.run(model)
    return order
