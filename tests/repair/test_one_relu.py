"""Blocks with one ReLU module for all their activations, as in torchvision, and no BatchNorm, as after fusing it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.helpers.details import as_json
from tests.repair.test_cnn import DigitsNet, context_of
from toolkit.hooks.order import execution_order
from toolkit.repair.sites import joining_point
from toolkit.stages.channel_prune.apply import apply_channel_prune
from toolkit.stages.channel_prune.settings import ChannelPrune, Keep
from toolkit.stages.context import StageContext
from toolkit.tasks.classification import ClassificationTask


class Functions(nn.Module):
    """The ReLUs are functions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(16, 16, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.conv2(F.relu(self.conv1(x))))


class OneModule(Functions):
    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(x + self.conv2(self.relu(self.conv1(x))))


class FusedNet(DigitsNet):
    def __init__(self, kind: type[Functions]) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(kind() for _ in range(3)))


def task_of(kind: type[Functions]) -> ClassificationTask:
    """The same weights and data for both kinds."""
    torch.manual_seed(0)
    net, rows = FusedNet(Functions), torch.randn(180, 1, 8, 8)
    parts = [(part, torch.arange(len(part)) % 10) for part in rows.split([120, 30, 30])]
    return ClassificationTask(
        lambda: FusedNet(kind), net.state_dict(), train=parts[0], validation=parts[1], test=parts[2]
    )


def test_a_module_that_is_called_twice_is_no_place_to_look_at() -> None:
    net, inputs = task_of(OneModule).load_baseline(), (torch.randn(4, 1, 8, 8),)
    found = joining_point(net, "blocks.1.conv2", "blocks.1", inputs, execution_order(net, inputs))
    assert found is not None and (found[0].module, found[1].behind) == ("blocks.1", "relu")


@pytest.mark.parametrize("keep", [{"conv": 0.5}, {"embedding": 0.5}, {"conv": 0.5, "embedding": 0.5}], ids=str)
def test_one_relu_for_all_makes_no_difference(keep: dict[str, float], tiny_context: StageContext) -> None:
    config = ChannelPrune.model_validate({"keep": Keep(**keep), "importance": "l1", "round_to": 1})
    outputs = []
    for kind in (Functions, OneModule):
        task = task_of(kind)
        model, detail = as_json(apply_channel_prune)(task.load_baseline(), task, config, context_of(task, tiny_context))
        assert detail["repairs"]
        outputs.append(model(task.example_inputs(8)[0]))
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-3, atol=1e-3)
