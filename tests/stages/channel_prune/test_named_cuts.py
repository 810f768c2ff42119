"""Stages that are told exactly what to cut, and the control that forgets what was learnt."""

from __future__ import annotations

import copy

import pytest
import torch
from pydantic import ValidationError

from tests.helpers.details import as_json
from tests.helpers.tiny_task import TinyTask
from toolkit.base.errors import StageError
from toolkit.blocks.dropped import dropped_blocks
from toolkit.stages.block_drop.apply import apply_block_drop
from toolkit.stages.block_drop.settings import BlockDrop
from toolkit.stages.channel_prune.apply import apply_channel_prune
from toolkit.stages.channel_prune.settings import ChannelPrune, Heads, Keep
from toolkit.stages.context import StageContext
from toolkit.stages.reinitialise.apply import apply_reinitialise
from toolkit.stages.reinitialise.settings import Reinitialise


def fresh(context: StageContext) -> torch.nn.Module:
    return copy.deepcopy(context.dense).requires_grad_(True)


def test_named_blocks_go_in_that_order(tiny_task: TinyTask, tiny_context: StageContext) -> None:
    config = BlockDrop(blocks=("blocks.2", "blocks.1"))
    model, detail = as_json(apply_block_drop)(fresh(tiny_context), tiny_task, config, tiny_context)
    assert dropped_blocks(model) == ["blocks.1", "blocks.2"]
    assert detail["dropped"] == ["blocks.2", "blocks.1"] and detail["remaining"] == ["blocks.0", "blocks.3"]
    assert all(one["repair"] is not None and not one["scores"] for one in detail["rounds"])


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        (("blocks.1", "blocks.9"), "blocks.9: no such block is left; choose among: blocks.0, blocks.1"),
        (("blocks.0", "blocks.1", "blocks.2", "blocks.3"), "must stay"),
    ],
)
def test_blocks_that_cannot_go(
    tiny_task: TinyTask, tiny_context: StageContext, blocks: tuple[str, ...], message: str
) -> None:
    with pytest.raises(StageError, match=message):
        as_json(apply_block_drop)(fresh(tiny_context), tiny_task, BlockDrop(blocks=blocks), tiny_context)


def test_widths_to_the_unit(tiny_task: TinyTask, tiny_context: StageContext) -> None:
    config = ChannelPrune(widths={"blocks.0.mlp.fc1": 13, "blocks.3.attn": Heads(heads=1, head_dim=6)})
    model, detail = as_json(apply_channel_prune)(fresh(tiny_context), tiny_task, config, tiny_context)
    assert model.get_submodule("blocks.0.mlp.fc1").out_features == 13
    assert model.get_submodule("blocks.3.attn.q").out_features == 6
    assert model.get_submodule("blocks.1.mlp.fc1").out_features == 32
    kept = {(group["name"], group["kind"]): group["kept"] for group in detail["groups"]}
    assert kept == {("blocks.0.mlp.fc1", "mlp"): 13, ("blocks.3.attn", "heads"): 1, ("blocks.3.attn", "head_dim"): 6}
    assert detail["repairs"]


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ({"blocks.7.mlp.fc1": 8}, "blocks.7.mlp.fc1 cannot be cut: there is no such group; what can be cut: blocks.0"),
        ({"blocks.0.mlp.fc1": 33}, "cannot keep 33 mlp: it has 32"),
        ({"blocks.0.mlp.fc1": Heads(heads=1)}, "takes a number of channels"),
        ({"blocks.0.attn": 1}, r"takes \{heads: H, head_dim: D\}"),
        ({"blocks.0.attn": Heads(heads=3)}, "cannot keep 3 heads: it has 2"),
        ({"blocks.0.attn": Heads(heads=2, head_dim=9)}, "cannot keep 9 head_dim: it has 8"),
    ],
)
def test_widths_that_cannot_be(
    tiny_task: TinyTask, tiny_context: StageContext, widths: dict[str, int | Heads], message: str
) -> None:
    with pytest.raises(StageError, match=message):
        as_json(apply_channel_prune)(fresh(tiny_context), tiny_task, ChannelPrune(widths=widths), tiny_context)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BlockDrop(blocks=("a",), num_blocks=1), "num_blocks: cannot be combined with `blocks`"),
        (lambda: BlockDrop(blocks=("a",), criterion="loss"), "criterion: cannot be combined"),
        (lambda: BlockDrop(blocks=("a", "a")), "blocks has a twice"),
        (lambda: ChannelPrune(widths={"a": 1}, keep=Keep(mlp=0.5)), "exactly one of keep, macs_ratio and widths"),
        (lambda: ChannelPrune(widths={"a": 1}, round_to=4), "round_to: cannot be combined with `widths`"),
        (ChannelPrune, "exactly one of keep, macs_ratio and widths"),
    ],
)
def test_settings_without_use(make: object, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        make()  # type: ignore[operator]


def test_reinitialise_forgets_everything(tiny_task: TinyTask, tiny_context: StageContext) -> None:
    model, _ = as_json(apply_block_drop)(fresh(tiny_context), tiny_task, BlockDrop(blocks=("blocks.1",)), tiny_context)
    before = {name: value.clone() for name, value in model.state_dict().items() if value.std() > 0}
    model, detail = as_json(apply_reinitialise)(model, tiny_task, Reinitialise(), tiny_context)
    after = model.state_dict()
    changed = [name for name, value in before.items() if not torch.equal(value, after[name])]
    assert len(changed) == len(before) and detail["reinitialised"] == len(after)
    again, _ = as_json(apply_reinitialise)(copy.deepcopy(model), tiny_task, Reinitialise(), tiny_context)
    assert all(torch.equal(value, after[name]) for name, value in again.state_dict().items())


def test_reinitialise_needs_the_shapes_of_the_task(tiny_task: TinyTask, tiny_context: StageContext) -> None:
    narrow = ChannelPrune(keep=Keep(mlp=0.5))
    model, _ = as_json(apply_channel_prune)(fresh(tiny_context), tiny_task, narrow, tiny_context)
    with pytest.raises(StageError, match=r"fc1.weight is not as in the unmodified model"):
        as_json(apply_reinitialise)(model, tiny_task, Reinitialise(), tiny_context)
