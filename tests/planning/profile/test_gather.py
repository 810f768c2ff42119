"""From times of parts to times of whole models, and tables from their two halves."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.helpers.random_tables import LATENCY, random_tables
from toolkit.base.console import Console
from toolkit.planning.profile.costs import TimingSettings
from toolkit.planning.profile.gather import (
    anchored,
    corrected,
    drop_name,
    fit_plans,
    fit_widths,
    stream_name,
    width_name,
    with_losses,
)
from toolkit.planning.profile.store import Store
from toolkit.planning.tables import Plan, Tables, added_loss, cost

SAVED = 0.6
TIMING = TimingSettings(torch.device("cpu"), (1,), 2)


def profiler_of(raw: Tables, folder: Path) -> Any:
    """Whole models in which widths save six tenths of what they save in their blocks."""
    truth = corrected(raw, {LATENCY: SAVED})
    plans = iter(fit_plans(raw))

    class Measured(Store):
        def get(self, name: str, measure: object) -> list[float]:
            return [cost(truth, next(plans), LATENCY)]

    return SimpleNamespace(timing=TIMING, store=Measured(folder / "costs.json", {}, {}))


def test_what_widths_save_in_whole_models_is_found(tmp_path: Path) -> None:
    raw = random_tables(0, num_contexts=2)
    found = fit_widths(raw, fit_plans(raw), profiler_of(raw, tmp_path), Console(io.StringIO()))
    assert found == {LATENCY: pytest.approx(SAVED)}
    before, after = raw.contexts[1], corrected(raw, found).contexts[1]
    assert after.blocks == before.blocks and after.rest == before.rest, "whole models without widths are exact as timed"


def test_an_error_in_the_time_of_a_block_is_not_counted_for_every_block() -> None:
    """The whole and the bare model are as timed, whatever was found for the blocks by themselves."""
    raw = random_tables(0)
    context, homes = raw.contexts[0], {group.name: group.block for group in raw.groups}
    off = {name: {**costs, LATENCY: 1.3 * costs[LATENCY]} for name, costs in context.blocks.items()}
    whole = {key: context.rest[key] + sum(costs[key] for costs in context.blocks.values()) for key in context.rest}
    found = anchored(context.model_copy(update={"blocks": off}), whole, homes)
    assert found.rest == context.rest
    for name, costs in context.blocks.items():
        assert found.blocks[name] == pytest.approx(costs)
    for group, widths in context.groups.items():
        share = 1 / 1.3 if homes[group] else 1.0
        for before, after in zip(widths, found.groups[group], strict=True):
            assert after[LATENCY] == pytest.approx(share * before[LATENCY])
            assert after["macs"] == pytest.approx(before["macs"])


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
    choice = Plan(1, frozenset({"blocks.2"}), {"blocks.0.mlp": 3})
    assert added_loss(joined, choice) == pytest.approx(added_loss(whole, choice))
    assert cost(joined, choice, "macs") == cost(whole, choice, "macs")
    assert joined.dense_loss == 1.0
