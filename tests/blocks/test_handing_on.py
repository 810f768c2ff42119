"""Blocks that return more than their stream: what came in goes out of a dropped one, or it is no candidate."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.details import as_json
from tests.helpers.detector_net import DetectorNet, DetectorTask, detector_inputs
from tests.helpers.handing_on_nets import (
    C,
    Cache,
    Chain,
    DataclassFromPlain,
    InDataclass,
    InDict,
    InNamedTuple,
    MaskFirst,
    NamedTupleFromPlain,
    Nested,
    Positional,
    State,
    WithCache,
    WithLoss,
    adding_losses,
    by_attribute,
    collecting,
    through_dataclass,
    through_dict,
    through_named_tuple,
)
from toolkit import load_model
from toolkit.base.errors import StageError
from toolkit.blocks.drop import drop_block
from toolkit.blocks.dropped import stand_ins_of
from toolkit.blocks.find import find_blocks, look_for_blocks
from toolkit.channels.find import find_groups
from toolkit.checkpoint.save import save_model
from toolkit.hooks.tensors import copied
from toolkit.measure.macs import count_macs
from toolkit.stages.block_drop.apply import apply_block_drop
from toolkit.stages.block_drop.settings import BlockDrop
from toolkit.stages.channel_prune.apply import apply_channel_prune
from toolkit.stages.channel_prune.settings import ChannelPrune, Keep
from toolkit.stages.context import StageContext

HANDS_ON: dict[str, Callable[[], nn.Module]] = {
    "a mask behind the stream": lambda: Chain(Positional, lambda block, x, mask, _: block(x, mask)),
    "by keyword": lambda: Chain(Positional, lambda block, x, mask, _: block(x=x, mask=mask)),
    "the mask first": lambda: Chain(MaskFirst, lambda block, x, mask, _: block(mask, x)[::-1]),
    "the mask first, by keyword": lambda: Chain(MaskFirst, lambda block, x, mask, _: block(mask=mask, x=x)[::-1]),
    "a dictionary": lambda: Chain(InDict, through_dict),
    "a frozen dataclass": lambda: Chain(InDataclass, through_dataclass),
    "a named tuple": lambda: Chain(InNamedTuple, through_named_tuple),
    "a named tuple made of plain arguments": lambda: Chain(NamedTupleFromPlain, by_attribute),
    "a dataclass made of plain arguments": lambda: Chain(DataclassFromPlain, by_attribute),
    "an object": lambda: Chain(WithCache, lambda block, x, mask, _: block(x, mask, Cache())[:2]),
    "a loss that nobody reads": lambda: Chain(WithLoss, lambda block, x, mask, _: (block(x, mask)[0], mask)),
}

IDS = torch.tensor([[3, 5, 7, 0], [1, 0, 0, 0]])


@pytest.mark.parametrize("case", HANDS_ON)
def test_what_came_in_goes_out(case: str) -> None:
    torch.manual_seed(0)
    net = HANDS_ON[case]().eval()
    assert find_blocks(net, (IDS,)) == ["blocks.0", "blocks.1", "blocks.2"]
    wanted = net.embed(IDS)
    for number in (2, 0):
        drop_block(net, f"blocks.{number}")
    wanted = net.blocks[1].work(wanted, IDS != 0)
    assert torch.equal(net(IDS)[0], wanted)


@pytest.mark.parametrize("case", ["a mask behind the stream", "a dictionary", "a dataclass made of plain arguments"])
def test_it_still_does_when_saved_and_loaded(case: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    dense, net = HANDS_ON[case]().eval(), HANDS_ON[case]().eval()
    find_blocks(net, (IDS,))
    drop_block(net, "blocks.1")
    save_model(tmp_path / "saved", net, dense, factory={"task": "mine"}, example_inputs=(IDS,), recipe_sha256=None)
    assert torch.equal(load_model(tmp_path / "saved", dense)(IDS)[0], net(IDS)[0])


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "a loss that is added up": (
        lambda: Chain(WithLoss, adding_losses),
        "returns more than its stream .entry 1. that none of its inputs can replace, and the model does not "
        "run without it: TypeError",
    ),
    "a loss that the model puts out": (
        lambda: Chain(WithLoss, collecting, 4),
        "without it the model returns 3 tensors",
    ),
    "a tuple in a tuple": (lambda: Chain(Nested, lambda block, x, mask, _: block(x, mask)[0]), ""),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_go_out_makes_no_candidate(case: str) -> None:
    build, reason = REFUSED[case]
    net = build().eval()
    found = look_for_blocks(net, (IDS,))
    assert found.names == ()
    assert not reason or re.search(reason, found.refused["blocks.1"])
    assert not stand_ins_of(net)


class Switched(nn.Module):
    """Gradients are off in the forward code, or the stream is cut off the graph before every block."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.embed, self.blocks = way, nn.Linear(C, C), nn.ModuleList(Positional() for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x, mask = self.embed(x), x[..., 0] > -9
        for block in self.blocks:
            x = self._run(block, x.detach() if self.way == "detached" else x, mask)
        return x

    def _run(self, block: nn.Module, x: Tensor, mask: Tensor) -> Tensor:
        if self.way == "decorated":
            return torch.no_grad()(block)(x, mask)[0]
        with torch.set_grad_enabled(self.way == "detached"):
            return block(x, mask)[0]


