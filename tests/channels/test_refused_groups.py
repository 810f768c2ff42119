"""Known traps of channel pruning, each with the guard that keeps users out of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.details import as_json
from tests.helpers.nets import Bottlenecks, FusedAttentionNet
from tests.helpers.tiny_task import TinyTask
from toolkit.base.errors import StageError
from toolkit.blocks.drop import drop_block
from toolkit.blocks.find import find_blocks
from toolkit.channels.cut import cut
from toolkit.channels.find import find_groups, half_of
from toolkit.channels.proof import TOLERANCE, cut_error
from toolkit.checkpoint.load import load_model
from toolkit.checkpoint.save import save_model
from toolkit.stages.channel_prune.apply import apply_channel_prune
from toolkit.stages.channel_prune.settings import ChannelPrune, Keep
from toolkit.stages.context import StageContext

NETS: list[tuple[type[nn.Module], dict[str, object], tuple[int, ...]]] = [
    (Bottlenecks, {"groups": 6, "squeeze": True}, (2, 3, 12, 12)),
    (Bottlenecks, {"groups": 24}, (2, 3, 12, 12)),
    (FusedAttentionNet, {}, (2, 6, 4)),
]


def halved(net: nn.Module, inputs: tuple[Tensor, ...]) -> nn.Module:
    groups = find_groups(net, inputs, find_blocks(net, inputs)).groups
    assert groups
    cut(net, [half_of(group) for group in groups])
    return net


@pytest.mark.parametrize(("kind", "options", "shape"), NETS)
def test_final_shapes_are_saved_not_the_history_of_cuts(
    kind: type[nn.Module], options: dict[str, object], shape: tuple[int, ...], tmp_path: Path
) -> None:
    """Cut, drop a block, cut again: a new process needs nothing but the unmodified architecture."""
    torch.manual_seed(0)
    dense, inputs = kind(**options).eval(), (torch.randn(shape),)
    net = kind(**options).eval()
    net.load_state_dict(dense.state_dict())
    halved(net, inputs)
    drop_block(net, find_blocks(net, inputs)[1])
    halved(net, inputs)
    save_model(tmp_path / "saved", net, dense, factory={"task": "mine"}, example_inputs=inputs, recipe_sha256=None)
    loaded = load_model(tmp_path / "saved", kind(**options))
    with torch.no_grad():
        assert torch.allclose(loaded(*inputs), net(*inputs), rtol=0, atol=1e-6)
    shapes = [tuple(part.shape) for part in net.state_dict().values()]
    assert [tuple(part.shape) for part in loaded.state_dict().values()] == shapes


@pytest.mark.parametrize("scope", [torch.no_grad, torch.inference_mode])
def test_groups_are_found_without_gradients(scope: type[torch.no_grad]) -> None:
    torch.manual_seed(0)
    net, inputs = FusedAttentionNet().eval(), (torch.randn(2, 6, 4),)
    expected = find_groups(net, inputs, find_blocks(net, inputs))
    blocks = find_blocks(net, inputs)
    with scope():
        assert find_groups(net, inputs, blocks) == expected


def test_frozen_and_thawed_parameters_keep_their_flags() -> None:
    torch.manual_seed(0)
    net, inputs = Bottlenecks(squeeze=True).eval(), (torch.randn(2, 3, 12, 12),)
    net.stem.requires_grad_(False)
    net.blocks[0].gate.requires_grad_(False)
    flags = {name: parameter.requires_grad for name, parameter in net.named_parameters()}
    halved(net, inputs)
    assert {name: parameter.requires_grad for name, parameter in net.named_parameters()} == flags
    assert net.stem[0].out_channels == 4 and net.blocks[0].gate[0].in_features == 12


@pytest.mark.parametrize(("keep", "round_to", "kept"), [(0.5, 8, 16), (0.55, 4, 16), (0.25, 16, None)])
def test_rounding_is_recorded_and_a_miss_is_refused(
    keep: float, round_to: int, kept: int | None, tiny_task: TinyTask, tiny_context: StageContext
) -> None:
    """Of 32 hidden units. torch-pruning rounds down in silence, to nothing cut at all where a width is small."""
    config = ChannelPrune(keep=Keep(mlp=keep), round_to=round_to, repair="none")
    if kept is None:
        with pytest.raises(StageError, match=r"keep.mlp 0.25 is missed by 0.25, more than keep_tolerance 0.1"):
            as_json(apply_channel_prune)(tiny_task.load_baseline(), tiny_task, config, tiny_context)
        return
    _, detail = as_json(apply_channel_prune)(tiny_task.load_baseline(), tiny_task, config, tiny_context)
    assert {entry["kept"] for entry in detail["groups"] if entry["kind"] == "mlp"} == {kept}
    assert detail["keep"]["mlp"] == {"asked": keep, "achieved": kept / 32}


def test_attention_that_is_not_told_of_its_heads_runs_on_and_is_found_out(tiny_task: TinyTask) -> None:
    """Unpatched, this module splits one head into two halves: nothing is raised, but it computes something else."""
    dense, inputs = tiny_task.load_baseline(), tiny_task.example_inputs(2)
    (first, *_) = find_groups(dense, inputs, []).of_kind("attention")
    told, untold = half_of(first), half_of(replace(first, patches=()))
    for choice, is_right in ((told, True), (untold, False)):
        net = tiny_task.load_baseline()
        cut(net, [choice])
        assert net(*inputs).isfinite().all()
        assert (cut_error(dense, net, told.parts(), inputs) < TOLERANCE) == is_right


def test_half_and_half_again_leaves_half(tiny_task: TinyTask, tiny_context: StageContext) -> None:
    half = ChannelPrune(keep=Keep(mlp=0.5), repair="none")
    model, _ = as_json(apply_channel_prune)(tiny_task.load_baseline(), tiny_task, half, tiny_context)
    model, detail = as_json(apply_channel_prune)(model, tiny_task, half, tiny_context)
    assert detail["keep"]["mlp"] == {"asked": 0.5, "achieved": 0.5}
    assert all(block.mlp.fc1.out_features == 16 for block in model.blocks)


COMPUTED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "weight_norm": nn.utils.parametrizations.weight_norm,
    "spectral_norm": nn.utils.parametrizations.spectral_norm,
    "old weight_norm": nn.utils.weight_norm,
    "old spectral_norm": nn.utils.spectral_norm,
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize("layer", ["fc1", "fc2"])
@pytest.mark.parametrize("kind", COMPUTED)
def test_computed_weights_are_refused_in_one_sentence(
    kind: str, layer: str, tiny_task: TinyTask, tiny_context: StageContext
) -> None:
    """The layer that writes the channels or the one that reads them; other groups are cut as ever."""
    net = tiny_task.load_baseline()
    for block in net.blocks:
        COMPUTED[kind](block.mlp.get_submodule(layer))
    inputs = tiny_task.example_inputs(1)
    structure = find_groups(net, inputs, find_blocks(net, inputs), tiny_task.protected)
    assert structure.refused["blocks.0.mlp.fc1"] == (
        f"it cannot be cut: the weights of blocks.0.mlp.{layer} are computed from other parameters, as by weight_norm "
        "or spectral_norm; only weights that are parameters themselves can be cut"
    )
    assert "blocks.0.attn" in {group.name for group in structure.groups}
    config = ChannelPrune(widths={"blocks.0.mlp.fc1": 8})
    with pytest.raises(StageError, match="are computed from other parameters"):
        apply_channel_prune(net, tiny_task, config, tiny_context)
