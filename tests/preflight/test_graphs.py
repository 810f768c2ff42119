"""A graph of torch.fx is looked at without the errors that it prints by itself; what its own code prints stays."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.own_net import Block, Net, task_of
from toolkit import preflight_of
from toolkit.hooks.graphs import FIRST_WORDS
from toolkit.hooks.untouched import untouched


class Sized(Block):
    """Has the width of its hidden units in its code."""

    def forward(self, x: Tensor) -> Tensor:
        return x + self.b(torch.relu(self.a(x)).reshape(-1, 16))


def test_trials_that_fail_print_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    found = preflight_of(task_of(lambda: torch.fx.symbolic_trace(Net(Sized))))
    reasons = {part.name: part.reason for part in found.channels if not part.can_go}
    assert "shape '[-1, 16]' is invalid" in reasons["blocks.0.a"]
    assert capsys.readouterr() == ("", "")


class Saying(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        print("seen", file=sys.stderr)
        return x


class Threes(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(-1, 3)


def test_what_others_print_stays(capsys: pytest.CaptureFixture[str]) -> None:
    model = nn.Sequential(Saying(), torch.fx.symbolic_trace(Threes()))
    with untouched(model):
        model(torch.ones(6))
        with pytest.raises(RuntimeError):
            model(torch.ones(5))
    assert capsys.readouterr().err == "seen\nseen\n"
    with pytest.raises(RuntimeError):
        model(torch.ones(5))
    assert FIRST_WORDS in capsys.readouterr().err  # elsewhere torch goes on printing them
