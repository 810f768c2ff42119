"""Depth repair in CNNs: the last layer that joins the stream before a dropped block is refitted through a ReLU."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from toolkit.blocks.drop import drop_block
from toolkit.blocks.find import find_blocks
from toolkit.hooks.order import execution_order
from toolkit.hooks.points import ActivationPoint, capture
from toolkit.measure.macs import count_macs
from toolkit.repair.fit import Fitted, fit_layers, install, installed
from toolkit.repair.joint import BEHIND, find_joint, lifted
from toolkit.repair.site import Site
from toolkit.repair.sites import depth_site, last_gone_after
from toolkit.repair.through import ThroughActivation
from toolkit.stages.block_drop.apply import apply_block_drop
from toolkit.stages.block_drop.candidates import repaired_variants
from toolkit.stages.block_drop.settings import BlockDrop
from toolkit.stages.context import StageContext
from toolkit.tasks.classification import ClassificationTask
from toolkit.tasks.task import Batch, Split

WIDTH = 8


class Basic(nn.Module):
    """relu(x + bn(conv(relu(bn(conv(x)))))), the ReLUs as functions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False), nn.BatchNorm2d(WIDTH)
        self.conv2, self.bn2 = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False), nn.BatchNorm2d(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


class Shared(nn.Module):
    """One ReLU module, called twice, as in torchvision; a bottleneck; no BatchNorm, biases instead."""

    def __init__(self) -> None:
        super().__init__()
        self.reduce, self.conv = nn.Conv2d(WIDTH, 4, 1), nn.Conv2d(4, 4, 3, padding=1)
        self.expand, self.relu = nn.Conv2d(4, WIDTH, 1), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(x + self.expand(self.relu(self.conv(self.relu(self.reduce(x))))))


class PreActivation(nn.Module):
    """x + conv(relu(bn(x))): nothing stands behind the addition."""

    def __init__(self) -> None:
        super().__init__()
        self.bn, self.conv = nn.BatchNorm2d(WIDTH), nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(F.relu(self.bn(x)))


class Inverted(nn.Module):
    """x + bn(project(relu6(depthwise(expand(x))))): a linear bottleneck with BatchNorm at its end."""

    def __init__(self) -> None:
        super().__init__()
        self.expand, self.depth = nn.Conv2d(WIDTH, 16, 1), nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.project, self.bn = nn.Conv2d(16, WIDTH, 1, bias=False), nn.BatchNorm2d(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bn(self.project(F.relu6(self.depth(F.relu6(self.expand(x))))))


KINDS = {"basic": Basic, "bottleneck": Shared, "pre-activation": PreActivation, "inverted": Inverted}


class Net(nn.Module):
    def __init__(self, kind: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTH, 3, padding=1)
        self.blocks = nn.Sequential(*(kind() for _ in range(3)))
        self.head = nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(F.relu(self.stem(x))).mean((2, 3)))


def images(seed: int, count: int = 4) -> list[tuple[Tensor, ...]]:
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(16, 3, 8, 8, generator=generator),) for _ in range(count)]


def net_of(kind: str) -> nn.Module:
    """With BatchNorm statistics and scales that are not the fresh ones."""
    torch.manual_seed(5)
    net = Net(KINDS[kind])
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.4, 1.2)
            nn.init.uniform_(module.bias, -0.4, 0.4)
    net.train()
    with torch.no_grad():
        for batch in images(9):
            net(*batch)
    return net.eval()


def repaired(net: nn.Module, block: str) -> tuple[Site, Fitted]:
    inputs = images(0)[0]
    site = depth_site(net, block, inputs, execution_order(net, inputs))
    assert site is not None
    (fitted,) = fit_layers(net, net, [site], images(1), images(2))
    return site, fitted


def error_without(net: nn.Module, block: str, seed: int, fitted: Fitted | None) -> float:
    """Relative squared error of the stream behind `block` when the block is gone, as the definition says."""
    error = scale = 0.0
    short = copy.deepcopy(net)
    find_blocks(short, images(0)[0])
    if fitted is not None:
        install(short, fitted)
    drop_block(short, block)
    after = ActivationPoint(block, "output")
    for inputs in images(seed):
        wanted, found = capture(net, inputs, {after})[after], capture(short, inputs, {after})[after]
        error += float((found - wanted).double().square().sum())
        scale += float(wanted.double().square().sum())
    return error / scale


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("block", ["blocks.0", "blocks.1", "blocks.2"])
def test_the_error_is_that_of_the_stream_and_falls(kind: str, block: str) -> None:
    net = net_of(kind)
    _, fitted = repaired(net, block)
    before, after = fitted.calibration_error
    assert before == pytest.approx(error_without(net, block, 1, None), rel=1e-3)
    assert after == pytest.approx(error_without(net, block, 1, fitted), rel=1e-2)
    assert after < before
    assert fitted.holdout_error is not None and fitted.holdout_error[1] < fitted.holdout_error[0]


