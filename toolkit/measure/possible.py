"""Says which runtimes and precisions a device supports. Importing this file imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, get_args

from toolkit.measure.results import MeasuredRuntime, MeasurementKey, Precision
from toolkit.measure.runtimes.registry import RUNTIMES

TF32_CAPABILITY: Final = (8, 0)  # Ampere


def runtime_needs(runtime: str, device: str) -> str | None:
    """Returns what the runtime lacks on a device of this type, in words that follow "needs"; None if nothing."""
    return next((known.missing(device) for name, known in RUNTIMES.items() if name == runtime), "another version")


def precision_needs(precision: str, device: str) -> str | None:
    """Returns what the precision lacks on a device of this type, in words that follow "needs"; None if nothing.

    Only torch knows whether the CUDA device at hand has TF32; it is imported for this question alone.
    """
    if precision != "tf32":
        return None
    if device != "cuda":
        return "a CUDA device"
    import torch  # noqa: PLC0415

    if torch.cuda.is_available() and torch.cuda.get_device_capability() < TF32_CAPABILITY:
        return f"a CUDA device of compute capability 8.0, and {torch.cuda.get_device_name()} is older"
    return None


def is_possible(key: MeasurementKey) -> bool:
    """Returns whether the key's device supports the key's runtime and precision."""
    device = key.device.partition(":")[0]
    return runtime_needs(key.runtime, device) is None and precision_needs(key.precision, device) is None


def faults_of(
    runtimes: Iterable[MeasuredRuntime], precisions: Iterable[Precision], device: str
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yields the place in `measure` and a message for each runtime and precision that a device of this type lacks."""
    settings = (
        ("runtimes", runtimes, runtime_needs, get_args(MeasuredRuntime)),
        ("precisions", precisions, precision_needs, get_args(Precision)),
    )
    for field, names, needs, choices in settings:
        for place, name in enumerate(names):
            if lacks := needs(name, device):
                supported = ", ".join(other for other in choices if needs(other, device) is None)
                yield (field, place), f'"{name}" needs {lacks}; on device {device} choose from: {supported}'
