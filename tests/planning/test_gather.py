"""The correction from parts to whole models, and tables from their two halves."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from random_tables import random_tables

from toolkit.console import Console
from toolkit.planning.gather import (
    Correction,
    corrected,
    drop_name,
    fit_plans,
    fit_whole_models,
    stream_name,
    width_name,
    with_losses,
)
from toolkit.planning.store import Store
from toolkit.planning.tables import Choice, Tables, added_loss, cost

TRUE = Correction(constant=0.04, blocks=0.9, widths=0.6)


def profiler_of(raw: Tables, folder: Path) -> Any:
    """Whole models that take a constant, nine tenths of what blocks take alone, and save six tenths of the widths'."""
    truth = corrected(raw, {"latency@1": TRUE})
    plans = iter(fit_plans(raw))

    class Measured(Store):
        def get(self, name: str, measure: object) -> list[float]:
            return [cost(truth, next(plans), "latency@1")]

    return SimpleNamespace(timing=SimpleNamespace(batch_sizes=(1,)), store=Measured(folder / "costs.json", {}, {}))


def test_the_correction_is_found(tmp_path: Path) -> None:
    raw = random_tables(0, num_contexts=2)
    raw = raw.model_copy(update={"contexts": tuple(_with_rest(one) for one in raw.contexts)})
    found = fit_whole_models(raw, fit_plans(raw), profiler_of(raw, tmp_path), Console(io.StringIO()))["latency@1"]
    dense = cost(corrected(raw, {"latency@1": TRUE}), Choice(), "latency@1")
    assert dense == pytest.approx(1.0), "made so, since the dense model is one of the points"
    assert (found.constant, found.blocks, found.widths) == pytest.approx((0.04, 0.9, 0.6), abs=1e-6)


def _with_rest(context: Any) -> Any:
    """So much outside of the blocks that the dense model takes 1 after the true correction."""
    blocks = sum(costs["latency@1"] for costs in context.blocks.values())
    return context.model_copy(
        update={"rest": {**context.rest, "latency@1": 1.0 - TRUE.constant - TRUE.blocks * blocks}}
    )


def test_plans_to_fit_on_are_the_same_on_every_call_and_cover_both_axes() -> None:
    raw = random_tables(1, num_contexts=2)
    plans = fit_plans(raw)
    assert plans == fit_plans(raw)
    assert sum(not plan.dropped for plan in plans) >= 8 and any(plan.dropped for plan in plans)
    assert any(plan.context for plan in plans)


def test_losses_join_costs() -> None:
    whole = random_tables(2, num_contexts=2)
    losses = {"dense": 1.0}
    losses |= {drop_name(block.name): 1.0 + block.loss for block in whole.blocks}
    for group in whole.groups:
        pairs = zip(group.widths[1:], group.losses[1:], strict=True)
        losses |= {width_name(group.name, width): 1.0 + loss for width, loss in pairs}
    losses |= {stream_name(one.label): 1.0 + one.loss for one in whole.contexts if one.widths}
    bare = whole.model_copy(
        update={
            "dense_loss": 0.0,
            "blocks": tuple(one.model_copy(update={"loss": 0.0}) for one in whole.blocks),
            "groups": tuple(one.model_copy(update={"losses": (0.0,) * len(one.widths)}) for one in whole.groups),
            "contexts": tuple(one.model_copy(update={"loss": 0.0}) for one in whole.contexts),
        }
    )
    joined = with_losses(bare, losses)
    choice = Choice(1, frozenset({"blocks.2"}), {"blocks.0.mlp": 3})
    assert added_loss(joined, choice) == pytest.approx(added_loss(whole, choice))
    assert cost(joined, choice, "macs") == cost(whole, choice, "macs")
    assert joined.dense_loss == 1.0