@pytest.mark.parametrize(
    ("kind", "norm", "behind"),
    [
        ("basic", "blocks.0.bn2", "relu"),
        ("bottleneck", None, "relu"),
        ("pre-activation", None, "nothing"),
        ("inverted", "blocks.0.bn", "nothing"),
    ],
)
def test_how_a_layer_joins_the_stream(kind: str, norm: str | None, behind: str) -> None:
    site, _ = repaired(net_of(kind), "blocks.1")
    assert (site.joint.norm, site.joint.behind) == (norm, behind)
    assert bool(site.joint.lift) == (behind == "relu")


def test_the_stem_takes_over_the_work_of_the_first_block() -> None:
    site, _ = repaired(net_of("basic"), "blocks.0")
    assert (site.layer, site.joint.behind) == ("stem", "relu")


def test_a_layer_inside_a_block_does_not_join_the_stream() -> None:
    net, inputs = net_of("basic"), images(0)[0]
    order = execution_order(net, inputs)
    assert find_joint(net, "blocks.0.conv1", ActivationPoint("blocks.1", "input"), inputs, order) is None


def test_the_lifted_stream_is_the_sum_before_the_activation() -> None:
    net, inputs = net_of("basic"), images(0)[0]
    site, _ = repaired(net, "blocks.1")
    point = ActivationPoint("blocks.0", "output")
    with lifted(net, site.layer, site.joint):
        total = capture(net, inputs, {point})[point] - site.joint.lift
    assert float(total.min()) < 0.0
    torch.testing.assert_close(BEHIND["relu"](total), capture(net, inputs, {point})[point], rtol=0, atol=1e-4)


def test_a_norm_that_is_fitted_has_the_statistics_of_its_input() -> None:
    """So that estimating them again on the same data changes nothing, and training begins where the fit ended."""
    net = net_of("basic")
    site, fitted = repaired(net, "blocks.1")
    assert site.joint.norm is not None
    install(net, fitted)
    norm = net.get_submodule(site.joint.norm)
    point = ActivationPoint(site.joint.norm, "input")
    seen = torch.cat([capture(net, inputs, {point})[point] for inputs in images(1)])
    torch.testing.assert_close(norm.running_mean, seen.mean((0, 2, 3)), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(norm.running_var, seen.var((0, 2, 3)), rtol=1e-2, atol=1e-4)


def test_weights_and_statistics_come_back() -> None:
    net = net_of("basic")
    before = copy.deepcopy(net.state_dict())
    _, fitted = repaired(net, "blocks.1")
    with installed(net, fitted):
        assert any(not torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_targets_alternate_towards_an_exact_answer() -> None:
    """Where some weights give the goal exactly, the rounds come near it; one linear fit to the goal does not."""
    torch.manual_seed(0)
    rows, rest = torch.randn(2000, 6), torch.randn(2000, 3)
    true = torch.randn(6, 3).double()
    goal = torch.relu(rest.double() + rows.double() @ true)
    problem = ThroughActivation("relu")
    problem.add(rows, rest, goal)
    old = torch.zeros(6, 3).double()
    linear = torch.linalg.lstsq(rows.double(), goal - rest.double()).solution
    assert problem.error(problem.solve(old)) < 0.1 * problem.error(linear) < problem.error(old)


def test_a_block_before_others_that_are_gone_aims_behind_all_of_them() -> None:
    order = ["stem", "a", "a.conv", "b", "b.conv", "c", "c.conv", "d", "d.conv", "head"]
    assert last_gone_after("a", {"b", "c"}, order) == "c"
    assert last_gone_after("a", {"c"}, order) == "a"
    assert last_gone_after("d", {"b"}, order) == "d"


def test_shared_prefixes_give_the_naive_scores_where_norms_are_fitted_too(tiny_context: StageContext) -> None:
    data = [(torch.cat([part for (part,) in images(seed, 6)]), torch.arange(96) % 5) for seed in (1, 2, 3)]
    net = net_of("basic")
    task = ClassificationTask(
        lambda: Net(Basic), net, train=data[0], validation=data[1], test=data[2], fixed_examples=32
    )

    def macs(model: nn.Module) -> int:
        return count_macs(model, task.example_inputs(1)).total

    context = replace(tiny_context, dense=net, dense_macs=macs(net), count_macs=macs)
    config = BlockDrop(num_blocks=2, criterion="loss", verify_selection=True)
    _, detail = apply_block_drop(task.load_baseline(), task, config, context)
    assert len(detail.rounds) == 2
    for one in detail.rounds:
        assert one.repair is not None and one.naive_scores is not None
        assert one.scores == pytest.approx(one.naive_scores, rel=1e-5)
        assert one.naive_choice == one.dropped


class Standardised(nn.Conv2d):
    """A convolution that does more than its class says: its weights are standardised."""

    def forward(self, x: Tensor) -> Tensor:
        weight = (self.weight - self.weight.mean()) / self.weight.std()
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class Acting(nn.BatchNorm2d):
    """A BatchNorm that acts too."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(super().forward(x))


class Tokens(nn.Module):
    """x + bn(linear(x)) over tokens [B, T, C]: the BatchNorm normalises T, not the outputs of the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.bn = nn.Linear(6, 6), nn.BatchNorm1d(6)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bn(self.mix(x))


def odd_net(kind: str) -> nn.Module:
    net = net_of("basic")
    block = net.blocks[0]
    if kind == "standardised":
        block.conv2 = Standardised(WIDTH, WIDTH, 3, padding=1, bias=False)
    elif kind == "acting":
        block.bn2 = Acting(WIDTH).eval()
    elif kind == "shared weights":
        block.conv2.weight = net.blocks[2].conv2.weight
    elif kind == "parametrised":
        nn.utils.parametrizations.weight_norm(block.conv2)
    return net


@pytest.mark.parametrize("kind", ["standardised", "acting", "shared weights", "parametrised"])
def test_a_layer_that_is_not_a_plain_linear_map_is_not_refitted(kind: str) -> None:
    net, inputs = odd_net(kind), images(0)[0]
    assert depth_site(net, "blocks.1", inputs, execution_order(net, inputs)) is None
    assert depth_site(net, "blocks.2", inputs, execution_order(net, inputs)) is not None or kind == "shared weights"


def test_a_norm_of_another_dimension_is_not_fitted_with_its_layer() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 6), Tokens(), Tokens()).eval()
    inputs = (torch.randn(4, 6, 6),)
    assert depth_site(net, "2", inputs, execution_order(net, inputs)) is None


