"""Unusual forward code runs, or is refused before any work: caches, experts, hooks, inference mode, autocast."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.own_net import ALIGN, CUT, DROP, Block, Net, run_own, task_of
from toolkit import (
    BlockDrop,
    preflight_of,
)
from toolkit.base.console import Console
from toolkit.blocks.find import find_blocks
from toolkit.channels.find import find_groups
from toolkit.hooks.paths import find_paths


class Cached(Block):
    """Writes its result into a buffer, as key-value caches do."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("cache", torch.zeros(64, 8), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        self.cache[: len(x)] = super().forward(x)
        return self.cache[: len(x)] * 1.0


def test_a_cache_that_passes_with_gradients_write_into(tmp_path: Path, quiet: Console) -> None:
    """The tracer crashed, without a traceback, on a buffer with a graph."""
    task = task_of(lambda: Net(Cached))
    run_own(task, tmp_path / "run", quiet, DROP)
    model = task.load_baseline()
    model(torch.ones(2, 8))
    assert all(block.cache.grad_fn is not None for block in model.blocks)
    find_blocks(model, (torch.ones(1, 8),))
    assert all(block.cache.grad_fn is None for block in model.blocks)
    answers = {answer.question: answer for answer in preflight_of(task).answers}
    assert answers["trains"].answer == "no"  # the second step goes through the graph of the first
    assert "detach what it keeps" in answers["trains"].change


class Experts(nn.Module):
    """Each row is given to one of three experts, whose hidden units no fixed inputs prove."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(8, 3)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        chosen, out = self.gate(x).argmax(-1), x.clone()
        for number, expert in enumerate(self.experts):
            rows = (chosen == number).nonzero()[:, 0]
            if len(rows):
                out[rows] = x[rows] + expert(x[rows])
        return out


def mixed() -> nn.Module:
    net = Net()
    net.blocks.insert(1, Experts())
    return net


@pytest.mark.parametrize("seed", range(4))
def test_experts_are_neither_cut_nor_repaired(seed: int, tmp_path: Path, quiet: Console) -> None:
    """The layer to refit had other rows in the dense model."""
    task = task_of(mixed, seed=seed)
    cut = CUT.model_copy(update={"repair": "all_layers"})
    model = run_own(task, tmp_path / "run", quiet, BlockDrop(num_blocks=1), cut)
    assert all(expert[0].out_features == 16 for expert in model.blocks[1].experts) or not isinstance(
        model.blocks[1], Experts
    )
    verdicts = {part.name: part for part in preflight_of(task).channels}
    experts = [part for name, part in verdicts.items() if name.endswith(".0") and "experts" in name]
    assert experts and not any(part.can_go for part in experts)


def test_backward_hooks_hide_no_block() -> None:
    net = Net().eval()
    net.blocks[1].register_full_backward_hook(lambda *_: None)
    net.blocks[2].register_full_backward_pre_hook(lambda *_: None)
    task = task_of(lambda: copy.deepcopy(net))
    assert [part.name for part in preflight_of(task).blocks if part.can_go] == ["blocks.0", "blocks.1", "blocks.2"]
    assert len(net.blocks[1]._backward_hooks) == len(net.blocks[2]._backward_pre_hooks) == 1


class InferenceInside(Net):
    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return super().forward(x)
        with torch.inference_mode():
            return super().forward(x)


def test_inference_mode_in_the_forward_code_hides_no_block(tmp_path: Path, quiet: Console) -> None:
    model = run_own(task_of(InferenceInside), tmp_path / "run", quiet, DROP, ALIGN)
    assert sum(isinstance(block, Block) for block in model.blocks) == 2
    with torch.inference_mode():
        assert torch.is_inference_mode_enabled()  # the context works again


class InBfloat16(Net):
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return super().forward(x).float()


def test_autocast_in_the_forward_code(tmp_path: Path, quiet: Console) -> None:
    model = run_own(task_of(InBfloat16), tmp_path / "run", quiet, DROP, CUT)
    assert {block.a.out_features for block in model.blocks if isinstance(block, Block)} == {8}


class Skipping(Block):
    """Training leaves it out at random."""

    def forward(self, x: Tensor) -> Tensor:
        return x if self.training and bool(torch.rand(()) < 0.5) else super().forward(x)


@pytest.mark.parametrize("seed", range(5))
def test_blocks_that_training_skips_at_random_are_not_said_to_hide_layers(seed: int) -> None:
    torch.manual_seed(seed)
    net = Net(Skipping).eval()
    paths = find_paths(net, lambda size: (torch.ones(size, 8),))
    found = find_groups(net, paths.taken[0].inputs, (), (), paths.taken[1:])
    assert not any("does not call" in reason for reason in found.refused.values())
