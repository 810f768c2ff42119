"""Times a model as a key says: casts it, makes it ready for the runtime, compares its outputs, and times it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import cast

import torch
from torch import Tensor, nn

from toolkit.base.errors import UserError
from toolkit.hooks.modes import evaluating
from toolkit.hooks.tensors import tensors_in
from toolkit.measure.latency import measure_latency, timing_memory_named
from toolkit.measure.peak_memory import counter_of, peak_bytes
from toolkit.measure.precision import TOLERANCES, cast_inputs, cast_model, tf32_is
from toolkit.measure.results import EAGER, FLOAT32, Latency, MeasuredRuntime, MeasurementKey
from toolkit.measure.runtimes.registry import RUNTIMES, Runtimes
from toolkit.measure.runtimes.runtime import ModelRuntime, Ready
from toolkit.measure.same_outputs import outputs_error

Inputs = tuple[Tensor, ...]


def time_in_turns(
    model: nn.Module,
    dense: nn.Module,
    example_inputs: Inputs,
    key: MeasurementKey,
    *,
    threads: int,
    warmup: int,
    repeats: int,
    runtimes: Runtimes = RUNTIMES,
) -> Latency:
    """Returns the latency of a model beside the dense one, both in the runtime and the precision of `key`.

    The samples are those of `measure_latency`. On CUDA the peak memory of both models is measured too, if the runtime
    can tell it. The models are left as they were.

    Raises:
        UserError: a model does not run in the runtime or precision, its outputs change by more than `TOLERANCES`
            allows, or memory is too small for the batch size.
    """
    (latency,) = time_pairs(
        [model, dense],
        [(0, 1)],
        example_inputs,
        key,
        threads=threads,
        warmup=warmup,
        repeats=repeats,
        runtimes=runtimes,
    )
    return latency


def time_pairs(
    models: Sequence[nn.Module],
    pairs: Sequence[tuple[int, int]],
    example_inputs: Inputs,
    key: MeasurementKey,
    *,
    threads: int,
    warmup: int,
    repeats: int,
    runtimes: Runtimes = RUNTIMES,
) -> tuple[Latency, ...]:
    """Returns what `time_in_turns` does for each of several pairs, and makes every model ready only once.

    pairs: for each pair the indices in `models` of a model, and of the one that it is timed in turns with.

    Raises:
        UserError: as `time_in_turns`.
    """
    runtime = runtimes[cast(MeasuredRuntime, key.runtime)]
    inputs = tuple(part.to(key.device) for part in example_inputs)
    with timing_memory_named(key), ready_models(models, inputs, key, runtime) as (ready, cast_to):
        latencies = [
            measure_latency(ready[model], ready[dense], cast_to, key, threads=threads, warmup=warmup, repeats=repeats)
            for model, dense in pairs
        ]
        counter = counter_of(cast_to[0].device) if runtime.tells_memory else None
        if counter is None:
            return tuple(latencies)
        with evaluating(*ready), tf32_is(key.precision == "tf32"):
            peaks = [peak_bytes(model, cast_to, counter) for model in ready]
    return tuple(
        latency.model_copy(update={"peak_bytes": peaks[model], "dense_peak_bytes": peaks[dense]})
        for latency, (model, dense) in zip(latencies, pairs, strict=True)
    )


@contextmanager
def ready_models(
    models: Sequence[nn.Module], inputs: Inputs, key: MeasurementKey, runtime: ModelRuntime
) -> Iterator[tuple[Sequence[nn.Module], Inputs]]:
    """Yields the models in the key's runtime and precision, and the inputs that they take.

    In eager float32 these are the given models themselves, and nothing is compared.

    inputs: inputs in float32, on the key's device.

    Raises:
        UserError: a model does not run, or its outputs differ too much from those in eager float32.
    """
    if (key.runtime, key.precision) == (EAGER, FLOAT32):
        yield models, inputs
        return
    cast_to = cast_inputs(inputs, key.precision)
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        stack.enter_context(evaluating(*models))
        yield [_ready(model, inputs, cast_to, key, runtime, stack) for model in models], cast_to


def _ready(
    model: nn.Module, inputs: Inputs, cast_to: Inputs, key: MeasurementKey, runtime: ModelRuntime, stack: ExitStack
) -> nn.Module:
    with tf32_is(False):
        eager_outputs = [part.clone() for part in tensors_in(model(*inputs))]
    with _explained(key), tf32_is(key.precision == "tf32"):
        changed = cast_model(model, key.precision)
        call = stack.enter_context(runtime.prepare(changed, cast_to))
        outputs = tensors_in(call(*cast_to))
    error, most = outputs_error(eager_outputs, outputs), TOLERANCES[key.precision]
    if not error <= most:
        raise UserError(
            f"{_asked(key)} does not compute what the model does on {key.device}: its outputs are {error:.2g} of their "
            f"norm away from those in eager float32, and at most {most:g} is allowed; {_leave_out(key)}"
        )
    return changed if call is changed else _ReadyModule(changed, call)


class _ReadyModule(nn.Module):
    """Wraps a model and the function that runs it as a module, which is what timing takes."""

    def __init__(self, model: nn.Module, call: Ready) -> None:
        super().__init__()
        self.model = model  # so that the weights are found here
        self._calls = (call,)  # in a tuple: a compiled model is a module, and its weights would count twice

    def forward(self, *inputs: Tensor) -> object:
        return self._calls[0](*inputs)


@contextmanager
def _explained(key: MeasurementKey) -> Iterator[None]:
    try:
        yield
    except (UserError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a compiler, a CUDA graph or a model in another number type may raise anything
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{_asked(key)} cannot run this model on {key.device} ({type(error).__name__}: {reason}); {_leave_out(key)}"
        ) from error


def _asked(key: MeasurementKey) -> str:
    """Returns the runtime and the precision in words, without `eager` and `float32`."""
    return " ".join(part for part in (key.runtime, key.precision) if part not in (EAGER, FLOAT32))


def _leave_out(key: MeasurementKey) -> str:
    fields = [("runtimes", key.runtime, EAGER), ("precisions", key.precision, FLOAT32)]
    return " or ".join(f"leave {name} out of measure.{field}" for field, name, usual in fields if name != usual)
