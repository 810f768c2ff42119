"""What a width repair aims at: the unmodified model, before the ReLU, and behind blocks that are gone."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.helpers.details import as_json
from tests.helpers.tiny_task import TinyTask
from tests.repair.test_cnn import DigitsNet, context_of, trained_task
from toolkit.hooks.order import execution_order
from toolkit.hooks.points import ActivationPoint, capture
from toolkit.repair.batch_norm import norms_to_reestimate
from toolkit.repair.fit import fit_layers
from toolkit.repair.joint import PLAIN, Joint, find_joint, lifted
from toolkit.repair.site import Site, look_at_goal, look_at_model
from toolkit.repair.sites import drifted_layers, goal_of, joining_point
from toolkit.stages.block_drop.apply import apply_block_drop
from toolkit.stages.block_drop.settings import BlockDrop
from toolkit.stages.channel_prune.apply import apply_channel_prune
from toolkit.stages.channel_prune.settings import ChannelPrune
from toolkit.stages.context import StageContext


def digits_net() -> tuple[DigitsNet, Tensor, list[str]]:
    torch.manual_seed(0)
    net = DigitsNet().eval()
    inputs = torch.randn(4, 1, 8, 8)
    return net, inputs, execution_order(net, (inputs,))


def test_a_reader_in_a_cnn_is_fitted_to_the_sum_before_the_relu() -> None:
    net, inputs, order = digits_net()
    found = joining_point(net, "blocks.1.conv2", "blocks.1", (inputs,), order)
    assert found is not None
    point, joint = found
    assert (point, joint.norm, joint.behind) == (ActivationPoint("blocks.1", "output"), "blocks.1.bn2", "relu")
    with lifted(net, "blocks.1.conv2", joint):
        total = capture(net, (inputs,), [point])[point] - joint.lift
    block = net.blocks[1]
    stream = capture(net, (inputs,), [ActivationPoint("blocks.1", "input")])[ActivationPoint("blocks.1", "input")]
    branch = block.bn2(block.conv2(F.relu(block.bn1(block.conv1(stream)))))
    torch.testing.assert_close(total, stream + branch, rtol=1e-4, atol=1e-4)
    inner = joining_point(net, "blocks.1.conv1", "blocks.1", (inputs,), order)
    assert inner == (ActivationPoint("blocks.1.bn1", "output"), Joint("blocks.1.bn1")), "its BatchNorm goes with it"


def test_the_goal_is_behind_blocks_that_are_gone() -> None:
    net, inputs, order = digits_net()
    point = ActivationPoint("blocks.0", "output")
    joint = find_joint(net, "blocks.0.conv2", point, (inputs,), order)
    assert joint is not None

    def goal(gone: set[str]) -> tuple[ActivationPoint, Joint | None]:
        return goal_of("blocks.0.conv2", point, joint, gone, order, lambda: joint)

    assert goal(set()) == goal({"blocks.2"}) == (point, joint)
    assert goal({"blocks.1"}) == (ActivationPoint("blocks.1", "output"), None)
    assert goal({"blocks.1", "blocks.2"}) == (ActivationPoint("blocks.2", "output"), None)


def test_width_makes_good_what_depth_has_damaged(tiny_task: TinyTask, tiny_context: StageContext) -> None:
    """Only units that do nothing go, so nothing is left to repair but the dropped block."""
    dense = copy.deepcopy(tiny_context.dense)
    with torch.no_grad():
        dense.blocks[0].mlp.fc2.weight[:, 16:] = 0.0
    context = replace(tiny_context, dense=dense)
    drop = BlockDrop(blocks=("blocks.1",), repair="none")
    model, _ = as_json(apply_block_drop)(copy.deepcopy(dense), tiny_task, drop, context)
    narrow = ChannelPrune(widths={"blocks.0.mlp.fc1": 16}, importance="wanda")
    after, detail = as_json(apply_channel_prune)(copy.deepcopy(model), tiny_task, narrow, context)
    (repair,) = detail["repairs"]
    assert repair["holdout_error"]["before"] > 0.01, (
        "the goal is the unmodified model's stream behind the dropped block"
    )
    assert repair["holdout_error"]["after"] < repair["holdout_error"]["before"]
    end = ActivationPoint("blocks.2", "input")
    for batch in tiny_task.batches("holdout", 16):
        wanted = capture(dense, batch.inputs, [end])[end]
        missed = [float((capture(one, batch.inputs, [end])[end] - wanted).square().sum()) for one in (model, after)]
        assert missed[1] < missed[0]


def test_statistics_are_taken_where_everything_before_is_settled() -> None:
    net, _, order = digits_net()
    sites = [
        Site(f"blocks.{i}.conv2", ActivationPoint("", ""), ActivationPoint("", ""), joint=Joint(f"blocks.{i}.bn2"))
        for i in (0, 2)
    ]
    lists = norms_to_reestimate(net, order, "blocks.0.conv2", sites)
    assert lists == [[], ["blocks.1.bn1", "blocks.1.bn2", "blocks.2.bn1"], []]
    assert norms_to_reestimate(net, order, None, []) == [[]]
    everything = norms_to_reestimate(net, order, "stem.0", [])
    assert everything == [["stem.1", *(f"blocks.{i}.bn{j}" for i in range(3) for j in (1, 2))]]


def test_statistics_before_the_first_cut_are_left_alone(tiny_context: StageContext) -> None:
    task = trained_task(0)
    context = context_of(task, tiny_context)
    config = ChannelPrune(widths={"blocks.1.conv1": 8}, repair="none")
    model, detail = as_json(apply_channel_prune)(task.load_baseline(), task, config, context)
    assert detail["batch_norms_reestimated"] == 1 + 2
    old, new = context.dense.state_dict(), model.state_dict()
    for name in ("stem.1", "blocks.0.bn1", "blocks.0.bn2"):
        assert torch.equal(old[f"{name}.running_mean"], new[f"{name}.running_mean"])
    assert not torch.equal(old["blocks.1.bn2.running_mean"], new["blocks.1.bn2.running_mean"])


class Tied(nn.Module):
    """Two layers with one weight: a fit of the one would change the other."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.last.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.middle(self.first(x))))


