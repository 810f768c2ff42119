"""Layers that values choose do not join a stream for good: other inputs, or a moved output, run other layers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from toolkit.hooks.order import execution_order
from toolkit.hooks.points import ActivationPoint
from toolkit.repair.joint import find_joint


class Chosen(nn.Module):
    """`layer` adds to the stream where `runs` says so of the inputs, and `behind` reads it where `leads` says so."""

    def __init__(self, scale: float, runs: Callable[[Tensor], bool], leads: Callable[[Tensor], bool]) -> None:
        super().__init__()
        self.layer, self.runs, self.leads, self.scale = nn.Linear(8, 8), runs, leads, scale
        self.behind, self.head = nn.Sequential(nn.Linear(8, 8)), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = x + self.scale * self.layer(x) if self.runs(x) else x
        return self.head(self.behind(y) if self.leads(y) else y)


X = torch.tensor([[1.0, 0.5, -0.5, 0.3, 0.2, -0.1, 0.7, -1.0]])


def always(_: Tensor) -> bool:
    return True


def unmoved(seen: list[Tensor]) -> Callable[[Tensor], bool]:
    """Returns a choice that is true of the first stream that it is given, and of no other."""

    def leads(y: Tensor) -> bool:
        seen.append(y.clone())
        return torch.equal(seen[0], y)

    return leads


CHOICES: dict[str, Callable[[], nn.Module]] = {
    "other inputs do not run the layer": lambda: Chosen(0.5, lambda x: bool(x[0, 0] > 0), always),
    "a moved output leads past the place": lambda: Chosen(1.0, always, unmoved([])),
    "a moved and scaled output leads past the place": lambda: Chosen(0.5, always, unmoved([])),
}


@pytest.mark.parametrize("kind", list(CHOICES))
def test_there_is_no_joint(kind: str) -> None:
    torch.manual_seed(0)
    net = CHOICES[kind]().eval()
    order = execution_order(net, (X,))
    assert "behind" in order
    assert find_joint(net, "layer", ActivationPoint("behind", "input"), (X,), order) is None


def test_there_is_one_without_a_choice() -> None:
    net = Chosen(1.0, always, always).eval()
    order = execution_order(net, (X,))
    assert find_joint(net, "layer", ActivationPoint("behind", "input"), (X,), order) is not None
