"""Cuts are proved on every way to run a model: training mode, more example inputs, layers that nothing runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from toolkit.blocks.find import find_blocks
from toolkit.blocks.ways import faults_on_paths
from toolkit.channels.cut import cut
from toolkit.channels.find import find_groups, half_of, without_modules
from toolkit.channels.groups import Structure
from toolkit.hooks.paths import Paths, find_paths
from toolkit.hooks.routes import NOT_ALWAYS, ROUTED, routed_modules


def layers(net: nn.Module, *sizes: tuple[str, int, int]) -> None:
    for name, inputs, outputs in sizes:
        net.add_module(name, nn.Linear(inputs, outputs))


class AuxiliaryHead(nn.Module):
    """Only training mode runs `aux`: [B, 8] -> [B, 4]."""

    def __init__(self) -> None:
        super().__init__()
        layers(self, ("a", 8, 16), ("b", 16, 12), ("head", 12, 4), ("aux", 16, 4))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.a(x))
        out = self.head(torch.relu(self.b(y)))
        return out + 0.3 * self.aux(y) if self.training else out


class ByLength(nn.Module):
    """`long` runs for more than 6 steps: [B, T, 8] -> [B, 4]."""

    def __init__(self) -> None:
        super().__init__()
        layers(self, ("a", 8, 16), ("b", 16, 12), ("long", 16, 12), ("head", 12, 4))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.a(x))
        return self.head(torch.relu(self.long(y) if x.shape[1] > 6 else self.b(y)).mean(1))


class TrainingRegulariser(nn.Module):
    """In training mode the channels of `a` come in two halves, which exchanges them."""

    def __init__(self) -> None:
        super().__init__()
        layers(self, ("a", 8, 16), ("b", 16, 4))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.a(x))
        return self.b(torch.cat([y[:, 8:], y[:, :8]], 1) if self.training else y)


class HardWidthInTraining(nn.Module):
    """The width is written in the code of training mode alone."""

    def __init__(self) -> None:
        super().__init__()
        layers(self, ("a", 8, 16), ("b", 16, 4))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.a(x))
        return self.b(y + 0.01 * torch.ones(16) if self.training else y)


class Noisy(nn.Module):
    """Dropout of all kinds, noise on every unit, and a branch left out at random: only in training mode."""

    def __init__(self) -> None:
        super().__init__()
        layers(self, ("a", 8, 16), ("b", 16, 8), ("head", 8, 4))
        self.drop = nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        y = F.dropout(self.drop(torch.relu(self.a(x))), 0.2, self.training)
        y = self.b(y + torch.randn_like(y) if self.training else y)
        return self.head(x + y * (torch.rand(len(x), 1) > 0.5) if self.training else x + y)


def examples(*shape: int) -> Callable[[int], tuple[Tensor, ...]]:
    return lambda size: (torch.randn(size, *shape, generator=torch.Generator().manual_seed(size)),)


def groups_of(net: nn.Module, paths: Paths) -> Structure:
    return find_groups(net, paths.taken[0].inputs, [], (), paths.taken[1:])


def halved(net: nn.Module, structure: Structure) -> nn.Module:
    cut(net, [half_of(group) for group in structure.groups])
    return net


def test_a_head_that_only_training_runs_is_cut_along() -> None:
    net = AuxiliaryHead().eval()
    structure = groups_of(net, find_paths(net, examples(8)))
    assert [group.consumers for group in structure.groups] == [("aux", "b"), ("head",)]
    narrow = halved(net, structure)
    assert narrow.aux.in_features == narrow.a.out_features == 8
    narrow.train()(torch.randn(3, 8)).sum().backward()


def test_a_branch_that_no_example_takes_keeps_its_channels_and_is_named() -> None:
    net = ByLength().eval()
    structure = groups_of(net, find_paths(net, examples(5, 8)))
    assert structure.groups == ()
    assert "run by no example inputs" in structure.refused["long"]
    assert structure.refused["a"].startswith("long, which is run by no example inputs, may read or write its channels")
    assert structure.refused["b"].startswith("long, which is run by no example inputs")


def test_a_branch_that_another_example_takes_is_cut_along() -> None:
    net = ByLength().eval()
    structure = groups_of(net, find_paths(net, examples(5, 8), [(torch.randn(1, 9, 8),)]))
    assert [(group.producers, group.consumers) for group in structure.groups] == [
        (("a",), ("long", "b")),
        (("long", "b"), ("head",)),
    ]
    narrow = halved(net, structure)
    assert [narrow(torch.randn(1, length, 8)).shape for length in (5, 9)] == [(1, 4), (1, 4)]


@pytest.mark.parametrize("make", [TrainingRegulariser, HardWidthInTraining])
def test_what_only_training_mode_shows_refuses_the_cut(make: type[nn.Module]) -> None:
    net = make().eval()
    assert len(groups_of(net, Paths(find_paths(net, examples(8)).taken[:1])).groups) == 1
    found = groups_of(net, find_paths(net, examples(8)))
    assert found.groups == ()
    assert "in training mode" in found.refused["a"] or "something else" in found.refused["a"]


def test_randomness_of_training_refuses_nothing() -> None:
    net = Noisy().eval()
    structure = groups_of(net, find_paths(net, examples(8)))
    assert "a" in [group.name for group in structure.groups]


def test_a_model_that_needs_targets_in_training_is_proved_without() -> None:
    class Detector(AuxiliaryHead):
        def forward(self, x: Tensor, targets: Tensor | None = None) -> Tensor:
            if self.training and targets is None:
                raise ValueError("targets should not be none when in training mode")
            return super().forward(x)

    paths = find_paths(Detector().eval(), examples(8))
    assert len(paths.taken) == 1
    assert paths.refused == (
        "in training mode the model does not run (targets should not be none when in training mode)",
    )


class Experts(nn.Module):
    """The values of a row choose its expert: [B, 8] -> [B, 4]."""

    def __init__(self) -> None:
        super().__init__()
        layers(self, ("router", 8, 3), ("head", 8, 4))
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        chosen, out = self.router(x).argmax(-1), x.clone()
        for number, expert in enumerate(self.experts):
            rows = (chosen == number).nonzero()[:, 0]
            if len(rows):
                out[rows] = x[rows] + expert(x[rows])
        return self.head(out)


class ByMean(nn.Module):
    """The sign of all values chooses a branch: [B, 8] -> [B, 4]."""

    def __init__(self) -> None:
        super().__init__()
        layers(self, ("a", 8, 16), ("up", 16, 12), ("down", 16, 12), ("head", 12, 4))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.a(x))
        return self.head(torch.relu(self.up(y) if x.mean() > 0 else self.down(y)))


class EarlyExit(nn.Module):
    """The second block is left out for inputs that the first is sure of: [B, 8] -> [B, 4]."""

    def __init__(self) -> None:
        super().__init__()
        layers(self, ("first", 8, 8), ("second", 8, 8), ("head", 8, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = x + torch.relu(self.first(x))
        return self.head(x if x[0, 0] > 0 else x + torch.relu(self.second(x)))


def batches(count: int = 6) -> Sequence[tuple[Tensor, ...]]:
    generator = torch.Generator().manual_seed(5)
    return [(torch.randn(64, 8, generator=generator),) for _ in range(count)]


@pytest.mark.parametrize(
    ("make", "reasons"),
    [
        (Experts, {"experts.0.0": ROUTED, "experts.1.0": ROUTED, "experts.2.2": ROUTED}),
        (ByMean, {"up": NOT_ALWAYS, "down": NOT_ALWAYS}),
        (EarlyExit, {"second": NOT_ALWAYS}),
    ],
)
def test_modules_that_values_choose_are_found(make: type[nn.Module], reasons: dict[str, str]) -> None:
    torch.manual_seed(0)
    found = routed_modules(make().eval(), batches())
    assert reasons.items() <= found.items()
    assert not {"a", "head", "router", "first"} & found.keys()


def test_groups_of_modules_that_values_choose_are_refused() -> None:
    torch.manual_seed(0)
    net = Experts().eval()
    structure = groups_of(net, find_paths(net, lambda size: batches()[0]))
    assert {group.name for group in structure.groups} >= {"experts.0.0"}
    left = without_modules(structure, routed_modules(net, batches()))
    assert left.groups == ()
    assert left.refused["experts.0.0"].endswith(ROUTED)


def test_a_block_that_only_training_needs_is_named() -> None:
    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(Member() for _ in range(3))
            self.head = nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            for block in self.blocks:
                x = block(x)
            return self.head(x) + (self.blocks[1].kept.mean() if self.training else 0.0)

    class Member(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers(self, ("a", 8, 16), ("b", 16, 8))

        def forward(self, x: Tensor) -> Tensor:
            self.kept = torch.relu(self.a(x))
            return x + self.b(self.kept)

    net, x = Deep().eval(), examples(8)
    blocks = find_blocks(net, x(1))
    found = faults_on_paths(net, blocks, find_paths(net, x).taken[1:])
    assert list(found) == ["blocks.1"]
    assert found["blocks.1"].startswith("without it the model does not run in training mode: ")