@pytest.mark.parametrize("way", ["decorated", "with a context", "detached"])
def test_streams_without_gradients_are_found(way: str) -> None:
    net, inputs = Switched(way).eval(), torch.randn(1, 3, C)
    assert find_blocks(net, (inputs,)) == ["blocks.0", "blocks.1"]
    assert torch.is_grad_enabled()
    assert way == "detached" or net(inputs).grad_fn is None  # the model's own code does what it did


class InPlace(nn.Module):
    """The work is added in place: to all of the stream, to a part of it, or where a condition holds."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.layer, self.way = nn.Linear(C, C), way

    def forward(self, x: Tensor) -> Tensor:
        work = torch.tanh(self.layer(x))
        if self.way == "a slice":
            x[:, 1:] += work[:, 1:]
        elif self.way == "an assignment":
            x[:, :2] = x[:, :2] + work[:, :2]
        elif self.way == "where":
            x = torch.where(x > 0, x + work, x)
        else:
            x.add_(work)
        return x


@pytest.mark.parametrize("way", ["all", "a slice", "an assignment", "where"])
def test_streams_that_are_changed_in_place_are_found(way: str) -> None:
    net, inputs = nn.Sequential(nn.Linear(C, C), InPlace(way), InPlace(way)).eval(), torch.randn(2, 4, C)
    assert find_blocks(net, (inputs,)) == ["1", "2"]
    drop_block(net, "1")
    assert torch.equal(net(inputs), net[2](net[0](inputs)))


def test_modules_like_the_blocks_are_named_with_the_reason() -> None:
    torch.manual_seed(0)
    found = look_for_blocks(DetectorNet().eval(), detector_inputs(1))
    assert found.names == ("stem.0", "stem.1", "stem.2")
    assert found.refused == {
        "branch.0": "it returns [1, 16, 8] of float32 where [1, 16, 16] of float32 comes in",
        "branch.1": "it returns [1, 16, 4] of float32 where [1, 16, 8] of float32 comes in",
    }
    task, config = DetectorTask(), BlockDrop(blocks=("branch.0",))
    context = context_of(task, None)
    with pytest.raises(StageError, match=r"branch.0 cannot be dropped: it returns \[1, 16, 8\]"):
        apply_block_drop(context.dense, task, config, context)


class Repeats(nn.Module):
    """One block over and over, and one that stands in two places under different names."""

    def __init__(self) -> None:
        super().__init__()
        self.again, self.first = InPlace("where"), InPlace("where")
        self.second = self.first

    def forward(self, x: Tensor) -> Tensor:
        for block in (self.again, self.again, self.first, self.again, self.second):
            x = block(x)
        return x


def test_blocks_that_are_called_more_than_once_are_named() -> None:
    found = look_for_blocks(nn.Sequential(nn.Linear(C, C), Repeats()).eval(), (torch.randn(2, 3, C),))
    assert found.names == ()
    assert found.refused["1.again"] == "it is called 3 times in one pass, and dropping it would drop all of its calls"
    assert "it stands in several places" in found.refused["1.first"]


def context_of(task: DetectorTask, console: Any) -> StageContext:
    def macs(model: nn.Module) -> int:
        return count_macs(model, task.example_inputs(1)).total

    dense = task.load_baseline()
    return StageContext(dense, macs(dense), macs, torch.device("cpu"), 0, console)


@pytest.mark.parametrize("repair", ["none", "fold", "bypass", "fold_and_bypass"])
def test_stem_blocks_of_a_detector_drop(repair: str, tiny_context: StageContext, tmp_path: Path) -> None:
    task = DetectorTask()
    context = context_of(task, tiny_context.console)
    settings = BlockDrop.model_validate(
        {"num_blocks": 2, "criterion": "loss", "repair": repair, "max_quality_drop": None}
    )
    model, detail = as_json(apply_block_drop)(task.load_baseline(), task, settings, context)
    assert len(detail["dropped"]) == 2 and set(detail["dropped"]) < {"stem.0", "stem.1", "stem.2"}
    repaired = [entry["kind"] for one in detail["rounds"] for entry in one["repairs"] if entry]
    assert bool(repaired) == ("bypass" in repair)  # a mask on the work of each block hides what a fold could join
    assert len(stand_ins_of(model)) == 2
    inputs = task.example_inputs(2)
    x, mask = model.embed(*inputs)
    for block in model.stem:
        x, after = block(x, mask)
        assert torch.equal(after, mask)
    save_model(tmp_path / "m", model, context.dense, factory={"task": "x"}, example_inputs=inputs, recipe_sha256=None)
    assert torch.allclose(load_model(tmp_path / "m", DetectorNet())(*inputs), model(*inputs), atol=1e-6)


def test_heads_and_mlps_of_a_detector_are_cut(tiny_context: StageContext) -> None:
    task = DetectorTask()
    model, detail = as_json(apply_channel_prune)(
        task.load_baseline(),
        task,
        ChannelPrune(keep=Keep(mlp=1.0, heads=0.5, conv=0.5), round_to=4),
        context_of(task, tiny_context.console),
    )
    kept = {entry["name"]: entry["kept"] for entry in detail["groups"] if entry["kind"] in ("heads", "conv")}
    blocks = [f"stem.{number}" for number in range(3)] + [f"branch.{number}" for number in range(2)]
    assert {kept[f"{block}.attn"] for block in blocks} == {2}
    assert {kept[f"{block}.mlp.0"] for block in blocks} == {16}
    assert kept["head.conv"] == 8  # called at three levels
    assert not {"head.conv", "logits.conv"} & {entry["layer"] for entry in detail["repairs"]}  # no fit serves them all
    assert model.stem[0].attn.query.out_channels == model.branch[0].attn.inner == 8


def test_heads_that_forward_code_cannot_lose_are_refused_with_its_words() -> None:
    torch.manual_seed(0)
    net, inputs = DetectorNet(reads_width=True).eval(), detector_inputs(1)
    found = find_groups(net, inputs, find_blocks(net, inputs))
    assert "stem.0.mlp.0" in {group.name for group in found.groups}
    assert not found.of_kind("attention")
    assert "its forward code does not run with the narrower layers" in found.refused["stem.0.attn"]


def test_tensors_in_dataclasses_are_copied_too() -> None:
    """What a block returned is kept for the next candidate, and models may change it in place."""
    state = State(torch.zeros(2), torch.ones(2))
    kept = copied({"a": (state, [state.x])})
    state.x.add_(1)
    assert kept["a"][0].x.sum() == 0 and kept["a"][1][0].sum() == 0 and isinstance(kept["a"][0], State)
