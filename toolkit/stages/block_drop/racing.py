"""Races candidates: bad ones are recognised on little data, so that only good ones are scored on more."""

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

# Share of the scoring set at each rung. From 12 blocks to 6, with prefix reuse, a race takes at most 0.247 of the naive
# block passes, if the survivors are always the first blocks, whose prefix is shortest; usually it takes about 0.2.
SHARES = (1 / 6, 1 / 3, 3 / 5)


@dataclass(frozen=True)
class Rung:
    """Holds the scores of the remaining candidates on `num_examples` examples of the scoring set."""

    num_examples: int
    scores: dict[str, float]


def successive_halving(
    blocks: Sequence[str],
    num_examples: int,
    score: Callable[[Sequence[str], int], dict[str, float]],
    as_loss: Callable[[float], float],
) -> list[Rung]:
    """Returns the rungs of a race after Jamieson and Talwalkar (AISTATS 2016).

    After each rung the worse half of the candidates is dropped; the best one of the last rung wins.

    score: returns the scores of some blocks on a number of examples.
    as_loss: turns a score into a number of which lower is better.
    """
    rungs: list[Rung] = []
    remaining = list(blocks)
    for share in SHARES:
        if rungs:
            scores = rungs[-1].scores
            best = sorted(remaining, key=lambda block: as_loss(scores[block]))[: math.ceil(len(remaining) / 2)]
            remaining = [block for block in remaining if block in best]
            if len(remaining) == 1:
                break
        limit = max(1, math.ceil(share * num_examples))
        rungs.append(Rung(limit, score(remaining, limit)))
    return rungs


@dataclass(frozen=True)
class _Answered:
    """Holds rows of the model's inputs in the order of one evaluation, and its outputs for them."""

    inputs: list[Tensor]
    outputs: Any

    def rows(self, first: int, end: int) -> _Answered:
        """Returns the inputs and outputs of the rows from `first` to `end`, without `end`."""
        return _Answered(
            [part[first:end] for part in self.inputs], map_tensors(lambda part: part[first:end], self.outputs)
        )

    def __len__(self) -> int:
        return len(self.inputs[0])


class Answers:
    """Holds the outputs of the model for each candidate, so that a larger rung need not run a smaller one again.

    It holds the inputs of the last rung once and outputs once per candidate, on the device of the model. Models with
    inputs or outputs that do not have one row per example are run again.
    """

    def __init__(self) -> None:
        self._inputs: list[Tensor] = []
        self._known: dict[str, _Answered] = {}

    @contextmanager
    def remembered(self, model: nn.Module, candidate: str) -> Iterator[None]:
        """Answers rows that come in the same place as before without the model, for the length of the `with`."""
        known = self._known.get(candidate)
        answered: list[_Answered] = []

        def remembers(forward: Forward) -> Forward:
            def call(*args: Any, **kwargs: Any) -> Any:
                inputs, place = copied(tensors_in((args, kwargs))), sum(map(len, answered))
                known_rows = _already(known, inputs, place)
                if known_rows is None:
                    output = forward(*args, **kwargs)
                else:
                    output = _completed(known_rows, forward, args, kwargs, len(inputs[0]))
                answered.append(_Answered(inputs, copied(output)))
                return output

            return call

        with forward_replaced(model, remembers):
            yield
        if answered and all(_one_row_each(part) for part in answered):
            self._keep(candidate, answered)

    def _keep(self, candidate: str, answered: list[_Answered]) -> None:
        inputs = [torch.cat(parts) for parts in zip(*(call.inputs for call in answered), strict=True)]
        if not same(inputs, self._inputs):
            self._inputs = inputs
        self._known[candidate] = _Answered(self._inputs, map_tensors(_cat, *(call.outputs for call in answered)))


def _one_row_each(call: _Answered) -> bool:
    return all(part.ndim and len(part) == len(call) for part in (*call.inputs, *tensors_in(call.outputs)))


def _already(known: _Answered | None, inputs: list[Tensor], place: int) -> _Answered | None:
    """Returns the known answers for the first rows of `inputs`, which begin at row `place`, or None without any."""
    if known is None or place >= len(known) or any(len(part) != len(inputs[0]) for part in inputs):
        return None
    known_rows = known.rows(place, place + len(inputs[0]))
    return known_rows if same(known_rows.inputs, [part[: len(known_rows)] for part in inputs]) else None


def _completed(known: _Answered, forward: Forward, args: tuple[Any, ...], kwargs: dict[str, Any], rows: int) -> Any:
    """Returns the outputs for all rows; only rows without a known answer are run."""
    if len(known) == rows:
        return copied(known.outputs)
    left_args, left_kwargs = map_tensors(lambda part: part[len(known) :], (args, kwargs))
    return map_tensors(_cat, known.outputs, forward(*left_args, **left_kwargs))


def _cat(*parts: Tensor) -> Tensor:
    return torch.cat(parts)
