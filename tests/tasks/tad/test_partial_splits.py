"""Parts of a split of streams: what racing scores on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from toolkit.tasks.tad.detection import DetectionTask
from toolkit.tasks.tad.model import DetectorConfig
from toolkit.tasks.tad.streams import Stream
from toolkit.tasks.task import Split

CONFIG = DetectorConfig(
    num_channels=2, num_classes=2, num_tokens=8, patch=4, dim=8, num_blocks=1, num_heads=2, mlp_hidden=8, reach=8
)


class Streams:
    """Ten streams of one to three windows; the signal of a stream is its number."""

    classes = ("a", "b")
    sample_rate_hz = 4
    mean = torch.zeros(2, 1)
    deviation = torch.ones(2, 1)

    def fixed(self, split: Split) -> tuple[Stream, ...]:
        return tuple(
            Stream(
                name=f"stream{number}",
                signal=np.full((32 + 16 * (number % 3), 2), number, dtype=np.float32),
                segments=np.array([[1.0, 5.0]]),
                labels=np.array([number % 2]),
                joints_s=np.zeros(0),
            )
            for number in range(10)
        )

    def train(self, duration_s: float, rng: np.random.Generator) -> Stream:
        raise NotImplementedError


@pytest.fixture(scope="module")
def task() -> DetectionTask:
    return DetectionTask("made-up", Streams(), CONFIG, centre_share=0.5, baseline=None)


def inputs(task: DetectionTask, limit: int | None) -> Tensor:
    return torch.cat([batch.inputs[0] for batch in task.batches("score", 4, limit=limit)])


def test_a_smaller_part_comes_first_in_a_larger_one(task: DetectionTask) -> None:
    assert task.num_examples("score") == 10
    sizes = []
    for limit in range(1, 10):
        part, more = inputs(task, limit), inputs(task, limit + 1)
        sizes.append(len(part))
        assert torch.equal(part, more[: len(part)])
        assert len(part[:, 0, 0].unique()) == limit
    assert sizes == sorted(sizes)
    first = inputs(task, 3)[:, 0, 0].unique().tolist()
    assert first != [0.0, 1.0, 2.0]  # spread over the split
    assert inputs(task, None)[:, 0, 0].unique_consecutive().tolist() == list(range(10))


def test_the_metric_is_of_the_part_alone(task: DetectionTask) -> None:
    torch.manual_seed(0)
    model = task.build_model().eval()
    assert [task.evaluate(model, "score", limit=limit).num_examples for limit in (1, 4, 10, None)] == [1, 4, 10, 10]
    assert task.evaluate(model, "score", limit=10).value == pytest.approx(task.evaluate(model, "score").value)
    one = task.evaluate(model, "score", limit=1)
    assert len([name for name in one.details if name.startswith("AP ")]) == 1  # the other class is not in that stream
