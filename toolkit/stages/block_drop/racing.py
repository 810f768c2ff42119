"""Racing: bad candidates are recognised on little data, so only the good ones are scored on more."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from toolkit.hooks.forward import Forward, forward_replaced
from toolkit.hooks.tensors import copied, map_tensors, same, tensors_in

# Of the scoring set. From 12 blocks to 6, with prefix reuse, that is at most 0.247 of the naive block passes: when the
# survivors are always the first blocks, whose prefix is shortest. As a rule it is about 0.2.
SHARES = (1 / 6, 1 / 3, 3 / 5)


@dataclass(frozen=True)
class Rung:
    """Scores of the candidates still in the race, on `num_examples` examples of the scoring set."""

    num_examples: int
    scores: dict[str, float]


def successive_halving(
    blocks: Sequence[str],
    num_examples: int,
    score: Callable[[Sequence[str], int], dict[str, float]],
    as_loss: Callable[[float], float],
) -> list[Rung]:
    """After each rung the worse half goes (Jamieson and Talwalkar, AISTATS 2016); the best of the last rung wins."""
    rungs: list[Rung] = []
    left = list(blocks)
    for share in SHARES:
        if rungs:
            scores = rungs[-1].scores
            best = sorted(left, key=lambda block: as_loss(scores[block]))[: math.ceil(len(left) / 2)]
            left = [block for block in left if block in best]
            if len(left) == 1:
                break
        limit = max(1, math.ceil(share * num_examples))
        rungs.append(Rung(limit, score(left, limit)))
    return rungs


@dataclass(frozen=True)
class _Answered:
    """Rows of the model's inputs in the order of one evaluation, and its outputs for them."""

    inputs: list[Tensor]
    outputs: Any

    def rows(self, first: int, end: int) -> _Answered:
        return _Answered(
            [part[first:end] for part in self.inputs], map_tensors(lambda part: part[first:end], self.outputs)
        )

    def __len__(self) -> int:
        return len(self.inputs[0])


class Answers:
    """The model's outputs for each candidate, so that a larger rung does not run again what a smaller one did.

    Holds the inputs of the last rung once and its outputs once per candidate, on the model's device. Only for models
    whose inputs and outputs all have one row per example; others are run again.
    """

    def __init__(self) -> None:
        self._inputs: list[Tensor] = []
        self._known: dict[str, _Answered] = {}

    @contextmanager
    def remembered(self, model: nn.Module, candidate: str) -> Iterator[None]:
        """Rows that come in the same place as before are answered without running the model."""
        known = self._known.get(candidate)
        made: list[_Answered] = []

        def remembers(forward: Forward) -> Forward:
            def call(*args: Any, **kwargs: Any) -> Any:
                inputs, place = copied(tensors_in((args, kwargs))), sum(map(len, made))
                old = _already(known, inputs, place)
                if old is None:
                    output = forward(*args, **kwargs)
                else:
                    output = _completed(old, forward, args, kwargs, len(inputs[0]))
                made.append(_Answered(inputs, copied(output)))
                return output

            return call

        with forward_replaced(model, remembers):
            yield
        if made and all(_one_row_each(one) for one in made):
            self._keep(candidate, made)

    def _keep(self, candidate: str, made: list[_Answered]) -> None:
        inputs = [torch.cat(parts) for parts in zip(*(one.inputs for one in made), strict=True)]
        if not same(inputs, self._inputs):
            self._inputs = inputs
        self._known[candidate] = _Answered(self._inputs, map_tensors(_cat, *(one.outputs for one in made)))


def _one_row_each(call: _Answered) -> bool:
    return all(part.ndim and len(part) == len(call) for part in (*call.inputs, *tensors_in(call.outputs)))


def _already(known: _Answered | None, inputs: list[Tensor], place: int) -> _Answered | None:
    """The known answers for the first rows of `inputs`, which begin at row `place`; None where there are none."""
    if known is None or place >= len(known) or any(len(part) != len(inputs[0]) for part in inputs):
        return None
    old = known.rows(place, place + len(inputs[0]))
    return old if same(old.inputs, [part[: len(old)] for part in inputs]) else None


def _completed(old: _Answered, forward: Forward, args: tuple[Any, ...], kwargs: dict[str, Any], rows: int) -> Any:
    """The outputs for all rows; only those after the known ones are run."""
    if len(old) == rows:
        return copied(old.outputs)
    left_args, left_kwargs = map_tensors(lambda part: part[len(old) :], (args, kwargs))
    return map_tensors(_cat, old.outputs, forward(*left_args, **left_kwargs))


def _cat(*parts: Tensor) -> Tensor:
    return torch.cat(parts)
