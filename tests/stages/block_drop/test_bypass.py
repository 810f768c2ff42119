"""block_drop with a bypass in the places of blocks: its scores, rounds, record, and what recipes may say of it."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from torch import nn

from tests.helpers.details import as_json
from tests.helpers.records import without_times
from tests.helpers.tiny_task import DIM, TOKENS, TinyNet, TinyTask
from tests.stages.block_drop.test_rounds import ALIGN, Stop, recipe_of, stopping
from tests.stages.block_drop.test_selection import BriefTask, InPlace, LayersTask, Tuples, applied, assert_naive, drop
from toolkit import load_model, run
from toolkit.base.console import Console
from toolkit.base.errors import StageError
from toolkit.blocks.dropped import dropped_blocks, stand_ins_of
from toolkit.blocks.find import find_blocks
from toolkit.hooks.tensors import tensors_in
from toolkit.record.run import load_record
from toolkit.stages.block_drop import apply as block_drop
from toolkit.stages.block_drop.apply import apply_block_drop
from toolkit.stages.block_drop.detail import BlockDropDetail
from toolkit.stages.block_drop.settings import BlockDrop
from toolkit.stages.context import StageContext

NETS = {"plain": lambda: TinyNet(5), "tuples": lambda: Tuples(5), "in place": lambda: InPlace(5)}


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("repair", ["bypass", "fold_and_bypass"])
@pytest.mark.parametrize("criterion", ["loss", "task_metric", "block_mse"])
def test_scores_are_the_naive_ones(net: str, repair: str, criterion: str, tiny_context: StageContext) -> None:
    """Shared prefixes and shared passes change nothing, also where a bypass stands before what is dropped later."""
    detail = applied(
        LayersTask(NETS[net]()), drop(4, criterion=criterion, repair=repair, verify_selection=True), tiny_context
    )
    assert_naive(detail)
    assert len({tuple(one["scores"].values()) for one in detail["rounds"]}) == 4
    kinds = {one["repair"]["kind"] for one in detail["rounds"] if one["repair"]}
    assert kinds and kinds <= {"bypass", repair, "fold"}
    if criterion != "block_mse":
        assert detail["block_passes"]["executed"] < detail["block_passes"]["naive"]


@pytest.mark.slow
@pytest.mark.parametrize("repair", ["bypass", "fold_and_bypass"])
def test_racing_ends_at_the_scores_of_the_naive_way(repair: str, tiny_context: StageContext) -> None:
    config = drop(2, repair=repair, racing="successive_halving")
    plain, shared = (
        applied(BriefTask(), config.model_copy(update={"reuse_prefix": on}), tiny_context) for on in (False, True)
    )
    assert plain["dropped"] == shared["dropped"]
    for one, other in zip(plain["rounds"], shared["rounds"], strict=True):
        assert one["scores"] == pytest.approx(other["scores"], rel=1e-6)


@pytest.mark.parametrize("rank", [None, 3])
@pytest.mark.parametrize("repair", ["bypass", "fold_and_bypass"])
def test_rounds_leave_bypasses_that_cost_what_they_say(
    repair: str, rank: int | None, tiny_task: TinyTask, tiny_context: StageContext
) -> None:
    config = BlockDrop.model_validate({"num_blocks": 3, "criterion": "loss", "repair": repair, "rank": rank})
    model, detail = as_json(apply_block_drop)(tiny_task.load_baseline(), tiny_task, config, tiny_context)
    places = stand_ins_of(model)
    assert sorted(places) == sorted(detail["dropped"]) and len(places) == 3
    assert find_blocks(model, tiny_task.example_inputs(1)) == detail["remaining"]
    assert all(place.arguments.type == "linear_bypass" for place in places.values())
    each = DIM * DIM if rank is None else 2 * rank * DIM
    without = TinyNet(4)
    for name in detail["dropped"]:
        without.blocks[int(name[-1])] = nn.Identity()
    plain = tiny_context.count_macs(without)
    assert tiny_context.count_macs(model) == plain + 3 * TOKENS * each
    for one in detail["rounds"]:
        made = one["repair"]
        assert made["bypass"] == one["dropped"] and made["rank"] == rank
        assert made["kind"] in ("bypass", repair)
        assert made["layer"] == one["dropped"] if made["kind"] == "bypass" else made["layer"] != one["dropped"]
        for errors in (made["calibration_error"], made["holdout_error"]):
            assert errors["after"] < errors["before"]
    typed = BlockDropDetail.model_validate(detail)
    assert [label for label, _ in typed.repair_errors()] == [
        f"round {number}: {one['repair']['layer']}" for number, one in enumerate(detail["rounds"], start=1)
    ]


def test_where_a_fold_has_no_place_the_bypass_stands_alone(tiny_context: StageContext) -> None:
    """A net whose stream begins with its inputs has no layer before its first block."""

    class Headless(TinyNet):
        def __init__(self) -> None:
            super().__init__(3)
            self.embed = nn.Identity()  # type: ignore[assignment]
            self.pad = nn.ConstantPad1d((0, DIM - 5), 0.5)

        def forward(self, x: Any) -> Any:
            return super().forward(self.pad(x))

    said = io.StringIO()
    kinds: dict[str, Any] = {}
    for repair in ("fold", "fold_and_bypass"):
        task = LayersTask(Headless())
        context = replace(tiny_context, dense=task.load_baseline(), count_macs=lambda _: 1, console=Console(said))
        config = BlockDrop.model_validate({"blocks": ["blocks.0"], "repair": repair})
        _, detail = as_json(apply_block_drop)(task.load_baseline(), task, config, context)
        kinds[repair] = detail["rounds"][0]["repair"] and detail["rounds"][0]["repair"]["kind"]
    assert kinds == {"fold": None, "fold_and_bypass": "bypass"}
    assert "repair: bypass may put a linear map in its place" in said.getvalue()


def test_a_rank_above_the_channels_ends_the_stage_before_any_work(
    tiny_task: TinyTask, tiny_context: StageContext
) -> None:
    config = BlockDrop(num_blocks=1, repair="bypass", rank=DIM + 1)
    with pytest.raises(StageError, match=rf"rank is {DIM + 1}, but the stream at blocks\.0 has {DIM} channels"):
        apply_block_drop(tiny_task.load_baseline(), tiny_task, config, tiny_context)


@pytest.fixture(scope="module")
def finished(tiny_task: TinyTask, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bypass") / "finished"
    run(recipe_of(bypassing()), task=tiny_task, out=out)
    return out


def bypassing() -> BlockDrop:
    return BlockDrop(num_blocks=2, criterion="loss", repair="fold_and_bypass", rank=4, align=ALIGN)


def test_a_run_is_loaded_bit_for_bit(finished: Path, tiny_task: TinyTask) -> None:
    detail = load_record(finished).steps[1].detail
    first, second = (load_model(finished, tiny_task.build_model()) for _ in range(2))
    assert sorted(dropped_blocks(first)) == sorted(detail["dropped"])
    inputs = tiny_task.example_inputs(3)
    assert all(map(lambda one, other: one.equal(other), tensors_in(first(*inputs)), tensors_in(second(*inputs))))
    assert tiny_task.evaluate(first, "validation").value == detail["rounds"][1]["validation"]


@pytest.mark.parametrize("name", ["score_candidates", "repaired_variants"])
def test_a_run_that_was_stopped_goes_on_to_the_same_end(
    name: str, finished: Path, tiny_task: TinyTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(block_drop, name, stopping(getattr(block_drop, name), 2))
        with pytest.raises(Stop):
            run(recipe_of(bypassing()), task=tiny_task, out=out)
    run(recipe_of(bypassing()), task=tiny_task, out=out, resume=True)
    assert without_times(load_record(out)) == without_times(load_record(finished))


def test_the_old_name_of_fold_means_the_same_and_keeps_its_hash() -> None:
    old, new, default = (
        recipe_of(BlockDrop.model_validate({"num_blocks": 1, **given}))
        for given in ({"repair": "closed_form"}, {"repair": "fold"}, {})
    )
    assert old == new == default
    assert {one.sha256 for one in (old, new, default)} == {
        "caf9536daa87b0c0bb50301a68147ca94cbf6842ad09a11ed4b6519e7ac1fb7e"
    }  # of the commit before `fold` was a name
    dumped = old.stages[0].model_dump(mode="json")
    assert dumped["repair"] == "closed_form" and "rank" not in dumped
    assert BlockDrop.model_validate(dumped).repair == "fold"


@pytest.mark.parametrize("repair", ["fold", "closed_form", "none"])
def test_a_rank_without_a_bypass_is_a_fault(repair: str) -> None:
    with pytest.raises(ValidationError, match="rank: only with repair: bypass or fold_and_bypass, not "):
        BlockDrop.model_validate({"num_blocks": 1, "repair": repair, "rank": 4})


@pytest.mark.parametrize("rank", [0, -1, 2.0, "4", True])
def test_a_rank_is_a_whole_number_of_channels(rank: Any) -> None:
    with pytest.raises(ValidationError, match="rank"):
        BlockDrop.model_validate({"num_blocks": 1, "repair": "bypass", "rank": rank})


def test_people_are_told_what_stands_in_the_place() -> None:
    assert (
        "a linear map of the stream of rank 4, fitted by" in BlockDrop(num_blocks=1, repair="bypass", rank=4).in_words()
    )
    both = BlockDrop(blocks=("a", "b"), repair="fold_and_bypass").in_words()
    assert "the layer before each cut is repaired by least squares, and a linear map of the stream, fitted" in both
