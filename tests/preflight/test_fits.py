"""Stages that ask for more blocks than the model has are refused before any work."""

from __future__ import annotations

from typing import Any

import pytest

from toolkit.base.errors import StageError
from toolkit.preflight.fits import check_fits
from toolkit.preflight.report import Answer, PartVerdict, Preflight
from toolkit.recipe.recipe import Recipe


def preflight(names: list[str], refused: dict[str, str] | None = None, answer: Any = "yes") -> Preflight:
    parts = [PartVerdict(name=name, can_go=True, kind="block") for name in names]
    parts += [PartVerdict(name=name, can_go=False, reason=reason) for name, reason in (refused or {}).items()]
    return Preflight(
        model="net",
        num_params=1,
        macs=1,
        batch_size=2,
        answers=(Answer(question="blocks", answer=answer),),
        blocks=tuple(parts),
        channels=(),
    )


def recipe(*stages: dict[str, Any]) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "r",
            "task": "own",
            "seed": 0,
            "device": "cpu",
            "stages": [{"type": "block_drop", **stage} for stage in stages],
            "measure": {},
        }
    )


FOUR = ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    "stages", [[{"num_blocks": 3}], [{"num_blocks": 2}, {"num_blocks": 1}], [{"blocks": ["a", "c"]}]]
)
def test_what_fits(stages: list[dict[str, Any]]) -> None:
    check_fits(recipe(*stages), preflight(FOUR))


@pytest.mark.parametrize(
    ("stages", "index", "message"),
    [
        (
            [{"num_blocks": 4}],
            0,
            "num_blocks is 4, but the model has 4 blocks (a, b, c, d) and one must stay: at most 3",
        ),
        (
            [{"num_blocks": 2}, {"num_blocks": 2}],
            1,
            "has 4 blocks (a, b, c, d), 2 are dropped before and one must stay: at most 1",
        ),
        ([{"blocks": ["a", "z"]}], 0, "z cannot be dropped: there is no such block; choose among: a, b, c, d"),
        ([{"blocks": ["e"]}], 0, "e cannot be dropped: it changes the shape of the stream; choose among"),
    ],
)
def test_what_does_not_fit(stages: list[dict[str, Any]], index: int, message: str) -> None:
    with pytest.raises(StageError) as caught:
        check_fits(recipe(*stages), preflight(FOUR, {"e": "it changes the shape of the stream"}))
    assert message in str(caught.value) and caught.value.stage_index == index


def test_nothing_is_said_where_blocks_were_not_looked_for() -> None:
    check_fits(recipe({"num_blocks": 9}), preflight([], answer="not tried"))
