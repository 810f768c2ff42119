"""A linear bypass in a model: what it costs, how it is saved, found again, exported and cut."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.block_nets import KINDS, WIDTH, BlockNet, block_net, net_inputs
from tests.helpers.damages import MANIFEST, Damage, edit, forbid_pickle
from tests.helpers.details import as_json
from toolkit.base.errors import CheckpointError, StageError
from toolkit.blocks.drop import block_end, drop_block
from toolkit.blocks.dropped import dropped_blocks, emptied_blocks, stand_ins_of
from toolkit.blocks.find import find_blocks
from toolkit.channels.cut import KeptUnits, cut, parts_of
from toolkit.channels.find import find_groups, half_of
from toolkit.channels.groups import still_there
from toolkit.channels.proof import TOLERANCE, cut_error
from toolkit.checkpoint.load import load_model
from toolkit.checkpoint.save import save_model
from toolkit.exporting.export import export_model
from toolkit.exporting.report import ExportSettings
from toolkit.measure.macs import count_macs
from toolkit.repair.fit import fit_layers
from toolkit.repair.stream import bypass_arguments
from toolkit.stages.block_drop.apply import apply_block_drop
from toolkit.stages.block_drop.settings import BlockDrop
from toolkit.stages.channel_prune import repair as channel_prune_repair
from toolkit.stages.channel_prune.apply import apply_channel_prune
from toolkit.stages.channel_prune.settings import ChannelPrune, Keep
from toolkit.stages.context import StageContext
from toolkit.stand_ins.linear_bypass import LinearBypass, LinearBypassArguments
from toolkit.stand_ins.output import OutputStructure
from toolkit.stand_ins.registry import make_stand_in
from toolkit.tasks.classification import ClassificationTask

Inputs = tuple[Tensor, ...]


@pytest.fixture
def _no_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_pickle(monkeypatch)


def inputs_of(kind: str, size: int = 2) -> Inputs:
    return net_inputs(kind, 0, 1, size)[0]


def with_bypass(kind: str, rank: int | None = None, block: str = "blocks.1") -> BlockNet:
    """The net with random correction in the place of a block."""
    net = block_net(kind)
    find_blocks(net, inputs_of(kind))
    put_bypass(net, kind, rank, block)
    return net


def put_bypass(net: nn.Module, kind: str, rank: int | None, block: str) -> None:
    end = block_end(net, block)
    arguments = bypass_arguments(net, block, inputs_of(kind), structure=end.structure, behind=end.behind, rank=rank)
    assert arguments is not None
    bypass = make_stand_in(net.get_submodule(block), arguments)
    with torch.no_grad():
        for parameter in bypass.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape))
    drop_block(net, block, bypass)


@pytest.mark.parametrize("rank", [None, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_it_costs_what_it_says_and_is_no_block(kind: str, rank: int | None) -> None:
    """Multiply-adds to the unit: positions times C C, or 2 r C."""
    net, inputs = with_bypass(kind, rank), inputs_of(kind, 1)
    places = inputs[0].numel() // 3
    each = WIDTH * WIDTH if rank is None else 2 * rank * WIDTH
    empty = block_net(kind)
    find_blocks(empty, inputs)
    drop_block(empty, "blocks.1")
    assert count_macs(net, inputs).total == count_macs(empty, inputs).total + places * each
    stand_in = stand_ins_of(net)["blocks.1"]
    dim = -1 if kind in ("transformer", "channels last") else 1
    shape = torch.empty(1, places, WIDTH).movedim(-1, dim).shape
    assert stand_in.macs(shape) == places * each
    assert stand_ins_of(empty)["blocks.1"].macs(shape) == 0
    assert find_blocks(net, inputs) == ["blocks.0", "blocks.2"]
    assert dropped_blocks(net) == ["blocks.1"] and emptied_blocks(net) == []
    with pytest.raises(StageError, match="is dropped already"):
        drop_block(net, "blocks.1")


def test_a_new_one_is_the_identity_of_any_structure() -> None:
    net = block_net("transformer")
    x = torch.randn(2, 9, WIDTH)
    structure = OutputStructure(kind="tuple", length=2, index=0)
    for rank in (None, 2):
        arguments = LinearBypassArguments(layer="linear", channels=WIDTH, rank=rank, structure=structure)
        outputs = make_stand_in(net.blocks[0], arguments)(x, mask=None)
        assert torch.equal(outputs[0], x) and outputs[1] is None


def test_what_is_left_of_the_block_can_be_read_and_does_not_hide_the_layers() -> None:
    """A block may have parts of the names of the bypass's own."""
    block = nn.Module()
    block.map, block.rate = nn.Dropout(0.25), 0.5
    bypass = make_stand_in(block, LinearBypassArguments(layer="linear", channels=4))
    assert bypass.rate == 0.5 and isinstance(bypass.map, nn.Linear)
    with pytest.raises(AttributeError, match="nowhere"):
        bypass.nowhere  # noqa: B018


