"""The ways on which a model is looked at: its example inputs in eval mode, more example inputs, and training mode."""

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

FAULTS = (RuntimeError, ValueError, TypeError, AssertionError, ArithmeticError, LookupError, AttributeError)

SEED = 0

TRAINING = "in training mode"  # how the words of a pass in training mode begin


@dataclass(frozen=True)
class Path:
    """A forward pass. words: which one it is, for people: "in training mode"."""

    inputs: Inputs
    training: bool = False
    words: str = "on the example inputs"

    @contextmanager
    def taken(self, *models: nn.Module) -> Iterator[None]:
        """The models are in this pass's mode, and left as they were found. In training mode nothing is dropped out."""
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
        """Returns copies of the output tensors; what is still random follows the seed. Only inside `taken`."""
        if self.training:
            torch.manual_seed(seed)
            np.random.seed(seed)  # models draw from the global one
            random.seed(seed)
        return [part.clone() for part in tensors_in(model(*(part.clone() for part in self.inputs)))]


@dataclass(frozen=True)
class Paths:
    """Which passes a model takes without an error, and why it does not take the others, in words."""

    taken: tuple[Path, ...]
    refused: tuple[str, ...] = ()


def find_paths(model: nn.Module, examples: Callable[[int], Inputs], others: Sequence[Inputs] = ()) -> Paths:
    """Returns eval mode for one example, eval mode for each of `others`, and training mode for two examples and each.

    examples: the example inputs by batch size. Passes that fail on the model are not among those that are returned,
    but for the first, which is for others to judge.
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
        except FAULTS as error:
            return " ".join(str(error).split())[:160] or type(error).__name__
    if not outputs:
        return "it returns no tensor"
    return None if _alike(outputs, again) else "no seed makes it repeat itself"


def _alike(first: list[Tensor], second: list[Tensor]) -> bool:
    shapes = [[part.shape for part in one] for one in (first, second)]
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
