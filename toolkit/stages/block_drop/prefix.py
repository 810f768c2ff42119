"""Prefix reuse: what the evaluations of a round's candidates share is computed once, and the scores stay exact.

A candidate leaves the network unchanged up to the block it drops, or up to the layer that its repair refits. The
candidate with the longest unchanged prefix goes first and records, call by call, what those blocks put out; in the
other evaluations the blocks hand that back instead of computing it. All else of the model runs as always, so n blocks
cost n(n - 1)/2 + (n - 1) block passes instead of n(n - 1).

A repair refits a layer of the block before the dropped one. That block need not run again where its output is a stream
that can be seen plus the layer's output, bit for bit: the layer alone is computed with its new weights. Where it is
not (checked at every call), the block runs.

Memory: up to two outputs per remaining block, over the whole scoring set, on the model's device; released as the
candidates go from the last block to the first.
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
    "the batches that the task evaluates on are not the same at every call, so candidates cannot be compared and share "
    "nothing; make the task's split fixed and in a fixed order"
)


def score_sharing(
    model: nn.Module,
    blocks: Sequence[str],
    variants: Sequence[Variant],
    score: Callable[[Variant], float],
    meter: Meter,
) -> dict[str, float]:
    """`score` of every variant, called while it is applied to the model.

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
    """One call of the model: its inputs, outputs of leading blocks, and of holders after a variant's repair."""

    inputs: list[Tensor]
    outputs: dict[str, Any] = field(default_factory=dict)
    repaired: dict[str, Tensor] = field(default_factory=dict)


class _Recorded:
    """The calls of one evaluation."""

    def __init__(self, model: nn.Module, blocks: Sequence[str], meter: Meter) -> None:
        self.model, self.blocks, self.meter = model, blocks, meter
        self.calls: list[_ModelCall] = []
        self.seen: dict[ActivationPoint, Tensor] = {}

    @contextmanager
    def recording(self, first: Variant, others: Sequence[Variant]) -> Iterator[None]:
        """Keep what the other variants need of the first one's evaluation."""
        kept = self.blocks[: max((other.shared for other in others), default=0)]
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
            for block in {*kept, *filter(None, refits)}:
                stack.enter_context(
                    forward_replaced(self.model.get_submodule(block), self._records(block, block in kept, refits))
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
        """Keep the output that the block just run would have after the variant's repair, if it is that simple."""
        assert variant.fitted is not None
        found = [self.seen.pop(point) for point in _points(variant) if point in self.seen]
        if not isinstance(output, Tensor) or len(found) < 3:
            return
        rest, entering, added = found
        if rest.shape == added.shape and torch.equal(rest + added, output):
            refitted = functional.linear(entering, variant.fitted.weight, variant.fitted.bias)
            self.calls[-1].repaired[variant.block] = rest + refitted
            self.meter.layers += self.meter.rows

    @contextmanager
    def replaying(self, variant: Variant) -> Iterator[None]:
        """Hand back what was recorded, call by call."""
        current: list[_ModelCall] = []
        left = iter(self.calls)

        def next_call(forward: Forward) -> Forward:
            def call(*args: Any, **kwargs: Any) -> Any:
                known = next(left, None)
                if known is None or not same(known.inputs, tensors_in((args, kwargs))):
                    raise StageError(NOT_THE_SAME)
                current[:] = [known]
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
        if next(left, None) is not None:
            raise StageError(NOT_THE_SAME)

    def release_beyond(self, shared: int) -> None:
        """Forget the outputs of all but the first `shared` blocks."""
        for call in self.calls:
            for block in self.blocks[shared:]:
                call.outputs.pop(block, None)


def _points(variant: Variant) -> tuple[ActivationPoint, ActivationPoint, ActivationPoint]:
    """Where the stream, the refitted layer's input and its output are seen."""
    assert variant.fitted is not None and variant.rest is not None
    layer = variant.fitted.site.layer
    return variant.rest, ActivationPoint(layer, "input"), ActivationPoint(layer, "output")
