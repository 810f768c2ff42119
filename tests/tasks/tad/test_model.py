"""The detector's operations and losses against counts and values by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from toolkit.measure.macs import count_macs
from toolkit.tasks.cards import TASKS, make_task
from toolkit.tasks.divergence import bernoulli_divergence, softmax_divergence
from toolkit.tasks.tad.detection import POOL_WINDOWS
from toolkit.tasks.tad.losses import Outputs, detection_loss, diou, giou, prediction_alignment, sigmoid_focal
from toolkit.tasks.tad.model import DetectorConfig, TransformerDetector
from toolkit.tasks.task import AlignmentOptions


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


def test_giou_by_hand() -> None:
    predicted = torch.tensor([[1.0, 3.0], [-1.0, 3.0]])
    target = torch.tensor([[3.0, 3.0], [2.0, -1.0]])
    # first: shared 4, union 6 = hull; second: 1 .. 3 and -2 .. -1, nothing shared, union 3, hull 5
    assert giou(predicted, target).tolist() == pytest.approx([4 / 6, -2 / 5])


def test_bernoulli_divergence_by_hand() -> None:
    student, teacher = torch.tensor([0.0]), torch.tensor([2 * math.log(3.0)])  # probabilities 1/2 and 3/4 at T = 2
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert bernoulli_divergence(student, teacher, 2.0).tolist() == pytest.approx([4 * expected])


def test_softmax_divergence_by_hand() -> None:
    student, teacher = torch.zeros(1, 2), torch.tensor([[math.log(3.0), 0.0]])  # 1/2, 1/2 and 3/4, 1/4
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert softmax_divergence(student, teacher, 1.0).tolist() == pytest.approx([expected])


def random_outputs(num_classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(2, 6, num_classes), torch.rand(2, 6, 2) + 1


def aligned(student: Outputs, teacher: Outputs, **options: Any) -> dict[str, float]:
    terms = prediction_alignment(student, teacher, AlignmentOptions(**options))
    return {name: float(value) for name, value in terms.items()}


@pytest.mark.parametrize("options", [{}, {"temperature": 3.5, "class_loss": "softmax", "segment_loss": "giou"}])
def test_alignment_is_zero_only_for_equal_predictions(options: dict[str, Any]) -> None:
    teacher = random_outputs(3)
    assert aligned(teacher, teacher, **options) == pytest.approx({"class": 0.0, "segment": 0.0}, abs=1e-6)
    moved = aligned((teacher[0] + torch.tensor([1.0, 0.0, 0.0]), teacher[1]), teacher, **options)
    assert moved["class"] > 0.01 and moved["segment"] == pytest.approx(0.0, abs=1e-6)
    stretched = aligned((teacher[0], teacher[1] * 2), teacher, **options)
    assert stretched["segment"] > 0.01 and stretched["class"] == pytest.approx(0.0, abs=1e-6)


def test_a_softmax_over_one_class_says_nothing() -> None:
    teacher = random_outputs(1)
    student = (teacher[0] + 1, teacher[1])
    assert aligned(student, teacher, class_loss="softmax")["class"] == 0.0
    assert aligned(student, teacher, class_loss="bernoulli")["class"] > 0.01


def test_a_share_of_the_data_is_a_fixed_set_of_windows() -> None:
    task = make_task("tad-watch")

    def windows(seed: int, share: float) -> list[float]:
        batches = task.train_batches(4, seed, share)
        return [float(window.sum()) for _ in range(3) for window in next(batches).inputs[0]]

    few = windows(7, 3 / POOL_WINDOWS)
    assert len(set(few)) == 3 and windows(7, 3 / POOL_WINDOWS) == few
    assert not set(few) & set(windows(8, 3 / POOL_WINDOWS))
    assert len(set(windows(7, 1.0))) == 12
