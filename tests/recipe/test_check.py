"""Recipes that are well formed and cannot do what they say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from toolkit.base.errors import UserError
from toolkit.recipe.check import check, check_task
from toolkit.recipe.compose import compose
from toolkit.recipe.estimate import duration_text, estimate_s
from toolkit.recipe.recipe import Measure, Recipe
from toolkit.stages.block_drop.settings import BlockDrop
from toolkit.stages.channel_prune.settings import ChannelPrune, Keep
from toolkit.stages.recover.settings import Recover
from toolkit.stages.settings import Stage
from toolkit.tasks.cards import TASKS, make_task
from toolkit.tasks.contract import TaskCard, TaskCosts

COSTS = TaskCosts(start_s=1000.0, evaluate_s=100.0, score_pass_s=1.0, recover_step_s=0.5, prune_s=10.0, forward_s=0.25)
CARD = TaskCard("toy", "", "toy:Toy", num_blocks=4, criteria=("loss",), metric="accuracy", kinds=("mlp",), costs=COSTS)
MEASURE = Measure(batch_sizes=(1, 3), repeats=3, warmup=1, splits=("test",))
MEASURE_S = 100.0 + (1 + 3) * (3 + 1) * 2 * 0.25


def drop(num_blocks: int | None = None, **settings: object) -> BlockDrop:
    return BlockDrop.model_validate({"num_blocks": num_blocks, "criterion": "loss", **settings})


def recipe(*stages: Stage) -> Recipe:
    return Recipe(name="x", task="toy", seed=0, device="cpu", stages=stages, measure=MEASURE)


def places(*stages: Stage) -> list[str]:
    return [fault.place for fault in check(recipe(*stages), CARD)]


def test_one_block_must_be_left() -> None:
    assert places(drop(3)) == []
    assert places(drop(4)) == ["stages.0.num_blocks"]
    assert places(drop(2), Recover(), drop(1)) == []
    faults = check(recipe(drop(2), drop(2)), CARD)
    assert [fault.message for fault in faults] == [
        "2 leaves no block: toy has 4 and earlier stages drop 2; drop at most 1 here"
    ]


def test_what_the_task_does_not_offer() -> None:
    assert places(drop(1, criterion="block_mse")) == ["stages.0.criterion"]
    assert places(ChannelPrune(keep=Keep(mlp=0.5, heads=0.5))) == ["stages.0.keep.heads"]
    assert places(ChannelPrune(macs_ratio=0.5, scope=("mlp", "head_dim"))) == ["stages.0.scope.1"]
    assert check(recipe(drop(9, criterion="block_mse")), None) == []  # a user's own task has no card


def test_ratios_are_of_the_unmodified_model() -> None:
    prune = ChannelPrune(macs_ratio=0.5, scope=("mlp",))
    assert places(drop(macs_ratio=0.6), prune) == []
    assert places(drop(macs_ratio=0.5), prune) == ["stages.1.macs_ratio"]
    assert places(drop(macs_ratio=0.4), prune) == ["stages.1.macs_ratio"]
    assert places(drop(macs_ratio=0.4), prune.model_copy(update={"allow_no_change": True})) == []
    assert places(drop(macs_ratio=1.0)) == ["stages.0.macs_ratio"]


def test_keep_that_changes_nothing() -> None:
    half = ChannelPrune(keep=Keep(mlp=0.5))
    assert places(half) == []
    assert places(ChannelPrune(keep=Keep())) == ["stages.0.keep"]
    assert places(ChannelPrune(keep=Keep(), allow_no_change=True)) == []
    assert places(half, half) == ["stages.1.keep"]
    assert places(half, ChannelPrune(keep=Keep(mlp=0.25))) == []


def test_unknown_task() -> None:
    assert check_task("tad-watch") == []
    assert [fault.message for fault in check_task("tad")] == [
        f'"tad" is not a known task; choose one of: {", ".join(TASKS)}; your own: give its file with --task FILE.py'
    ]
    with pytest.raises(UserError, match="'tad' is not a known task; choose one of: tad-watch"):
        make_task("tad")


def test_cards_are_named_after_their_key() -> None:
    assert TASKS
    assert {name: card.name for name, card in TASKS.items()} == {name: name for name in TASKS}


def test_make_task_calls_the_factory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "toy", replace(CARD, factory="collections:OrderedDict"))
    assert make_task("toy") == {}


def test_estimate() -> None:
    nothing_s = 1000.0 + MEASURE_S
    assert estimate_s(recipe(), CARD) == nothing_s
    assert estimate_s(recipe(drop(2)), CARD) == nothing_s + (3 + 2.5) * 1.0 + 10.0 + MEASURE_S
    assert estimate_s(recipe(drop(2, reuse_prefix=False)), CARD) == nothing_s + (4 + 3) * 1.0 + 10.0 + MEASURE_S
    assert estimate_s(recipe(drop(2, verify_selection=True)), CARD) == nothing_s + 12.5 * 1.0 + 10.0 + MEASURE_S
    assert estimate_s(recipe(drop(2, criterion="random")), CARD) == nothing_s + 10.0 + MEASURE_S
    assert estimate_s(recipe(drop(2, criterion="block_mse")), CARD) == nothing_s + 2 * 2.0 + 10.0 + MEASURE_S
    assert estimate_s(recipe(drop(macs_ratio=0.5)), CARD) == estimate_s(recipe(drop(2)), CARD)
    assert estimate_s(recipe(drop(1), drop(1)), CARD) == nothing_s + (3 + 2.5) * 1.0 + 2 * (10.0 + MEASURE_S)
    assert estimate_s(recipe(ChannelPrune(keep=Keep(mlp=0.5))), CARD) == nothing_s + 10.0 + MEASURE_S
    recover = Recover(max_steps=100, validate_every=30)
    assert estimate_s(recipe(recover), CARD) == nothing_s + 100 * 0.5 + 4 * 100.0 + MEASURE_S


def test_duration_text() -> None:
    assert duration_text(41.6) == "about 42 s"
    assert duration_text(361) == "about 6 min"


def test_composed_recipe_is_sound() -> None:
    assert check(compose(task="tad-watch", depth=BlockDrop(num_blocks=3)), TASKS["tad-watch"]) == []
