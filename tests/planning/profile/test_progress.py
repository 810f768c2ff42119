"""What is shown while the parts of a model are timed or counted, and while plans are scored."""

from __future__ import annotations

import io
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from tests.helpers.random_tables import LATENCY, random_tables
from tests.helpers.tiny_task import TinyNet, TinyTask
from toolkit.base.console import Console
from toolkit.planning.plan_search import PlanSearch
from toolkit.planning.profile import costs, gather
from toolkit.planning.profile.costs import TimingSettings
from toolkit.planning.profile.model_profile import ModelProfile

SKIPPED_S = 20.0  # by the clock of `profile_in` at every look, so that every advance writes a line


class Timings:
    """Stands for the timing of a pair of models; the timing after the first `stop_after` ones is interrupted."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.number, self.stop_after = 0, stop_after

    def __call__(self, *_: Any, **__: Any) -> Any:
        if self.number == self.stop_after:
            raise KeyboardInterrupt
        self.number += 1
        return SimpleNamespace(ratio=0.5)


class TwoBlocks(TinyTask):
    """Is the tiny task with a model of two blocks."""

    def build_model(self) -> nn.Module:
        return TinyNet(2)


@pytest.fixture(scope="module")
def found() -> ModelProfile:
    """Returns the profile of a model whose possible changes are found, which takes longest."""
    timing = TimingSettings(torch.device("cpu"), (), 1)
    profile = ModelProfile(TwoBlocks(1), timing, Path(), Console(io.StringIO()), round_to=16)
    assert profile.space.blocks
    return profile


def profile_in(folder: Path, found: ModelProfile, batch_sizes: tuple[int, ...]) -> tuple[ModelProfile, io.StringIO]:
    stream, seconds = io.StringIO(), iter(range(10**6))
    console = Console(stream, clock=lambda: SKIPPED_S * next(seconds))
    timing = TimingSettings(torch.device("cpu"), batch_sizes, 1)
    profile = ModelProfile(found.task, timing, folder, console, round_to=16)
    vars(profile).update(dense=found.dense, space=found.space)
    return profile, stream


def counted(stream: io.StringIO, title: str) -> list[tuple[int, int]]:
    return [(int(done), int(total)) for done, total in re.findall(rf"{title}: (\d+)/(\d+)", stream.getvalue())]


def test_timings_are_counted_and_kept_one_by_one(
    tmp_path: Path, found: ModelProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gather, "fit_plans", lambda raw: [])  # whole models, which are another step
    everything = Timings()
    monkeypatch.setattr(costs, "measure_latency", everything)
    profile, stream = profile_in(tmp_path / "whole", found, (1,))
    assert profile.cost_tables.blocks
    shown = counted(stream, "timing parts")
    total = shown[0][1]
    assert total > len(profile.space.streams) + len(profile.space.blocks)
    assert {done for done, _ in shown} == set(range(total + 1)), "each one is shown where they are slow"
    assert {of for _, of in shown} == {total}

    stopped = Timings(stop_after=5)
    monkeypatch.setattr(costs, "measure_latency", stopped)
    first, first_stream = profile_in(tmp_path / "stopped", found, (1,))
    with pytest.raises(KeyboardInterrupt):
        _ = first.cost_tables
    assert 0 < counted(first_stream, "timing parts")[-1][0] < total
    rest = Timings()
    monkeypatch.setattr(costs, "measure_latency", rest)
    again, _ = profile_in(tmp_path / "stopped", found, (1,))
    assert again.cost_tables == profile.cost_tables
    assert stopped.number + rest.number == everything.number, "a stopped plan goes on within a part"


def test_without_a_latency_parts_are_counted(
    tmp_path: Path, found: ModelProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gather, "fit_plans", lambda raw: [])
    profile, stream = profile_in(tmp_path, found, ())
    assert profile.cost_tables.blocks
    assert counted(stream, "counting parts")[-1][0] > 3
    assert "timing" not in stream.getvalue()


def test_scores_are_not_counted_above_their_total(
    tmp_path: Path, found: ModelProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile, stream = profile_in(tmp_path, found, ())
    vars(profile)["tables"] = random_tables(0)
    monkeypatch.setattr(ModelProfile, "score", lambda _, choice, order: 1.0 + len(repr((choice.key(), order))) % 7)
    assert PlanSearch(profile, 2, 0, num_finalists=0).best({LATENCY: 0.5}, "combined") is not None
    shown = counted(stream, re.escape("scoring plans (combined)"))
    assert len({total for _, total in shown[:-1]}) == 1, "the total holds from the start"
    assert shown[-1][0] == shown[-1][1] <= shown[0][1], "and the last line is the end"