def test_a_stack_of_stand_ins_and_one_block_is_not_taken_for_a_block() -> None:
    """Ranks keep the skip path of the whole stack, and hold most of its parameters."""
    net = nn.Sequential(nn.Conv2d(3, WIDTH, 1), nn.Sequential(*(KINDS["bottleneck"]() for _ in range(4)))).eval()
    inputs = inputs_of("bottleneck")
    assert find_blocks(net, inputs) == [f"1.{index}" for index in range(4)]
    for index in range(3):
        end = block_end(net, f"1.{index}")
        arguments = LinearBypassArguments(layer="conv2d", channels=WIDTH, rank=WIDTH, structure=end.structure)
        drop_block(net, f"1.{index}", make_stand_in(net[1][index], arguments))
    assert find_blocks(net, inputs) == ["1.3"]


def save(folder: Path, model: nn.Module, dense: nn.Module, inputs: Inputs) -> None:
    save_model(folder, model, dense, factory={}, example_inputs=inputs, recipe_sha256=None)


@pytest.mark.usefixtures("_no_pickle")
@pytest.mark.parametrize("rank", [None, 3])
@pytest.mark.parametrize("kind", ["basic", "transformer", "video"])
def test_a_saved_model_computes_the_same_bit_for_bit(kind: str, rank: int | None, tmp_path: Path) -> None:
    net, inputs = with_bypass(kind, rank), inputs_of(kind)
    drop_block(net, "blocks.2")
    save(tmp_path / "model", net, block_net(kind), inputs)
    manifest = json.loads((tmp_path / "model" / MANIFEST).read_text())
    assert list(manifest["removed_blocks"]) == ["blocks.2"]
    assert manifest["stand_ins"]["blocks.1"]["rank"] == rank
    loaded = load_model(tmp_path / "model", block_net(kind))
    with torch.no_grad():
        assert torch.equal(loaded(*inputs), net(*inputs))
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_where_there_is_none_the_manifest_is_the_old_one(tmp_path: Path) -> None:
    net, inputs = block_net("basic"), inputs_of("basic")
    find_blocks(net, inputs)
    drop_block(net, "blocks.1")
    save(tmp_path / "model", net, block_net("basic"), inputs)
    manifest = json.loads((tmp_path / "model" / MANIFEST).read_text())
    assert manifest["removed_blocks"] == {"blocks.1": {"kind": "tensor", "length": 1, "index": 0, "keys": []}}
    assert "stand_ins" not in manifest


def put(**values: Any) -> Damage:
    return edit(lambda manifest: manifest["stand_ins"]["blocks.1"].update(values))


def moved(name: str, *, copies: bool = False) -> Damage:
    def change(manifest: dict[str, Any]) -> None:
        places = manifest["stand_ins"]
        places[name] = dict(places["blocks.1"]) if copies else places.pop("blocks.1")

    return edit(change)