class OtherHoldout(ClassificationTask):
    """Held-out data are nothing like the data that repairs are fitted to."""

    def batches(self, split: Split, batch_size: int, *, limit: int | None = None) -> Iterator[Batch]:
        for batch in super().batches(split, batch_size, limit=limit):
            (inputs,) = batch.inputs
            yield Batch((-20.0 * inputs.flip(0),), batch.targets) if split == "holdout" else batch


@pytest.mark.parametrize(("kind", "is_made"), [(ClassificationTask, True), (OtherHoldout, False)])
def test_a_repair_that_lifts_the_error_elsewhere_is_not_made(
    kind: type[ClassificationTask], is_made: bool, tiny_context: StageContext
) -> None:
    data = [(torch.cat([part for (part,) in images(seed, 6)]), torch.arange(96) % 5) for seed in (1, 2, 3)]
    task = kind(lambda: Net(Basic), net_of("basic"), train=data[0], validation=data[1], test=data[2], fixed_examples=2)
    net = task.load_baseline()
    context = replace(tiny_context, dense=net, dense_macs=1, count_macs=lambda _: 1)
    find_blocks(net, task.example_inputs(1))
    (variant,) = repaired_variants(net, net, ["blocks.2"], task, context).values()
    assert (variant.fitted is not None) == is_made


def test_rows_are_thinned_out_evenly_where_they_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a quarter of the rows the answer is nearly the same, and no more is kept than is allowed."""
    torch.manual_seed(0)
    whole, thinned = ThroughActivation("relu"), ThroughActivation("relu")
    true, old = torch.randn(6, 3), torch.zeros(6, 3).double()
    parts = [(torch.randn(500, 6), torch.randn(500, 3)) for _ in range(8)]
    for rows, rest in parts:
        whole.add(rows, rest, torch.relu(rest + rows @ true))
    monkeypatch.setattr("toolkit.repair.through.MOST_BYTES", 1200 * 6 * 4)
    for rows, rest in parts:
        thinned.add(rows, rest, torch.relu(rest + rows @ true))
    assert sum(len(rows) for rows, _, _ in thinned.rows) <= 1200
    torch.testing.assert_close(thinned.solve(old), whole.solve(old), rtol=0.1, atol=0.05)


@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
def test_the_mean_squared_difference_of_a_block_is_the_naive_one(kind: str, tiny_context: StageContext) -> None:
    data = [(torch.cat([part for (part,) in images(seed, 6)]), torch.arange(96) % 5) for seed in (1, 2, 3)]
    net = net_of(kind)
    task = ClassificationTask(
        lambda: Net(KINDS[kind]), net, train=data[0], validation=data[1], test=data[2], fixed_examples=32
    )
    context = replace(tiny_context, dense=net, dense_macs=2, count_macs=lambda _: 1)
    config = BlockDrop(num_blocks=1, criterion="block_mse", verify_selection=True)
    _, detail = apply_block_drop(task.load_baseline(), task, config, context)
    (one,) = detail.rounds
    assert one.naive_scores is not None and one.scores == pytest.approx(one.naive_scores, rel=1e-5)
