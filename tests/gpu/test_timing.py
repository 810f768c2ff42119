"""Runtimes, precisions and the counter of memory as they are on CUDA; how fast anything is is not asserted."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from toolkit.measure.precision import TOLERANCES
from toolkit.measure.results import MeasuredRuntime, MeasurementKey, Precision
from toolkit.measure.runtimes.registry import RUNTIMES
from toolkit.measure.timed import ready_models, time_in_turns
from toolkit.zoo.build import build_zoo_model

VIT = {"img_size": 32, "embed_dim": 64, "depth": 2, "num_heads": 4}


def vit() -> nn.Module:
    return build_zoo_model("timm/vit_tiny_patch16_224", VIT).cuda()


def key(runtime: MeasuredRuntime, precision: Precision, batch_size: int = 4) -> MeasurementKey:
    return MeasurementKey(runtime=runtime, device="cuda", precision=precision, batch_size=batch_size)


@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_runtime_runs_in_every_precision(runtime: MeasuredRuntime, precision: Precision) -> None:
    if needs := RUNTIMES[runtime].missing("cuda"):
        pytest.skip(f"{runtime} needs {needs}")
    model, at = vit(), key(runtime, precision)
    latency = time_in_turns(
        model, copy.deepcopy(model), (torch.randn(4, 3, 32, 32),), at, threads=1, warmup=2, repeats=3
    )
    assert latency.key == at and len(latency.samples_s) == 3
    assert latency.dtype == ("bfloat16" if precision == "bfloat16" else "float32")
    weights = sum(part.numel() for part in model.parameters()) * (2 if precision == "bfloat16" else 4)
    if runtime == "cuda_graph":
        assert latency.peak_bytes is None
    else:
        assert latency.peak_bytes == latency.dense_peak_bytes and latency.peak_bytes > weights


def test_a_graph_computes_with_the_inputs_that_it_is_given() -> None:
    model, first, second = vit(), torch.randn(4, 3, 32, 32).cuda(), torch.randn(4, 3, 32, 32).cuda()
    with ready_models([model], (first,), key("cuda_graph", "float32"), RUNTIMES["cuda_graph"]) as ((ready,), _):
        for inputs in (second, first):
            assert torch.allclose(ready(inputs), model(inputs), atol=1e-4)


def test_half_of_the_memory_is_seen() -> None:
    """Twice the batch takes more; what else lies on the device does not count."""
    model, peaks = vit(), []
    others = torch.empty(2**26, device="cuda")
    for size in (4, 8):
        inputs = (torch.randn(size, 3, 32, 32),)
        latency = time_in_turns(model, model, inputs, key("eager", "float32", size), threads=1, warmup=2, repeats=3)
        peaks.append(latency.peak_bytes or 0)
    assert peaks[0] < peaks[1] < others.numel() * others.element_size()