DAMAGES: dict[str, tuple[Damage, str]] = {
    "type unknown": (
        put(type="dynamic_convolution"),
        r"stand_ins\.blocks\.1: .*'dynamic_convolution'.*'linear_bypass'",
    ),
    "type code": (put(type="os.system"), "does not match any of the expected tags"),
    "argument unknown": (put(path="/etc/passwd"), "path: Extra inputs are not permitted"),
    "rank above": (put(rank=9), "rank 9 is more than the 8 channels"),
    "rank negative": (put(rank=-1), "greater than or equal to 1"),
    "rank a word": (put(rank="2"), "valid integer"),
    "rank lower": (put(rank=2), "does not fit into"),
    "full instead of a rank": (put(rank=None), "tensors: missing .*blocks.1.map"),
    "channels huge": (put(channels=2**40), "less than or equal to 65536"),
    "channels more": (put(channels=2**16), "must map 65536 channels to 3, but its weights map 8 to 3"),
    "channels fewer": (put(channels=4), "does not fit into"),
    "channels a fraction": (put(channels=8.0), "valid integer"),
    "layer unknown": (put(layer="lstm"), "'linear', 'conv1d', 'conv2d' or 'conv3d'"),
    "layer of other dimensions": (put(layer="conv3d"), "does not fit into"),
    "activation unknown": (put(behind="eval"), "'nothing' or 'relu'"),
    "activation other": (put(behind="nothing"), "does not compute"),
    "structure other": (put(structure={"kind": "tuple", "length": 2}), "does not run"),
    "no such place": (moved("blocks.9"), "no submodule 'blocks.9'"),
    "the model's place": (moved(""), "no submodule ''"),
    "in another one": (moved("blocks.1.up", copies=True), "'blocks.1' has already been dropped"),
    "around another one": (moved("blocks", copies=True), "'blocks' cannot be dropped: 'blocks.1' inside of it"),
    "too many": (moved("blocks.0", copies=True), "tensors: missing"),
    "in a place twice": (
        edit(lambda manifest: manifest["removed_blocks"].update({"blocks.1": {"kind": "tensor"}})),
        "'blocks.1' is in removed_blocks too",
    ),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bypass") / "model"
    save(folder, with_bypass("basic", 3), block_net("basic"), inputs_of("basic"))
    return folder


@pytest.mark.usefixtures("_no_pickle")
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_manifest_that_asks_for_something_else_is_refused(damage: str, saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "model")
    break_it, message = DAMAGES[damage]
    break_it(tmp_path / "model")
    with pytest.raises(CheckpointError, match=message):
        load_model(tmp_path / "model", block_net("basic"))


@pytest.mark.parametrize("rank", [None, 3])
@pytest.mark.parametrize("kind", ["basic", "transformer"])
def test_it_is_exported_and_the_file_computes_the_same(kind: str, rank: int | None, tmp_path: Path) -> None:
    report = export_model(
        with_bypass(kind, rank),
        lambda size: inputs_of(kind, size),
        tmp_path / "model.onnx",
        ExportSettings(format="onnx"),
    )
    assert report.batch_size is None and {check.batch_size for check in report.parity} >= {1, 2}
    assert report.worst.relative < 1e-4


def structure_of(net: nn.Module, kind: str) -> Any:
    inputs = inputs_of(kind)
    return find_groups(net, inputs, find_blocks(net, inputs))


@pytest.mark.parametrize("rank", [None, 3])
@pytest.mark.parametrize("kind", ["basic", "bottleneck", "convnext", "transformer"])
def test_the_stream_is_cut_with_it_and_inner_channels_as_ever(kind: str, rank: int | None, tmp_path: Path) -> None:
    """Proved by the project's own proof: group by group, and all at once; then saved and loaded."""
    net, inputs = with_bypass(kind, rank), inputs_of(kind)
    empty = block_net(kind)
    find_blocks(empty, inputs)
    drop_block(empty, "blocks.1")
    found, plain = structure_of(net, kind), structure_of(empty, kind)
    inner = {group.name: group.num_units for group in plain.groups if group.kind != "embedding"}
    assert inner and {group.name: group.num_units for group in found.groups if group.kind != "embedding"} == inner
    (stream,) = found.of_kind("embedding")
    first = "blocks.1.map" if rank is None else "blocks.1.down"
    last = "blocks.1.map" if rank is None else "blocks.1.up"
    assert first in stream.consumers and last in stream.producers
    assert (rank is not None) == ("is the rank of" in found.refused.get("blocks.1.down", ""))
    narrow, choices = copy.deepcopy(net), [half_of(group) for group in found.groups]
    cut(narrow, choices)
    assert cut_error(net, narrow, parts_of(choices), inputs) <= TOLERANCE
    bypass = stand_ins_of(narrow)["blocks.1"]
    assert isinstance(bypass, LinearBypass)
    assert bypass.last_layer.get_parameter("weight").shape[0] == WIDTH // 2
    save(tmp_path / "model", narrow, block_net(kind), inputs)
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path / "model", block_net(kind))(*inputs), narrow(*inputs))


