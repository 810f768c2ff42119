"""Looking at a model leaves nothing on it, whatever its forward pass keeps."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.helpers.nets import Bottlenecks
from toolkit.blocks.find import find_blocks
from toolkit.channels.find import find_groups
from toolkit.checkpoint.fingerprint import fingerprint_of
from toolkit.hooks.order import execution_order
from toolkit.hooks.paths import Path, find_paths
from toolkit.hooks.points import ActivationPoint, capture
from toolkit.measure.macs import count_macs


class Keeper(nn.Module):
    """A residual net that keeps whatever a forward pass could: [B, 6] -> [B, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.wide, self.narrow = nn.Linear(6, 8), nn.Linear(8, 12), nn.Linear(12, 8)
        self.head = nn.Linear(8, 3)
        self.drop = nn.Dropout(0.5)
        self.cache: dict[str, Any] = {"old": [1]}
        self.calls, self.seen = 0, None
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("memory", torch.zeros(2, 8), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        if "weight" not in self.cache:
            self.cache["weight"] = self.wide.weight * 1.0
        self.cache["old"].append(x)
        self.calls += 1
        self.count += 1
        self.memory = torch.zeros_like(self.memory)
        self.seen = torch.relu(x @ self.cache["weight"].T)
        self.late = x.mean()
        if not hasattr(self, "side"):
            self.side = nn.Linear(3, 3)
            self.register_forward_hook(lambda *_: None)
        return self.head(self.drop(x + self.narrow(self.seen)))


def state_of(model: nn.Module) -> list[Any]:
    """Everything that a module holds, containers by their contents."""
    found: list[Any] = []
    for module in model.modules():
        for name, value in sorted(vars(module).items()):
            parts = sorted((str(key), id(part)) for key, part in value.items()) if isinstance(value, dict) else value
            found.append((name, [id(part) for part in value] if isinstance(value, list) else parts))
    return found


def looks(x: Tensor) -> dict[str, Callable[[nn.Module], object]]:
    point = ActivationPoint("head", "input")
    return {
        "find_blocks": lambda model: find_blocks(model, (x,)),
        "find_groups": lambda model: find_groups(model, (x,), [], (), find_paths(model, lambda _: (x,)).taken[1:]),
        "fingerprint": lambda model: fingerprint_of(model, (x,)),
        "count_macs": lambda model: count_macs(model, (x[:1],)),
        "execution_order": lambda model: execution_order(model, (x,)),
        "capture": lambda model: capture(model, (x,), {point}),
    }


@pytest.mark.parametrize("look", list(looks(torch.zeros(2, 6))))
def test_a_look_leaves_nothing(look: str) -> None:
    x, model = torch.randn(2, 6), Keeper()
    kept_lightly = look in ("execution_order", "capture")  # passes of the work itself, in eval mode: attributes alone
    model.train(not kept_lightly)
    if kept_lightly or look == "count_macs":
        model.side = nn.Linear(3, 3)
    before, values = state_of(model), {name: value.clone() for name, value in model.named_buffers()}
    rng = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    looks(x)[look](model)
    if kept_lightly:
        before, after = ([entry for entry in one if entry[0] != "_buffers"] for one in (before, state_of(model)))
    else:
        after = state_of(model)
        assert all(torch.equal(value, values[name]) for name, value in model.named_buffers())
    assert after == before
    assert model.cache == {"old": [1]}
    assert torch.equal(torch.get_rng_state(), rng[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == rng[1:]


def test_training_mode_is_put_back_with_the_running_statistics() -> None:
    model = Bottlenecks().eval()
    model.blocks[0].train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    paths = find_paths(model, lambda size: (torch.randn(size, 3, 12, 12),)).taken
    assert [path.words for path in paths] == ["on the example inputs", "in training mode"]
    assert model.blocks[0].training
    assert not model.blocks[1].training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Random(nn.Module):
    """Every way to drop numbers at random in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.drop = nn.Linear(4, 4), nn.Dropout(0.5)
        self.mixed = nn.MultiheadAttention(4, 2, dropout=0.5, batch_first=True)
        self.steps = nn.LSTM(4, 4, num_layers=2, dropout=0.5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.dropout(self.drop(self.layer(x)), 0.5, self.training)
        x = nn.functional.scaled_dot_product_attention(x, x, x, dropout_p=0.5 if self.training else 0.0)
        x, _ = self.mixed(x, x, x)
        return self.steps(x)[0]


def test_training_mode_without_dropout_draws_nothing() -> None:
    model, path = Random(), Path((torch.randn(2, 3, 4),), training=True)
    with path.taken(model), torch.no_grad():
        assert torch.equal(path.run(model, 1)[0], path.run(model, 2)[0])
    with torch.no_grad():
        assert not torch.equal(model.train()(path.inputs[0]), model(path.inputs[0]))
