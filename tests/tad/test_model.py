"""The detector's operations and losses against counts and values by hand."""

from __future__ import annotations

import math

import pytest
import torch

from toolkit.measure.macs import count_macs
from toolkit.tasks import TASKS, make_task
from toolkit.tasks.tad.losses import detection_loss, diou, prediction_alignment, sigmoid_focal
from toolkit.tasks.tad.model import DetectorConfig, TransformerDetector


def macs_by_hand(config: DetectorConfig) -> int:
    t, c = config.num_tokens, config.dim
    embed = t * c * config.num_channels * 2 * config.patch
    attention = 4 * t * c * c + 2 * t * t * c
    mlp = 2 * t * c * config.mlp_hidden
    head = t * (3 * c * c * 2 + 3 * c * config.num_classes + 3 * c * 2 + c * 2 * config.reach)
    return embed + config.num_blocks * (attention + mlp) + head


def test_macs_of_the_dense_detector_agree_with_a_hand_count() -> None:
    task = make_task("tad-watch")
    counted = count_macs(task.build_model(), task.example_inputs(1))
    # embedding 192*64*6*40 = 2,949,120; a block 192*4*64*64 + 2*192*192*64 + 2*192*64*256 = 14,155,776;
    # head 192*(2*3*64*64 + 3*64*5 + 3*64*2 + 64*128) = 6,549,504
    assert counted.total == 2_949_120 + 12 * 14_155_776 + 6_549_504 == macs_by_hand(task.config)
    assert counted.total == 179_367_936


@pytest.mark.parametrize("config", [DetectorConfig(6, 5, num_blocks=2), DetectorConfig(3, 2, 64, 10, 32, 3, 4, 48, 16)])
def test_macs_agree_for_other_sizes(config: DetectorConfig) -> None:
    model = TransformerDetector(config)
    inputs = (torch.zeros(1, config.num_channels, config.patch * config.num_tokens),)
    assert count_macs(model, inputs).total == macs_by_hand(config)


def test_the_card_of_the_task_is_true() -> None:
    task, card = make_task("tad-watch"), TASKS["tad-watch"]
    assert card.num_blocks == task.config.num_blocks == len(task.build_model().blocks)
    assert card.metric == task.metric
    assert card.name == task.name


def test_distances_stop_at_the_reach_and_follow_the_boundary() -> None:
    config = DetectorConfig(6, 5, num_blocks=1, reach=16)
    model = TransformerDetector(config)
    logits, distances = model(torch.randn(2, 6, config.patch * config.num_tokens))
    assert logits.shape == (2, 192, 5)
    assert distances.shape == (2, 192, 2)
    assert ((distances > 0) & (distances <= 15)).all()


def test_focal_loss_by_hand() -> None:
    loss = sigmoid_focal(torch.tensor([0.0, 0.0]), torch.tensor([1.0, 0.0]))
    expected = [0.25 * 0.25 * math.log(2), 0.75 * 0.25 * math.log(2)]
    assert loss.tolist() == pytest.approx(expected)


def test_diou_by_hand() -> None:
    predicted = torch.tensor([[2.0, 2.0], [1.0, 3.0]])
    target = torch.tensor([[2.0, 2.0], [3.0, 3.0]])
    # second: shared 4, union 6, hull 6, centres 1 and 0 apart by 1
    assert diou(predicted, target).tolist() == pytest.approx([1.0, 4 / 6 - (1 / 6) ** 2])


def test_detection_loss_without_positives_is_finite_and_has_gradients() -> None:
    logits = torch.zeros(1, 4, 2, requires_grad=True)
    distances = torch.ones(1, 4, 2, requires_grad=True)
    loss = detection_loss((logits, distances), (torch.zeros(1, 4, 2), torch.ones(1, 4, 2)))
    loss.backward()
    assert torch.isfinite(loss) and logits.grad is not None and (logits.grad > 0).all()


def test_alignment_is_zero_only_for_equal_predictions() -> None:
    torch.manual_seed(0)
    teacher = (torch.randn(2, 6, 1), torch.rand(2, 6, 2) + 1)  # one class: a softmax KL would be zero everywhere
    assert float(prediction_alignment(teacher, teacher)) == pytest.approx(0.0, abs=1e-6)
    assert float(prediction_alignment((teacher[0] + 1, teacher[1]), teacher)) > 0.01
    assert float(prediction_alignment((teacher[0], teacher[1] * 2), teacher)) > 0.01