def test_a_stream_between_a_bypass_and_other_layers_is_a_stream() -> None:
    """No block is left in this stage, and yet its width is not the inner width of one."""
    net = nn.Sequential(nn.Conv2d(3, WIDTH, 1), KINDS["basic"](), nn.Conv2d(WIDTH, 5, 1)).eval()
    inputs = inputs_of("basic")
    assert find_blocks(net, inputs) == ["1"]
    put_bypass(net, "basic", None, "1")
    assert {group.kind for group in structure_of(net, "basic").groups} == {"embedding"}


class Namesake(nn.Module):
    """A block with a layer of the name of one of the bypass's own."""

    def __init__(self) -> None:
        super().__init__()
        self.map, self.out = nn.Conv2d(WIDTH, 16, 1), nn.Conv2d(16, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.out(torch.relu(self.map(x)))


def test_groups_of_the_dense_model_lose_what_a_bypass_took_the_place_of() -> None:
    net, inputs = block_net("pre-activation"), inputs_of("pre-activation")
    net.blocks[1] = Namesake().eval()
    groups = find_groups(net, inputs, find_blocks(net, inputs)).groups
    (stream,) = (group for group in groups if group.kind == "embedding")
    assert "blocks.1.map" in stream.consumers
    put_bypass(net, "pre-activation", None, "blocks.1")
    left = still_there(groups, net)
    assert left and "blocks.1.out" not in {slot.module for group in left for slot in group.slots}
    assert [group.slots for group in left] == [group.slots for group in structure_of(net, "pre-activation").groups]


@pytest.mark.parametrize("rank", [None, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_groups_of_the_dense_model_have_the_stream_of_a_bypass(kind: str, rank: int | None) -> None:
    """They are those that would be found anew, by running the model a hundred times."""
    dense = block_net(kind)
    groups = find_groups(dense, inputs_of(kind), find_blocks(dense, inputs_of(kind))).groups
    net = with_bypass(kind, rank)
    left, found = still_there(groups, net), structure_of(net, kind).groups
    assert [(one.name, one.kind, one.slots) for one in left] == [(one.name, one.kind, one.slots) for one in found]


@pytest.mark.parametrize("rank", [None, 3])
@pytest.mark.parametrize("kind", ["basic", "channels last"])
def test_a_fitted_bypass_is_repaired_where_the_stream_is_cut(
    kind: str, rank: int | None, tiny_context: StageContext
) -> None:
    """The sum in it, and what its first layer puts out, are nowhere to be seen in the unmodified model."""
    task, context = task_with(kind, tiny_context)
    drop = BlockDrop(blocks=("blocks.1",), repair="fold_and_bypass", rank=rank)
    net, _ = apply_block_drop(task.load_baseline(), task, drop, context)
    (stream,) = structure_of(net, kind).of_kind("embedding")
    cut_stream = ChannelPrune(widths={stream.name: WIDTH // 2}, importance="l1")
    narrow, detail = as_json(apply_channel_prune)(net, task, cut_stream, context)
    reads = "blocks.1.map" if rank is None else "blocks.1.down"
    errors = {one["layer"]: one["calibration_error"] for one in detail["repairs"]}
    assert errors[reads]["after"] <= errors[reads]["before"]
    assert narrow.get_submodule(reads).get_parameter("weight").shape[1] == WIDTH // 2


def test_a_layer_before_a_bypass_aims_at_the_stream_before_it(
    tiny_context: StageContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the block did behind it is the bypass's to do: to aim behind that would do it twice."""
    task, context = task_with("basic", tiny_context)
    goals = {}

    def noting(model: nn.Module, aim: nn.Module, sites: Any, *data: Any) -> Any:
        goals.update({site.layer: site.goal.module for site in sites})
        return fit_layers(model, aim, sites, *data)

    monkeypatch.setattr(channel_prune_repair, "fit_layers", noting)
    narrow = ChannelPrune(widths={"blocks.0.conv1": 4}, importance="l1")
    for repair, goal in (("fold_and_bypass", "blocks.0"), ("fold", "blocks.1")):
        drop = BlockDrop.model_validate({"blocks": ("blocks.1",), "repair": repair})
        net, _ = apply_block_drop(task.load_baseline(), task, drop, context)
        assert bool(emptied_blocks(net)) == (repair == "fold")
        apply_channel_prune(net, task, narrow, context)
        assert goals["blocks.0.conv2"] == goal


def test_the_proof_sees_a_bypass_that_was_not_cut_with_the_stream() -> None:
    net, inputs = with_bypass("basic"), inputs_of("basic")
    (stream,) = structure_of(net, "basic").of_kind("embedding")
    partial = replace(stream, slots=tuple(slot for slot in stream.slots if slot.module != "blocks.1.map"))
    narrow = copy.deepcopy(net)
    choice = KeptUnits(partial, tuple(range(0, WIDTH, 2)))
    cut(narrow, [choice])
    with pytest.raises(ValueError, match="does not run with the narrower layers"):
        cut_error(net, narrow, parts_of([choice]), inputs)


def task_with(kind: str, like: StageContext) -> tuple[ClassificationTask, StageContext]:
    data = [torch.cat([part for (part,) in net_inputs(kind, seed)]) for seed in (1, 2, 3)]
    parts = [(one, torch.arange(len(one)) % 5) for one in data]
    build: Callable[[], nn.Module] = lambda: BlockNet(kind)  # noqa: E731
    task = ClassificationTask(
        build, block_net(kind), train=parts[0], validation=parts[1], test=parts[2], fixed_examples=20
    )

    def macs(model: nn.Module) -> int:
        return count_macs(model, task.example_inputs(1)).total

    return task, replace(like, dense=task.load_baseline(), dense_macs=1000, count_macs=macs)


@pytest.mark.parametrize("rank", [None, 3])
@pytest.mark.parametrize("keep", [Keep(conv=0.5), Keep(embedding=0.5), Keep(conv=0.5, embedding=0.5)])
def test_channel_prune_after_a_bypass(keep: Keep, rank: int | None, tiny_context: StageContext) -> None:
    task, context = task_with("basic", tiny_context)
    net = task.load_baseline()
    find_blocks(net, task.example_inputs(1))
    put_bypass(net, "basic", rank, "blocks.1")
    config = ChannelPrune(keep=keep, importance="l1", round_to=1)
    narrow, detail = as_json(apply_channel_prune)(net, task, config, context)
    conv, embedding = round(8 * keep.conv), round(8 * keep.embedding)
    assert [narrow.blocks[place].conv1.weight.shape[:2] for place in (0, 2)] == [(conv, embedding)] * 2
    bypass = stand_ins_of(narrow)["blocks.1"]
    assert isinstance(bypass, LinearBypass)
    assert bypass.last_layer.get_parameter("weight").shape[:2] == (embedding, rank or embedding)
    for one in detail["repairs"]:
        assert one["calibration_error"]["after"] <= one["calibration_error"]["before"]
    refitted = {one["layer"] for one in detail["repairs"]}
    assert ("blocks.1.map" in refitted) == (rank is None and keep.embedding < 1)
