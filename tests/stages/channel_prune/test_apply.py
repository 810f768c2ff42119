"""channel_prune: widths, rounding, what is kept, and that the pruned network computes what slicing says."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.helpers.details import as_json
from tests.helpers.tiny_task import TinyNet, TinyTask
from toolkit.base.errors import StageError
from toolkit.blocks.find import find_blocks
from toolkit.channels.cut import cut
from toolkit.channels.find import find_groups, half_of
from toolkit.channels.groups import ChannelGroup, Slot
from toolkit.hooks.points import ActivationPoint, capture
from toolkit.stages.channel_prune.apply import apply_channel_prune
from toolkit.stages.channel_prune.importance import activation_energy, newton, score_groups, weight_norm
from toolkit.stages.channel_prune.settings import ChannelPrune, Keep
from toolkit.stages.channel_prune.widths import Cut, choose, rounded
from toolkit.stages.context import StageContext
from toolkit.tasks.tad.model import Block


def groups_of(net: nn.Module, task: TinyTask) -> dict[str, ChannelGroup]:
    inputs = task.example_inputs(1)
    found = find_groups(net, inputs, find_blocks(net, inputs), task.protected)
    return {group.name: group for group in found.groups}


def mlp_of(net: nn.Module, task: TinyTask) -> ChannelGroup:
    return groups_of(net, task)["blocks.0.mlp.fc1"]


def test_groups_of_a_transformer(tiny_task: TinyTask) -> None:
    groups = groups_of(TinyNet(), tiny_task)
    assert [(name, g.kind, g.width, g.num_units) for name, g in groups.items()] == [
        entry
        for i in range(4)
        for entry in ((f"blocks.{i}.attn", "attention", 16, 2), (f"blocks.{i}.mlp.fc1", "mlp", 32, 32))
    ]
    attention = groups["blocks.0.attn"]
    assert attention.producers == ("blocks.0.attn.q", "blocks.0.attn.k", "blocks.0.attn.v")
    assert attention.consumers == ("blocks.0.attn.proj",)
    assert attention.dims_are_free
    assert [(patch.attribute, patch.follows) for patch in attention.patches] == [("num_heads", "units")]


def test_frozen_parameters_are_still_found_and_stay_frozen(tiny_task: TinyTask) -> None:
    model = TinyNet().requires_grad_(False)
    groups = groups_of(model, tiny_task)
    assert len(groups) == 8
    cut(model, [half_of(group) for group in groups.values()])
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_cutting_one_model_leaves_nothing_behind_for_the_next(tiny_task: TinyTask) -> None:
    first = TinyNet()
    cut(first, [half_of(group) for group in groups_of(first, tiny_task).values()])
    assert first.blocks[0].attn.num_heads == 1
    assert groups_of(TinyNet(), tiny_task)["blocks.0.attn"].width == 16


@pytest.mark.parametrize(
    ("asked", "multiple", "current", "expected"),
    [(30.0, 8, 60, 32), (6.0, 8, 12, 8), (1.0, 8, 64, 8), (15.0, 4, 8, 8), (10.0, 4, 32, 8), (2.0, 1, 4, 2)],
)
def test_rounding(asked: float, multiple: int, current: int, expected: int) -> None:
    assert rounded(asked, multiple, current) == expected


def test_weight_norms_by_hand(tiny_task: TinyTask) -> None:
    net = TinyNet()
    group = mlp_of(net, tiny_task)
    fc1, fc2 = net.blocks[0].mlp.fc1.weight.double(), net.blocks[0].mlp.fc2.weight.double()
    assert torch.allclose(weight_norm(net, group, 1)[:, 0], fc1.abs().sum(1) + fc2.abs().sum(0))
    assert torch.allclose(weight_norm(net, group, 2)[:, 0], fc1.square().sum(1) + fc2.square().sum(0))


def test_activation_energy_is_what_the_consumer_reads(tiny_task: TinyTask) -> None:
    net = tiny_task.load_baseline()
    group = mlp_of(net, tiny_task)
    read = []
    batches = [batch.inputs for batch in tiny_task.batches("calibration", 16)]
    scores = activation_energy(net, [group], batches)[group.name]
    net.blocks[0].mlp.fc2.register_forward_pre_hook(lambda _, args: read.append(args[0].detach()))
    for inputs in batches:
        net(*inputs)
    seen = torch.cat([r.flatten(0, -2) for r in read]).double()
    assert torch.allclose(scores[:, 0], seen.square().mean(0))


def test_newton_scores_by_hand(tiny_task: TinyTask) -> None:
    """The mask that minimises the consumer's squared error plus a penalty on its sum, found by direct solution."""
    net = tiny_task.load_baseline()
    group = mlp_of(net, tiny_task)
    batches = [batch.inputs for batch in tiny_task.batches("calibration", 16)]
    scores = newton(net, [group], batches)[group.name][:, 0]
    read = [
        capture(net, b, {ActivationPoint("blocks.0.mlp.fc2", "input")}).popitem()[1].flatten(0, -2).double()
        for b in batches
    ]
    rows, weight = torch.cat(read), net.blocks[0].mlp.fc2.weight.detach().double()
    hessian = (rows.T @ rows) * (weight.T @ weight)
    hessian += 1e-2 * hessian.diagonal().mean() * torch.eye(32)
    gone = torch.linalg.solve(hessian, torch.ones(32).double())
    assert torch.allclose(scores, -gone / gone.abs().max())


