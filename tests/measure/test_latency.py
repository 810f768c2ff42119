"""The structure of a measurement, on a clock of our own: real time is never asserted."""

from __future__ import annotations

import fcntl
import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from toolkit.measure.latency import measure_latency
from toolkit.measure.results import Latency, MeasurementKey


class Clock:
    """Time that passes only when a model works."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


SEEN: dict[int, set[tuple[bool, bool, int]]] = {}  # by model: a model's own lists are put back after a timing


class Worker(nn.Module):
    """Takes `cost_s` of the clock's time for a call, and writes down that it was called, and how."""

    def __init__(self, name: str, clock: Clock, cost_s: float, log: list[str]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.name, self.clock, self.cost_s, self.write = name, clock, cost_s, log.append

    @property
    def seen(self) -> set[tuple[bool, bool, int]]:
        return SEEN.setdefault(id(self), set())

    def forward(self, x: Tensor) -> Tensor:
        self.clock.now_s += self.cost_s
        self.write(self.name)
        self.seen.add((self.training, torch.is_inference_mode_enabled(), torch.get_num_threads()))
        return x


KEY = MeasurementKey(device="cpu", batch_size=2)


def measure(
    cost_s: float, dense_cost_s: float, key: MeasurementKey = KEY, **settings: int
) -> tuple[Latency, Worker, Worker, list[str]]:
    SEEN.clear()  # a model of before may have had the same id
    clock, log = Clock(), list[str]()
    model, dense = Worker("model", clock, cost_s, log), Worker("dense", clock, dense_cost_s, log)
    chosen = {"threads": 1, "warmup": 3, "repeats": 4, **settings}
    latency = measure_latency(model, dense, (torch.zeros(2, 5),), key, clock=clock, **chosen)
    return latency, model, dense, log


def test_samples_and_ratio() -> None:
    latency, *_ = measure(0.25, 0.5)
    assert latency.samples_s == (0.25,) * 4
    assert latency.dense_samples_s == (0.5,) * 4
    assert latency.ratio == 0.5
    assert (latency.key, latency.threads, latency.dtype) == (KEY, 1, "float32")


def test_runtime_and_precision_are_those_of_the_key() -> None:
    special = MeasurementKey(runtime="compile", device="cpu", precision="bfloat16", batch_size=2)
    assert measure(0.25, 0.5, special)[0].key == special


def test_ratio_is_of_the_same_moments() -> None:
    """The machine becomes slower between the third samples of the two models."""
    latency = Latency(
        device="cpu",
        batch_size=1,
        threads=1,
        dtype="float32",
        samples_s=(1.0, 1.0, 1.0, 2.0, 2.0),
        dense_samples_s=(2.0, 2.0, 4.0, 4.0, 4.0),
    )
    assert latency.ratios == (0.5, 0.5, 0.25, 0.5, 0.5)
    assert latency.ratio == 0.5
    assert latency.median_s / latency.dense_median_s == 0.25


def test_models_take_turns_and_alternate_who_is_first() -> None:
    _, _, _, log = measure(0.25, 0.5)
    assert log[-8:] == ["dense", "model", "model", "dense"] * 2
    assert log.count("model") == 3 + 2 + 4  # warm-up, two trials, repeats
    assert log.count("dense") == log.count("model")


def test_short_calls_are_grouped_and_divided() -> None:
    latency, _, _, log = measure(2.0**-10, 2.0**-9, warmup=0)  # 0.98 ms: six calls fill 5 ms
    assert log.count("model") == 2 + 4 * 6
    assert latency.samples_s == (2.0**-10,) * 4
    assert latency.dense_samples_s == (2.0**-9,) * 4


def test_number_of_calls_is_bounded() -> None:
    _, _, _, log = measure(1e-9, 1e-9, warmup=0, repeats=1)
    assert log.count("model") == 2 + 1000


def test_eval_and_inference_mode_and_threads_are_put_back() -> None:
    before = torch.get_num_threads()
    _, model, dense, _ = measure(0.25, 0.5, threads=before + 1)
    assert model.seen == dense.seen == {(False, True, before + 1)}
    assert model.training
    assert dense.training
    assert torch.get_num_threads() == before


def test_everything_is_put_back_after_an_error() -> None:
    before = torch.get_num_threads()
    model = nn.Linear(3, 3)
    with pytest.raises(RuntimeError):
        measure_latency(model, model, (torch.zeros(2, 4),), KEY, threads=before + 1, warmup=1, repeats=3)
    assert model.training
    assert torch.get_num_threads() == before


def test_batch_size_must_be_that_of_the_inputs() -> None:
    with pytest.raises(ValueError, match="batch size, 3"):
        measure(0.25, 0.5, MeasurementKey(device="cpu", batch_size=3))


def test_a_job_that_shares_the_timing_lock_keeps_timing_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "timing.lock"
    monkeypatch.setenv("TOOLKIT_TIMING_LOCK", str(lock))
    done: list[Latency] = []
    with open(lock, "w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        timing = threading.Thread(target=lambda: done.append(measure(0.25, 0.5)[0]))
        timing.start()
        timing.join(0.2)
        assert not done
    timing.join()
    assert done[0].ratio == 0.5
