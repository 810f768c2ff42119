"""A model whose savings do not add up: its groups of channels share layers."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.helpers.tiny_task import CHANNELS, CLASSES, TinyTask
from toolkit.base.console import Console
from toolkit.planning.budget import Budget, Limit
from toolkit.planning.profile.costs import TimingSettings
from toolkit.planning.profile.model_profile import ModelProfile
from toolkit.planning.session import Planner
from toolkit.planning.tables import cost


class SharedLayers(nn.Module):
    """Two groups of channels share the middle convolution, so their savings do not add up."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(CHANNELS, 16, 1)
        self.blocks = nn.ModuleList(nn.Sequential(*self._layers()) for _ in range(3))
        self.head = nn.Conv1d(16, CLASSES, 1)

    @staticmethod
    def _layers() -> list[nn.Module]:
        return [nn.Conv1d(16, 32, 1), nn.ReLU(), nn.Conv1d(32, 32, 3, padding=1), nn.ReLU(), nn.Conv1d(32, 16, 1)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x.transpose(1, 2))
        for block in self.blocks:
            x = x + block(x)
        return self.head(x).transpose(1, 2)


class SharedLayersTask(TinyTask):
    name = "shared-layers"
    protected = ("stem", "head")

    def build_model(self) -> nn.Module:
        return SharedLayers()


def test_limits_hold_where_savings_do_not_add_up(tmp_path: Path) -> None:
    task = SharedLayersTask(train_steps=5)
    profile = ModelProfile(task, TimingSettings(torch.device("cpu"), (), 1), tmp_path, Console(io.StringIO()))
    planned = Planner(profile).plan(Budget(limits=(Limit(resource="macs", value=0.6),)), "width", 0)
    assert not profile.tables.counts_add_up
    model = profile.profiler.built({}, planned.note.widths)
    counted = profile.context.macs_ratio(model)
    assert counted <= 0.6
    assert planned.note.predicted.macs_ratio == pytest.approx(counted, abs=1e-9)
    assert cost(profile.tables, planned.choice, "macs") != pytest.approx(counted, abs=1e-3)