def test_taylor_is_what_a_channel_adds_to_the_loss(tiny_task: TinyTask) -> None:
    net = tiny_task.load_baseline().requires_grad_(False)
    group = mlp_of(net, tiny_task)
    batches = list(tiny_task.batches("calibration", 32))
    scores = score_groups(net, [group], "taylor", tiny_task, lambda: batches, 0)[group.name][:, 0]
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in net.parameters())
    fc1, fc2 = (layer.requires_grad_(True) for layer in (net.blocks[0].mlp.fc1, net.blocks[0].mlp.fc2))
    expected = torch.zeros(32).double()
    for batch in batches:
        net.zero_grad()
        tiny_task.loss(net(*batch.inputs), batch.targets).backward()
        expected += (fc1.weight * fc1.weight.grad).double().sum(1).abs()
        expected += (fc2.weight * fc2.weight.grad).double().sum(0).abs()
    assert torch.allclose(scores, expected)


def test_random_importance_depends_on_seed_and_group(tiny_task: TinyTask) -> None:
    net = TinyNet()
    group = mlp_of(net, tiny_task)
    one, again, other = (score_groups(net, [group], "random", tiny_task, list, s)[group.name] for s in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_bn_gamma_needs_batch_norm(tiny_task: TinyTask) -> None:
    net = TinyNet()
    with pytest.raises(StageError, match="pass no BatchNorm layer"):
        score_groups(net, [mlp_of(net, tiny_task)], "bn_gamma", tiny_task, list, 0)


def chosen(num_units: int, size: int, heads: int, head_dim: int, scores: torch.Tensor) -> list[int]:
    """Indices that stay of a made-up attention group."""
    places = tuple(tuple(range(unit * size, (unit + 1) * size)) for unit in range(num_units))
    group = ChannelGroup("a", "attention", (Slot("p", "in", places),), num_units, owner="a", dims_are_free=True)
    cuts = [Cut(group, "heads", num_units, num_units, heads, heads), Cut(group, "head_dim", size, size, 0, head_dim)]
    (choice,) = choose(cuts, {"a": scores.reshape(num_units, size)})
    return choice.kept(group.reader)


def test_heads_are_cut_whole_and_dimensions_evenly() -> None:
    scores = torch.tensor([1.0, 2, 3, 0, 9, 8, 7, 6, 0, 5, 0, 5])
    assert chosen(3, 4, 2, 4, scores) == [4, 5, 6, 7, 8, 9, 10, 11]
    assert chosen(3, 4, 3, 2, scores) == [1, 2, 4, 5, 9, 11]
    assert chosen(3, 4, 1, 1, scores) == [4]


def test_the_pruned_network_is_the_sliced_one(tiny_task: TinyTask, tiny_context: StageContext) -> None:
    """Zeroing what the consumers read from the removed channels gives the same outputs as removing them."""
    dense = tiny_task.load_baseline()
    config = ChannelPrune(keep=Keep(mlp=0.5, heads=0.5), repair="none", round_to=4)
    pruned, detail = as_json(apply_channel_prune)(tiny_task.load_baseline(), tiny_task, config, tiny_context)
    masked = copy.deepcopy(dense)
    for entry in detail["groups"]:
        layer = entry["name"].replace("fc1", "fc2") if entry["kind"] == "mlp" else f"{entry['name']}.proj"
        weight = masked.get_submodule(layer).weight
        gone = sorted(set(range(weight.shape[1])) - set(entry["indices"]))
        with torch.no_grad():
            weight[:, gone] = 0.0
    inputs = tiny_task.example_inputs(3)
    assert torch.allclose(pruned(*inputs), masked(*inputs), atol=1e-5)
    assert pruned.blocks[0].attn.num_heads == 1
    assert pruned.blocks[0].attn.q.weight.shape == (8, 16)
    assert pruned.blocks[0].mlp.fc1.weight.shape == (16, 16)


def test_head_dimensions_keep_the_scale_of_the_trained_width(tiny_task: TinyTask, tiny_context: StageContext) -> None:
    config = ChannelPrune(keep=Keep(head_dim=0.5), round_to=4, repair="none")
    pruned, _ = as_json(apply_channel_prune)(tiny_task.load_baseline(), tiny_task, config, tiny_context)
    attention = pruned.blocks[0].attn
    assert (attention.num_heads, attention.q.out_features, attention.proj.in_features) == (2, 8, 8)
    assert attention.scale == 8**-0.5


@pytest.mark.parametrize("importance", ["activation", "l1", "l2", "random"])
def test_repair_is_never_above_the_unrepaired_error(
    importance: str, tiny_task: TinyTask, tiny_context: StageContext
) -> None:
    config = ChannelPrune(keep=Keep(mlp=0.25, head_dim=0.5), round_to=4, importance=importance)
    _, detail = as_json(apply_channel_prune)(tiny_task.load_baseline(), tiny_task, config, tiny_context)
    assert [one["layer"] for one in detail["repairs"]] == [
        layer for i in range(4) for layer in (f"blocks.{i}.attn.proj", f"blocks.{i}.mlp.fc2")
    ]
    for one in detail["repairs"]:
        assert one["calibration_error"]["after"] <= one["calibration_error"]["before"]
        assert one["holdout_error"]["after"] < one["holdout_error"]["before"]
    asked = {entry["kind"]: (entry["original"], entry["asked"], entry["kept"]) for entry in detail["groups"]}
    assert asked == {"mlp": (32, 8.0, 8), "heads": (2, 2.0, 2), "head_dim": (8, 4.0, 4)}


def test_ratios_are_of_the_unmodified_model(tiny_task: TinyTask, tiny_context: StageContext) -> None:
    half = ChannelPrune(keep=Keep(mlp=0.5))
    model, _ = as_json(apply_channel_prune)(tiny_task.load_baseline(), tiny_task, half, tiny_context)
    again, detail = as_json(apply_channel_prune)(model, tiny_task, half, tiny_context)
    assert {entry["kept"] for entry in detail["groups"] if entry["kind"] == "mlp"} == {16}
    assert again.blocks[0].mlp.fc1.out_features == 16


def test_where_all_blocks_would_lose_a_head_at_once_some_of_them_do(
    tiny_task: TinyTask, tiny_context: StageContext
) -> None:
    """Every head is worth the same MACs, so one ratio for all can only halve all attentions or none."""
    half = ChannelPrune(keep=Keep(heads=0.5))
    narrow, _ = as_json(apply_channel_prune)(copy.deepcopy(tiny_context.dense), tiny_task, half, tiny_context)
    least = tiny_context.macs_ratio(narrow)
    config = ChannelPrune(macs_ratio=(1.0 + least) / 2, macs_tolerance=0.01, scope=("heads",))
    model, detail = as_json(apply_channel_prune)(copy.deepcopy(tiny_context.dense), tiny_task, config, tiny_context)
    assert tiny_context.macs_ratio(model) == pytest.approx((1.0 + least) / 2)
    kept = [group["kept"] for group in detail["groups"] if group["kind"] == "heads"]
    assert sorted(kept) == [1, 1, 2, 2]


def test_a_macs_ratio_is_reached_or_refused(tiny_task: TinyTask, tiny_context: StageContext) -> None:
    config = ChannelPrune(macs_ratio=0.7, macs_tolerance=0.03, scope=("mlp",), round_to=1)
    model, detail = as_json(apply_channel_prune)(tiny_task.load_baseline(), tiny_task, config, tiny_context)
    assert abs(tiny_context.macs_ratio(model) - 0.7) <= 0.03
    assert detail["macs_ratio"] == {"asked": 0.7, "achieved": tiny_context.macs_ratio(model)}
    impossible = ChannelPrune(macs_ratio=0.1, scope=("mlp",))
    with pytest.raises(StageError, match=r"macs_ratio 0.1 was asked for and 0.\d+ reached"):
        as_json(apply_channel_prune)(tiny_task.load_baseline(), tiny_task, impossible, tiny_context)


def test_nothing_to_prune_is_an_error(tiny_task: TinyTask, tiny_context: StageContext) -> None:
    plain = nn.Sequential(nn.Linear(5, 3)).eval()
    with pytest.raises(StageError, match="the model has no mlp that can be cut"):
        as_json(apply_channel_prune)(plain, tiny_task, ChannelPrune(keep=Keep(mlp=0.5)), tiny_context)


class OddNet(nn.Module):
    """Widths that are no multiples of `round_to`: 2 heads of 5, 29 hidden units."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 10)
        self.blocks = nn.ModuleList(Block(10, 2, 29) for _ in range(2))
        self.head = nn.Linear(10, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def test_what_is_kept_whole_is_left_alone_whatever_its_width(tiny_task: TinyTask, tiny_context: StageContext) -> None:
    torch.manual_seed(0)
    net = OddNet().eval()
    context = replace(tiny_context, dense=copy.deepcopy(net))
    pruned, _ = as_json(apply_channel_prune)(net, tiny_task, ChannelPrune(keep=Keep(mlp=0.5), repair="none"), context)
    assert pruned.blocks[0].attn.q.out_features == 10
    assert pruned.blocks[0].mlp.fc1.out_features == 16  # 14.5 is nearest to 16


def test_a_target_that_is_met_already_changes_nothing(tiny_task: TinyTask, tiny_context: StageContext) -> None:
    config = ChannelPrune(macs_ratio=1.0, allow_no_change=True)
    _, detail = as_json(apply_channel_prune)(tiny_task.load_baseline(), tiny_task, config, tiny_context)
    assert detail["macs_ratio"] == {"asked": 1.0, "achieved": 1.0}
    assert {entry["kept"] for entry in detail["groups"] if entry["kind"] == "mlp"} == {32}


class NoAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(5, 32), nn.Linear(32, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.fc1(x).relu())


def test_a_kind_that_is_not_there_is_not_skipped(tiny_task: TinyTask, tiny_context: StageContext) -> None:
    net = NoAttention().eval()
    context = replace(tiny_context, dense=copy.deepcopy(net))
    with pytest.raises(
        StageError, match="the model has no heads that can be cut on its own; what can be cut here: mlp"
    ):
        as_json(apply_channel_prune)(net, tiny_task, ChannelPrune(keep=Keep(mlp=0.5, heads=0.5)), context)


class FusedAttention(nn.Module):
    """One matrix for queries, keys and values, and torch's own attention: neither can be cut yet."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(5, 48), nn.Linear(16, 5)
        self.mixer = nn.MultiheadAttention(5, 1, batch_first=True)
        self.fc1, self.fc2 = nn.Linear(5, 32), nn.Linear(32, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        x = x + self.proj(nn.functional.scaled_dot_product_attention(q, k, v))
        x = x + self.mixer(x, x, x, need_weights=False)[0]
        return self.fc2(self.fc1(x).relu())


def test_attention_that_cannot_be_cut_is_left_alone(tiny_task: TinyTask, tiny_context: StageContext) -> None:
    net = FusedAttention().eval()
    context = replace(tiny_context, dense=copy.deepcopy(net))
    pruned, detail = as_json(apply_channel_prune)(net, tiny_task, ChannelPrune(keep=Keep(mlp=0.5)), context)
    assert [(entry["name"], entry["kept"]) for entry in detail["groups"]] == [("fc1", 16)]
    assert pruned.qkv.out_features == 48
