"""A macs_ratio that some combination of widths reaches is reached, though one common ratio steps over it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.tiny_task import CHANNELS, CLASSES, DIM, TinyTask
from toolkit.base.errors import StageError
from toolkit.channels.groups import ChannelGroup, Slot
from toolkit.measure.macs import count_macs
from toolkit.stages.channel_prune.apply import apply_channel_prune
from toolkit.stages.channel_prune.last_steps import WidthPlan, loss, meet
from toolkit.stages.channel_prune.settings import ChannelPrune
from toolkit.stages.channel_prune.widths import Cut
from toolkit.stages.context import StageContext

TOLERANCE = 0.02


class Widths(nn.Module):
    """[B, T, CHANNELS] -> [B, T, CLASSES]: residual MLPs of the given hidden widths, one after another."""

    def __init__(self, hidden: Sequence[int]) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(CHANNELS, DIM), nn.Linear(DIM, CLASSES)
        self.up = nn.ModuleList(nn.Linear(DIM, width) for width in hidden)
        self.down = nn.ModuleList(nn.Linear(width, DIM) for width in hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for up, down in zip(self.up, self.down, strict=True):
            x = x + down(torch.relu(up(x)))
        return self.head(x)


class Pyramid(nn.Module):
    """A wide map first, then narrow ones: the first channels cost far more than all others, as in EfficientNet-Lite."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(CHANNELS, DIM), nn.Linear(DIM, CLASSES)
        self.stem = nn.Sequential(nn.Conv1d(DIM, 16, 15, padding=7), nn.ReLU(), nn.Conv1d(16, DIM, 15, padding=7))
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv1d(DIM, 24, 1), nn.ReLU(), nn.Conv1d(24, DIM, 1)) for _ in range(4)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(self.embed(x).mT)
        for layer in self.layers:
            x = x + layer(x)
        return self.head(x.mT)


class NetTask(TinyTask):
    def __init__(self, net: nn.Module) -> None:
        self.net = net
        self._weights = net.state_dict()

    def build_model(self) -> nn.Module:
        return Widths([len(part.weight) for part in self.net.up]) if isinstance(self.net, Widths) else Pyramid()


def pruned(net: nn.Module, config: ChannelPrune, context: StageContext) -> tuple[float, dict[str, int]]:
    """The MACs ratio that is reached, and what every group keeps."""
    task = NetTask(net)
    dense = task.load_baseline()

    def macs(model: nn.Module) -> int:
        return count_macs(model, task.example_inputs(1)).total

    own = StageContext(dense, macs(dense), macs, torch.device("cpu"), 0, context.console)
    _, detail = apply_channel_prune(task.load_baseline(), task, config, own)
    return detail.macs_ratio.achieved, {group.name: group.kept for group in detail.groups}


@torch.no_grad()
def half_quiet(net: Widths, place: int) -> Widths:
    """Half of the hidden units of one layer hardly matter."""
    half = len(net.up[place].weight) // 2
    for part in (net.up[place].weight[:half], net.up[place].bias[:half], net.down[place].weight[:, :half]):
        part.mul_(0.01)
    return net


SITUATIONS: dict[str, tuple[list[int], float, int, set[int]]] = {
    # hidden widths; share of the MACs of all MLPs; round_to; how many channels may be left
    "two alike, one step between them": ([16, 16], 0.75, 8, {24}),
    "three alike, two of three steps": ([16, 16, 16], 2 / 3, 8, {32}),
    "one far wider than the others": ([16, 96, 16], 0.875, 16, {112}),
    "unlike widths, one coarse step each": ([32, 48, 64], 0.78, 16, {112}),
}


@pytest.mark.parametrize("case", SITUATIONS)
def test_what_a_combination_reaches_is_reached(case: str, tiny_context: StageContext) -> None:
    hidden, share, round_to, left = SITUATIONS[case]
    torch.manual_seed(0)
    net = Widths(hidden)
    rest = CHANNELS * DIM + DIM * CLASSES  # multiply-adds for each token that stay
    total = rest + 2 * DIM * sum(hidden)
    asked = (rest + share * 2 * DIM * sum(hidden)) / total
    config = ChannelPrune(macs_ratio=asked, macs_tolerance=TOLERANCE, round_to=round_to, repair="none")
    ratio, kept = pruned(net, config, tiny_context)
    assert abs(ratio - asked) <= TOLERANCE
    assert sum(kept.values()) in left
    assert all(width % round_to == 0 for width in kept.values())