def test_a_layer_with_shared_weights_is_not_refitted() -> None:
    net, inputs = Tied().eval(), (torch.randn(3, 6),)
    order = execution_order(net, inputs)
    assert joining_point(net, "last", None, inputs, order) is None
    assert joining_point(net, "middle", None, inputs, order) == (ActivationPoint("middle", "output"), PLAIN)


def test_the_width_fit_lowers_the_error_of_the_sum() -> None:
    """In float64, of a random net of which half of the channels of a block are gone."""
    net, inputs, order = digits_net()
    dense = net.double()
    cut = copy.deepcopy(dense)
    with torch.no_grad():
        cut.blocks[1].conv2.weight[:, 8:] = 0.0
    point = ActivationPoint("blocks.1", "output")
    joint = find_joint(dense, "blocks.1.conv2", point, (inputs.double(),), order)
    data = [(torch.randn(32, 1, 8, 8).double(),) for _ in range(2)]
    site = Site("blocks.1.conv2", point, point, joint=joint, goal_joint=joint)
    (fitted,) = fit_layers(cut, dense, [site], data, data)
    assert fitted.calibration_error[1] < 0.5 * fitted.calibration_error[0]
    assert not site.is_through


def test_layers_behind_the_cut_are_refitted_too(tiny_context: StageContext) -> None:
    """The stream comes nearer to the unmodified model's; layers before the cut, and folds, stay as they are."""
    task = trained_task(0)
    context = context_of(task, tiny_context)
    found = {}
    for repair in ("closed_form", "all_layers"):
        config = ChannelPrune.model_validate({"widths": {"blocks.0.conv1": 4}, "repair": repair})
        found[repair] = as_json(apply_channel_prune)(task.load_baseline(), task, config, context)
    assert [one["layer"] for one in found["closed_form"][1]["repairs"]] == ["blocks.0.conv2"]
    layers = ["blocks.0.conv2", *(f"blocks.{i}.conv{j}" for i in (1, 2) for j in (1, 2)), "head"]
    assert [one["layer"] for one in found["all_layers"][1]["repairs"]] == layers
    end = ActivationPoint("head", "output")
    for batch in task.batches("test", 400):
        wanted = capture(context.dense, batch.inputs, [end])[end]
        missed = [
            float((capture(found[repair][0], batch.inputs, [end])[end] - wanted).square().sum())
            for repair in ("closed_form", "all_layers")
        ]
        assert missed[1] < missed[0]


def test_what_took_over_for_a_dropped_block_is_not_undone() -> None:
    net, _, order = digits_net()
    gone = {"blocks.1"}
    left = [name for name in order if not name.startswith("blocks.1")]
    assert drifted_layers(net, "blocks.0.conv1", left, gone, order) == ["blocks.2.conv1", "blocks.2.conv2", "head"]
    assert drifted_layers(net, "head", left, gone, order) == ["blocks.2.conv1", "blocks.2.conv2", "head"]
    assert drifted_layers(net, None, left, gone, order) == []


def test_a_sum_is_seen_whole_where_data_are_larger_than_the_example() -> None:
    """The lift is found with the example inputs; made-up ones may be far smaller than the data."""
    net, inputs, order = digits_net()
    point = ActivationPoint("blocks.1", "output")
    joint = find_joint(net, "blocks.1.conv2", point, (0.01 * inputs,), order)
    assert joint is not None
    site = Site("blocks.1.conv2", point, point, joint=joint, goal_joint=joint)
    large = (300.0 * inputs,)
    seen = look_at_model(net, site, large)
    block = net.blocks[1]
    stream = capture(net, large, [ActivationPoint("blocks.1", "input")])[ActivationPoint("blocks.1", "input")]
    total = stream + block.bn2(block.conv2(F.relu(block.bn1(block.conv1(stream)))))
    assert float(total.detach().min()) < -joint.lift
    for found in (seen[point], look_at_goal(net, site, large)):
        torch.testing.assert_close(found, total.detach(), rtol=1e-3, atol=1e-2)
