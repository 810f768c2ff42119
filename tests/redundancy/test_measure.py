"""How figures are measured: bounded in memory and positions, the same every time, on a model that stays as it was."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from tests.helpers.repeating_nets import SignalTask, report_of
from toolkit.base.errors import UserError
from toolkit.redundancy.moments import ChannelMoments
from toolkit.redundancy.statistics import in_groups
from toolkit.tasks.task import Batch, Split


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.Dropout(0.5), nn.Conv2d(4, 8, 1))


def test_examples_and_positions_bound_the_work() -> None:
    model = net()
    task = SignalTask(model, (3, 10, 10), examples=40)
    report = report_of(task, model, examples=20, positions=7)
    assert [(layer.fitted_on, layer.measured_on) for layer in report.layers] == [(140, 140)] * 3
    assert (report.examples, report.positions, report.task) == (20, 7, "signals")


def test_the_seed_fixes_the_figures_and_another_gives_others() -> None:
    model = net()
    task = SignalTask(model, (3, 10, 10))
    first, again, other = (report_of(task, model, positions=5, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first.layers != other.layers


def test_several_passes_in_little_memory_give_the_same_figures() -> None:
    model = net()
    task = SignalTask(model, (3, 10, 10))
    assert report_of(task, model, positions=5, memory_bytes=1) == report_of(task, model, positions=5)
    assert in_groups({"a": 4, "b": 4, "c": 100, "d": 1}, 512) == [["a", "b"], ["c"], ["d"]]


def test_the_model_stays_as_it_was() -> None:
    model = net()
    task = SignalTask(model, (3, 10, 10))
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report_of(task, model)
    assert all(module.training and not module._forward_hooks for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_covariances_of_parts_are_those_of_the_whole_far_from_zero() -> None:
    rows = torch.randn(500, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1e5
    moments = ChannelMoments(4)
    for part in (rows[:1], rows[1:1], rows[1:300], rows[300:]):
        moments.add(part)
    assert torch.allclose(moments.covariance, torch.cov(rows.T, correction=0), rtol=1e-8)
    assert moments.count == 500


def test_a_model_without_convolutions_is_refused() -> None:
    model = nn.Linear(4, 4)
    with pytest.raises(UserError, match=r"net has no convolution \(nn.Conv1d, .* so there is nothing to measure"):
        report_of(SignalTask(model, (4,)), model)


def test_a_task_without_held_out_data_is_refused() -> None:
    class NoHoldout(SignalTask):
        def batches(self, split: Split, batch_size: int, *, limit: int | None = None) -> Iterator[Batch]:
            yield from () if split == "holdout" else super().batches(split, batch_size, limit=limit)

    model = net()
    with pytest.raises(UserError, match="gives no batch for split 'holdout', which --redundancy needs"):
        report_of(NoHoldout(model, (3, 10, 10)), model)
