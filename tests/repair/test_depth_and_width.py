"""Closed-form repair: never worse on calibration data, exact where an exact answer exists."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from tests.helpers.tiny_task import DIM, TinyNet, TinyTask
from toolkit.blocks.drop import drop_block
from toolkit.blocks.find import find_blocks
from toolkit.hooks.order import execution_order
from toolkit.hooks.points import ActivationPoint, capture
from toolkit.repair.fit import fit_layers, install, installed
from toolkit.repair.joint import PLAIN, find_joint
from toolkit.repair.site import Site
from toolkit.repair.sites import absorber, depth_site, joining_point


def data(seed: int, count: int = 4) -> list[tuple[torch.Tensor, ...]]:
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(16, 12, 5, generator=generator),) for _ in range(count)]


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(3)
    return TinyNet().eval()


def test_where_a_layer_joins_the_stream(net: nn.Module) -> None:
    inputs = data(0)[0]
    order = execution_order(net, inputs)
    stream = ActivationPoint("blocks.2", "input")
    assert find_joint(net, "blocks.1.mlp.fc2", stream, inputs, order) == PLAIN
    assert find_joint(net, "blocks.1.attn.proj", stream, inputs, order) is None
    assert find_joint(net, "blocks.1.mlp.fc1", stream, inputs, order) is None
    assert absorber(net, "blocks.2", inputs, order) == ("blocks.1.mlp.fc2", PLAIN)
    assert absorber(net, "blocks.0", inputs, order) == ("embed", PLAIN)
    joins = joining_point(net, "blocks.1.attn.proj", "blocks.1", inputs, order)
    assert joins == (ActivationPoint("blocks.1.norm2", "input"), PLAIN)
    joins = joining_point(net, "blocks.1.mlp.fc2", "blocks.1", inputs, order)
    assert joins == (ActivationPoint("blocks.1", "output"), PLAIN)
    assert joining_point(net, "head", None, inputs, order) == (ActivationPoint("head", "output"), PLAIN)


def test_the_absorber_skips_dropped_blocks(net: nn.Module) -> None:
    inputs = data(0)[0]
    find_blocks(net, inputs)
    drop_block(net, "blocks.1")
    assert absorber(net, "blocks.2", inputs, execution_order(net, inputs)) == ("blocks.0.mlp.fc2", PLAIN)


def test_a_linear_block_is_imitated_exactly(net: nn.Module) -> None:
    """A dropped block that adds a linear map of what the layer before already outputs leaves no error."""
    changed = copy.deepcopy(net)
    with torch.no_grad():
        changed.blocks[1].mlp.fc2.weight.mul_(0.5)  # the reference has twice this weight
    site = Site("blocks.1.mlp.fc2", ActivationPoint("blocks.1", "output"), ActivationPoint("blocks.1", "output"))
    (fitted,) = fit_layers(changed, net, [site], data(1), data(2))
    assert fitted.calibration_error[0] > 1e-3
    assert fitted.calibration_error[1] < 1e-5
    assert fitted.holdout_error[1] < 1e-4
    install(changed, fitted)
    inputs = data(9)[0]
    assert torch.allclose(changed(*inputs), net(*inputs), atol=0.02)


@pytest.mark.parametrize("block", [f"blocks.{i}" for i in range(4)])
@pytest.mark.parametrize("trained", [False, True])
def test_the_calibration_error_is_never_above_the_old_one(
    block: str, trained: bool, net: nn.Module, tiny_task: TinyTask
) -> None:
    model = tiny_task.load_baseline() if trained else net
    inputs = data(0)[0]
    site = depth_site(model, block, inputs, execution_order(model, inputs))
    assert site is not None
    (fitted,) = fit_layers(model, model, [site], data(1), data(2))
    before, after = fitted.calibration_error
    assert after < before
    goals = goals_of(model, site, data(1))
    direct = squared_error(model, site, data(1), goals)
    assert before == pytest.approx(direct, rel=1e-3)
    with installed(model, fitted):
        assert after == pytest.approx(squared_error(model, site, data(1), goals), rel=1e-2)
    assert squared_error(model, site, data(1), goals) == pytest.approx(direct)


def goals_of(model: nn.Module, site: Site, batches: list[tuple[torch.Tensor, ...]]) -> list[torch.Tensor]:
    """What the stream should become, batch by batch, from a model that is not changed yet."""
    return [capture(model, inputs, {site.goal})[site.goal].double() for inputs in batches]


def squared_error(
    model: nn.Module, site: Site, batches: list[tuple[torch.Tensor, ...]], goals: list[torch.Tensor]
) -> float:
    """The stream's relative squared error as the definition says, without normal equations."""
    error = scale = 0.0
    for inputs, goal in zip(batches, goals, strict=True):
        seen = capture(model, inputs, {site.point})[site.point].double()
        error += float((seen - goal).square().sum())
        scale += float(goal.square().sum())
    return error / scale


def test_weights_that_cannot_be_improved_stay(net: nn.Module) -> None:
    point = ActivationPoint("blocks.1", "output")
    (fitted,) = fit_layers(net, net, [Site("blocks.1.mlp.fc2", point, point)], data(1), data(2))
    before, after = fitted.calibration_error
    assert after <= before < 1e-10
    assert torch.allclose(fitted.weight, net.get_submodule("blocks.1.mlp.fc2").weight, atol=1e-4)


def test_a_layer_without_bias_gets_none() -> None:
    torch.manual_seed(0)
    net = TinyNet().eval()
    net.blocks[1].mlp.fc2 = nn.Linear(32, DIM, bias=False)
    inputs = data(0)[0]
    site = depth_site(net, "blocks.2", inputs, execution_order(net, inputs))
    assert site is not None
    (fitted,) = fit_layers(net, net, [site], data(1), data(2))
    assert fitted.bias is None
    assert fitted.calibration_error[1] < fitted.calibration_error[0]
