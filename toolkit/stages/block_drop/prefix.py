"""Reuses the common prefix of candidates: what their evaluations share is computed once, and scores stay exact.

A candidate leaves the network unchanged up to the block that it drops, or up to the layer that its repair refits. The
candidate with the longest unchanged prefix goes first and records, call by call, the outputs of these blocks; in other
evaluations the blocks return the recorded outputs. Everything else in the model runs as always, so n blocks cost
n(n-1)/2 + (n-1) block passes instead of n(n-1).

A repair refits a layer of the block before the dropped one. That block need not run again if its output equals, bit for
bit, a visible stream plus the output of the layer: then only the layer is computed, with its new weights. This is
checked at every call; where it does not hold, the block runs.

Memory: up to two outputs per remaining block over the whole scoring set, on the device of the model; they are released
as the candidates go from the last block to the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from toolkit.base.errors import StageError
from toolkit.hooks.forward import Forward, forward_replaced
from toolkit.hooks.passes import Meter
from toolkit.hooks.points import ActivationPoint, watched
from toolkit.hooks.tensors import copied, same, tensors_in
from toolkit.stages.block_drop.candidates import Variant, applied

NOT_THE_SAME = (
    "the batches that the task evaluates on are not the same at every call, so candidates cannot be compared; make the "
    'task\'s split "score" the same at every call, in a fixed order'
)


def score_sharing(
    model: nn.Module,
    blocks: Sequence[str],
    variants: Sequence[Variant],
    score: Callable[[Variant], float],
    meter: Meter,
) -> dict[str, float]:
    """Returns `score(variant)` of every variant, called while the variant is applied to the model.

    blocks: remaining blocks in execution order.

    Raises:
        StageError: the evaluations do not all run the model on the same inputs in the same order.
    """
    first, *others = sorted(variants, key=lambda variant: variant.shared, reverse=True)
    recorded = _Recorded(model, blocks, meter)
    scores = {}
    with applied(model, first), recorded.recording(first, others):
        scores[first.block] = score(first)
    for variant in others:
        recorded.release_beyond(variant.shared)
        with applied(model, variant), recorded.replaying(variant):
            scores[variant.block] = score(variant)
    return scores


@dataclass
class _ModelCall:
    """Holds one call of the model.

    inputs: input tensors.
    outputs: outputs of leading blocks, by block.
    repaired: outputs that holders have after a repair, by the dropped block.
    """

    inputs: list[Tensor]
    outputs: dict[str, Any] = field(default_factory=dict)
    repaired: dict[str, Tensor] = field(default_factory=dict)


class _Recorded:
    """Holds the calls of one evaluation."""

    def __init__(self, model: nn.Module, blocks: Sequence[str], meter: Meter) -> None:
        self.model, self.blocks, self.meter = model, blocks, meter
        self.calls: list[_ModelCall] = []
        self.seen: dict[ActivationPoint, Tensor] = {}

    @contextmanager
    def recording(self, first: Variant, others: Sequence[Variant]) -> Iterator[None]:
        """Records what the other variants need of the first variant's evaluation."""
        recorded_blocks = self.blocks[: max((other.shared for other in others), default=0)]
        unchanged = self.blocks[: first.shared]
        refits = {other.holder: other for other in others if other.rest and other.holder in unchanged}
        points = {point for refit in refits.values() for point in _points(refit)}

        def starts_a_call(forward: Forward) -> Forward:
            def call(*args: Any, **kwargs: Any) -> Any:
                self.calls.append(_ModelCall(copied(tensors_in((args, kwargs)))))
                return forward(*args, **kwargs)

            return call

        with ExitStack() as stack:
            stack.enter_context(forward_replaced(self.model, starts_a_call))
            stack.enter_context(watched(self.model, points, self.seen.__setitem__))
            for block in {*recorded_blocks, *filter(None, refits)}:
                stack.enter_context(
                    forward_replaced(
                        self.model.get_submodule(block), self._records(block, block in recorded_blocks, refits)
                    )
                )
            yield

    def _records(self, block: str, keep: bool, refits: dict[str | None, Variant]) -> Callable[[Forward], Forward]:
        def records(forward: Forward) -> Forward:
            def call(*args: Any, **kwargs: Any) -> Any:
                output = forward(*args, **kwargs)
                if keep:
                    self.calls[-1].outputs[block] = copied(output)
                if block in refits:
                    self._refit(refits[block], output)
                return output

            return call

        return records

    def _refit(self, variant: Variant, output: Any) -> None:
        """Records the output that the block will have after the repair of `variant`, if only the layer changes it."""
        assert variant.fitted is not None
        tensors = [self.seen.pop(point) for point in _points(variant) if point in self.seen]
        if not isinstance(output, Tensor) or len(tensors) < 3:
            return
        rest, entering, added = tensors
        if rest.shape == added.shape and torch.equal(rest + added, output):
            refitted = functional.linear(entering, variant.fitted.weight, variant.fitted.bias)
            self.calls[-1].repaired[variant.block] = rest + refitted
            self.meter.layers += self.meter.rows

    @contextmanager
    def replaying(self, variant: Variant) -> Iterator[None]:
        """Makes blocks return recorded outputs, call by call, for the length of the `with`."""
        current: list[_ModelCall] = []
        calls_left = iter(self.calls)

        def next_call(forward: Forward) -> Forward:
            def call(*args: Any, **kwargs: Any) -> Any:
                recorded = next(calls_left, None)
                if recorded is None or not same(recorded.inputs, tensors_in((args, kwargs))):
                    raise StageError(NOT_THE_SAME)
                current[:] = [recorded]
                return forward(*args, **kwargs)

            return call

        def replays(block: str) -> Callable[[Forward], Forward]:
            def replay(forward: Forward) -> Forward:
                def call(*args: Any, **kwargs: Any) -> Any:
                    if block == variant.holder and variant.block in current[0].repaired:
                        return current[0].repaired.pop(variant.block)
                    if block in current[0].outputs and block != variant.holder:
                        return copied(current[0].outputs[block])
                    return forward(*args, **kwargs)

                return call

            return replay

        with ExitStack() as stack:
            stack.enter_context(forward_replaced(self.model, next_call))
            for block in self.blocks[: variant.shared + (variant.holder is not None)]:
                stack.enter_context(forward_replaced(self.model.get_submodule(block), replays(block)))
            yield
        if next(calls_left, None) is not None:
            raise StageError(NOT_THE_SAME)

    def release_beyond(self, shared: int) -> None:
        """Releases the recorded outputs of all but the first `shared` blocks."""
        for call in self.calls:
            for block in self.blocks[shared:]:
                call.outputs.pop(block, None)


def _points(variant: Variant) -> tuple[ActivationPoint, ActivationPoint, ActivationPoint]:
    """Returns the points of the stream, of the refitted layer's input and of its output."""
    assert variant.fitted is not None and variant.rest is not None
    layer = variant.fitted.site.layer
    return variant.rest, ActivationPoint(layer, "input"), ActivationPoint(layer, "output")