def test_the_least_important_group_takes_the_last_step(tiny_context: StageContext) -> None:
    for quiet in range(3):
        torch.manual_seed(0)
        net = half_quiet(Widths([16, 16, 16]), quiet)
        rest = CHANNELS * DIM + DIM * CLASSES
        asked = (rest + 2 * DIM * 40) / (rest + 2 * DIM * 48)
        config = ChannelPrune(macs_ratio=asked, macs_tolerance=TOLERANCE, importance="l2", round_to=8, repair="none")
        kept = pruned(net, config, tiny_context)[1]
        assert kept == {f"up.{place}": 8 if place == quiet else 16 for place in range(3)}


@pytest.mark.parametrize("asked", [0.9, 0.8, 0.7, 0.6])
def test_one_step_of_a_costly_layer_is_not_all_there_is(asked: float, tiny_context: StageContext) -> None:
    """The step of the costly layer is more than twice the tolerance: the others make up for it."""
    torch.manual_seed(0)
    config = ChannelPrune(macs_ratio=asked, macs_tolerance=0.02, round_to=8, repair="none")
    ratio, _ = pruned(Pyramid(), config, tiny_context)
    assert abs(ratio - asked) <= 0.02


def test_what_no_combination_reaches_is_refused(tiny_context: StageContext) -> None:
    torch.manual_seed(0)
    config = ChannelPrune(macs_ratio=0.7, macs_tolerance=0.01, round_to=16, repair="none")
    with pytest.raises(StageError, match=r"macs_ratio 0\.7 was asked for and .* reached by cutting"):
        pruned(Widths([32]), config, tiny_context)


def plan_of(widths: Sequence[int]) -> WidthPlan:
    groups = [
        ChannelGroup(f"g{at}", "mlp", (Slot(f"g{at}", "in", tuple((i,) for i in range(width))),), width)
        for at, width in enumerate(widths)
    ]
    return [Cut(group, "mlp", group.num_units, group.num_units, 0.0, group.num_units) for group in groups]


@pytest.mark.parametrize("seed", range(20))
def test_many_groups_with_neighbours_in_common(seed: int) -> None:
    """Multiply-adds of layers in line, w0 w1 + w1 w2 + ...: a combination is known to meet, and one is found."""
    generator = torch.Generator().manual_seed(seed)
    count = 7
    whole = (torch.randint(2, 6, (count,), generator=generator) * 8).tolist()
    steps = [tuple(range(8, width + 1, 8)) for width in whole]
    scores = {f"g{at}": torch.rand(width, 1, generator=generator) for at, width in enumerate(whole)}

    def macs(widths: Sequence[int]) -> int:
        return sum(a * b for a, b in itertools.pairwise([8, *widths, 8]))

    some = [step[int(torch.randint(len(step), (), generator=generator))] for step in steps]
    target, tolerance = macs(some) / macs(whole), 0.004
    counted: list[tuple[int, ...]] = []

    def miss(plan: WidthPlan) -> float:
        counted.append(tuple(entry.kept for entry in plan))
        return macs(counted[-1]) / macs(whole) - target

    found = meet(miss, plan_of(whole), steps, scores, tolerance)
    assert abs(miss(found)) <= tolerance
    assert len(set(counted)) < 150 < math.prod(map(len, steps))


def test_few_combinations_are_all_looked_at_and_the_least_loss_is_taken() -> None:
    plan = plan_of([16, 16])
    scores = {"g0": torch.ones(16, 1), "g1": torch.cat([torch.ones(8, 1), torch.full((8, 1), 0.1)])}
    found = meet(lambda one: sum(e.kept for e in one) / 32 - 0.75, plan, [(8, 16), (8, 16)], scores, 0.01)
    assert [entry.kept for entry in found] == [16, 8]
    assert loss(plan[1], 8, scores) < loss(plan[0], 8, scores)
