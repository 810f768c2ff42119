"""What is found in nets whose groups are known, and that every cut computes what the masked net does."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.nets import Bottlenecks, FusedAttentionNet
from toolkit.base.errors import UserError
from toolkit.blocks.find import find_blocks
from toolkit.channels import proof as masked
from toolkit.channels.cut import KeptUnits, cut, parts_of
from toolkit.channels.find import find_groups, half_of
from toolkit.channels.groups import ChannelGroup, Structure
from toolkit.channels.proof import cut_error
from toolkit.measure.macs import count_macs

IMAGE = (torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0)),)
TOKENS = (torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0)),)


def structure_of(net: nn.Module, inputs: tuple[Tensor, ...], *protected: str) -> Structure:
    torch.manual_seed(0)
    return find_groups(net, inputs, find_blocks(net, inputs), protected)


def made(kind: type[nn.Module], **options: object) -> nn.Module:
    torch.manual_seed(0)
    return kind(**options).eval()


def assert_cut_is_right(net: nn.Module, groups: tuple[ChannelGroup, ...], inputs: tuple[Tensor, ...]) -> nn.Module:
    narrow = copy.deepcopy(net)
    choices = [half_of(group) for group in groups]
    cut(narrow, choices)
    assert cut_error(net, narrow, parts_of(choices), inputs) < 1e-5
    assert (
        count_macs(narrow, inputs[:0] + tuple(part[:1] for part in inputs)).total
        < count_macs(net, tuple(part[:1] for part in inputs)).total
    )
    return narrow


def test_convolutions_between_batch_norms() -> None:
    net = made(Bottlenecks)
    found = structure_of(net, IMAGE)
    assert [(g.name, g.kind, g.num_units, g.consumers) for g in found.groups] == [
        ("blocks.0.expand", "conv", 24, ("blocks.0.middle",)),
        ("blocks.0.middle", "conv", 24, ("blocks.0.project",)),
        ("blocks.1.expand", "conv", 24, ("blocks.1.middle",)),
        ("blocks.1.middle", "conv", 24, ("blocks.1.project",)),
        ("stem.0", "embedding", 8, ("blocks.0.expand", "blocks.1.expand", "head")),
    ]
    assert found.refused == {"head": "is an output of the model"}
    assert_cut_is_right(net, found.groups, IMAGE)


@pytest.mark.parametrize(("groups", "units"), [(24, 24), (6, 6)])
def test_grouped_convolutions_go_group_by_group(groups: int, units: int) -> None:
    net = made(Bottlenecks, groups=groups, squeeze=True)
    inner = [g for g in structure_of(net, IMAGE).groups if g.name == "blocks.0.expand"]
    assert [(g.num_units, g.width) for g in inner] == [(units, 24)]
    assert set(inner[0].producers) == {"blocks.0.expand", "blocks.0.gate.2"}
    narrow = assert_cut_is_right(net, tuple(inner), IMAGE)
    middle = narrow.get_submodule("blocks.0.middle")
    assert (middle.groups, middle.in_channels, middle.out_channels) == (groups // 2, 12, 12)


def test_fused_attention_gates_and_tables() -> None:
    net = made(FusedAttentionNet)
    found = structure_of(net, TOKENS)
    groups = {group.name: group for group in found.groups}
    attention, gated = groups["blocks.0.attn"], groups["blocks.0.gated"]
    assert (attention.kind, attention.num_units) == ("attention", 4)
    assert {(patch.attribute, patch.follows) for patch in attention.patches} == {
        ("num_heads", "units"),
        ("attn_dim", "width"),
    }
    assert {(slot.module, slot.role, slot.size) for slot in attention.slots} == {
        ("blocks.0.attn.qkv", "out", 36),
        ("blocks.0.attn.proj", "in", 12),
        ("blocks.0.attn", "tensor", 4),
    }
    assert [(slot.role, slot.places[1]) for slot in gated.slots] == [("out", (1, 17)), ("in", (1,))]
    stream = groups["embed"]
    assert {slot.tensor for slot in stream.slots if slot.role == "tensor"} == {"position", "scale"}
    narrow = assert_cut_is_right(net, found.groups, TOKENS)
    owner = narrow.get_submodule("blocks.0.attn")
    assert (owner.num_heads, owner.attn_dim, owner.qkv.out_features) == (2, 6, 18)


def test_forward_code_that_cannot_take_fewer_heads_is_refused_with_its_words() -> None:
    found = structure_of(made(FusedAttentionNet, reads_own_width=True), TOKENS)
    assert not found.of_kind("attention")
    assert "its forward code does not run with the narrower layers: shape" in found.refused["blocks.0.attn"]
    assert len(found.of_kind("mlp")) == 3


def test_a_fault_behind_a_tiny_scale_is_seen() -> None:
    """Compared at the outputs alone, a wrong cut of the gated MLP would pass: its scale is 1e-5."""
    net = made(FusedAttentionNet)
    (gated,) = [group for group in structure_of(net, TOKENS).groups if group.name == "blocks.0.gated"]
    right, wrong = half_of(gated), KeptUnits(gated, tuple(range(1, 16, 2)))
    narrow = copy.deepcopy(net)
    cut(narrow, [wrong])
    with torch.no_grad():
        difference = (narrow(*TOKENS) - net(*TOKENS)).abs().max()
    assert difference < masked.TOLERANCE
    assert cut_error(net, narrow, right.parts(), TOKENS) > 0.1


def test_protected_layers_keep_their_outputs() -> None:
    net = made(Bottlenecks)
    names = [g.name for g in structure_of(net, IMAGE, "re:blocks\\.\\d\\.expand", "stem").groups]
    assert names == ["blocks.0.middle", "blocks.1.middle"]
    with pytest.raises(UserError, match="is not a regular expression"):
        structure_of(net, IMAGE, "re:(")


def test_the_model_is_left_as_it_was() -> None:
    net = made(FusedAttentionNet).requires_grad_(False).train()
    before = copy.deepcopy(net.state_dict())
    structure_of(net, TOKENS)
    assert net.training and all(module.training for module in net.modules())
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert not any("forward" in vars(module) for module in net.modules())
    assert not any(parameter.requires_grad for parameter in net.parameters())


def test_layers_used_without_being_called_are_left_alone() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True, norm_first=True)
    net = nn.Sequential(nn.Linear(4, 16), layer, nn.Linear(16, 3)).eval()
    found = structure_of(net, TOKENS)
    assert [(g.name, g.kind) for g in found.groups] == [("1.linear1", "mlp")]
    assert found.refused["1.self_attn"] == "computes with layers that it does not call"
    assert "which computes with layers that it does not call" in found.refused["0"]
    assert_cut_is_right(net, found.groups, TOKENS)


def test_a_flattened_feature_map() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(400, 6), nn.ReLU(), nn.Linear(6, 2))
    found = structure_of(net.eval(), IMAGE)
    first, second = found.groups
    assert (first.name, first.kind, first.num_units, first.width) == ("0", "conv", 4, 400)
    assert (second.name, second.kind, second.num_units) == ("3", "mlp", 6)
    assert_cut_is_right(net, found.groups, IMAGE)
