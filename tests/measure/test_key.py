"""What a latency is of: one key for records, tables, columns and files."""

from __future__ import annotations

import itertools
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from tests.helpers.example_records import measurement
from toolkit.measure.results import Latency, Measurement, MeasurementKey, Precision

CPU16 = MeasurementKey(device="cpu", batch_size=16)

OTHERS = [
    MeasurementKey(device="cpu", batch_size=1),
    MeasurementKey(device="cuda", batch_size=16),
    MeasurementKey(device="cpu", precision="bfloat16", batch_size=16),
    MeasurementKey(runtime="compile", device="cpu", batch_size=16),
]


def latency(**given: Any) -> Latency:
    return Latency(
        **{"device": "cpu", "batch_size": 16, "threads": 2, "dtype": "float32"} | given,
        samples_s=(0.5,),
        dense_samples_s=(1.0,),
    )


def of(*latencies: Latency) -> Measurement:
    whole = measurement(1.0, 1.0, 0.6)
    return Measurement(macs=whole.macs, num_params=1, latency=latencies, quality=())


def test_keys_are_equal_if_all_parts_are() -> None:
    again = MeasurementKey(runtime="eager", device="cpu", precision="float32", batch_size=16)
    assert again == CPU16 and hash(again) == hash(CPU16)
    assert len({CPU16, again, *OTHERS}) == 1 + len(OTHERS)


def test_words_name_runtime_and_precision_only_where_they_are_special() -> None:
    special = MeasurementKey(runtime="cuda_graph", device="cuda:1", precision="tf32", batch_size=4)
    assert (CPU16.words, special.words) == ("cpu batch 16", "cuda_graph cuda:1 tf32 batch 4")
    assert (CPU16.where, special.where) == ("cpu", "cuda_graph cuda:1 tf32")
    assert (CPU16.text, special.text) == ("cpu_batch16", "cuda_graph_cuda_1_tf32_batch4")


def test_every_text_reads_back_and_no_two_keys_share_one() -> None:
    runtimes = ("eager", "compile", "cuda", "cuda_graph", "ort_2", "x_cpu", "batch1", "cpu_tf32")
    devices = ("cpu", "cuda", "cuda:0", "cuda:12", "tf", "batch")
    parts = itertools.product(runtimes, devices, get_args(Precision), (1, 16))
    keys = [MeasurementKey(runtime=r, device=d, precision=p, batch_size=b) for r, d, p, b in parts]
    assert len({key.text for key in keys}) == len(keys) == 8 * 6 * 3 * 2
    assert [MeasurementKey.parse(key.text) for key in keys] == keys


@pytest.mark.parametrize(
    "text",
    ["", "16", "cpu", "cpu_16", "cpu_batch", "cpu_batch0", "cpu_batch016", "cpu_batch16 ", "eager_cpu_batch1",
     "cpu_float32_batch1", "cpu_float16_batch1", "CPU_batch1", "_cpu_batch1", "a__cpu_batch1", "cpu batch 16"],
)  # fmt: skip
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not the name of a latency"):
        MeasurementKey.parse(text)


def test_latencies_of_earlier_versions_are_eager_and_float32() -> None:
    old = {
        "device": "cpu",
        "batch_size": 16,
        "threads": 2,
        "dtype": "float32",
        "samples_s": [1],
        "dense_samples_s": [1],
    }
    assert Latency.model_validate(old).key == CPU16
    assert latency(runtime="compile", precision="tf32").key == CPU16.model_copy(
        update={"runtime": "compile", "precision": "tf32"}
    )


def test_a_latency_is_found_by_its_key_wherever_it_stands() -> None:
    latencies = [latency(**key.model_dump()) for key in (CPU16, *OTHERS)]
    for order in (latencies, latencies[::-1]):
        measured = of(*order)
        assert set(measured.latency_keys) == {CPU16, *OTHERS}
        for one in latencies:
            assert measured.latency_at(one.key) is one
    assert of(*latencies[1:]).latency_at(CPU16) is None


def test_two_latencies_of_one_key_are_refused() -> None:
    with pytest.raises(ValidationError, match="it has two latencies of cpu batch 16"):
        of(latency(), latency(batch_size=1), latency(threads=1))
    with pytest.raises(ValidationError, match="precision"):
        latency(precision="float16")
