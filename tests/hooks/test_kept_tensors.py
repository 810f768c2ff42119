"""Tensors that modules keep beside their buffers get their numbers back after a pass that writes into them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from toolkit.hooks.modes import evaluating
from toolkit.hooks.untouched import untouched


class Writing(nn.Module):
    """Writes into the tensor that `found` gives, in training mode and in eval mode."""

    def __init__(self, kept: Any) -> None:
        super().__init__()
        self.kept = kept

    def found(self) -> Tensor:
        kept = self.kept
        while not isinstance(kept, Tensor):
            kept = kept.one if isinstance(kept, SimpleNamespace) else kept[0]
        return kept

    def forward(self, x: Tensor) -> Tensor:
        self.found().add_(x.mean().to(self.found().dtype))
        return x + self.found()


def keepers() -> dict[str, Any]:
    zeros = torch.zeros(3)
    with torch.inference_mode():
        made_in_inference = torch.zeros(3)
    return {
        "an attribute": zeros,
        "a list": [zeros],
        "a table": {0: zeros},
        "a tuple": (zeros,),
        "an object": SimpleNamespace(one=zeros),
        "a list in a tuple": ([zeros],),
        "whole numbers": torch.zeros(3, dtype=torch.int64),
        "a part of a larger one": torch.zeros(2, 3)[1],
        "one of inference mode": made_in_inference,
    }


@pytest.mark.parametrize("situation", keepers())
def test_numbers_come_back(situation: str) -> None:
    model = nn.Sequential(Writing(keepers()[situation]))
    tensor = model[0].found()
    for restored in (untouched, evaluating):
        with restored(model), torch.inference_mode():
            model(torch.ones(3))
            assert tensor.tolist() == [1.0] * 3
        assert model[0].found() is tensor
        assert tensor.tolist() == [0.0] * 3


def test_results_with_a_graph_are_left_alone() -> None:
    """They are what a pass has left, not what the next one goes on from, and may be large."""
    model = Writing(torch.ones(3, requires_grad=True) * 2)
    graph = model.kept.grad_fn
    with untouched(model), torch.no_grad():
        model(torch.ones(3))
    assert model.kept.grad_fn is graph
