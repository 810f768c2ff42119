"""Proves a cut: the narrow model computes what the wide one does when nothing reads the removed channels."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from toolkit.base.errors import StageError
from toolkit.channels.cut import CutPart
from toolkit.channels.layers import channel_dim, input_weights, is_grouped, output_weights
from toolkit.hooks.copies import copy_model
from toolkit.hooks.paths import Path
from toolkit.hooks.tensors import unlike

TOLERANCE = 1e-3  # relative to the root mean square; another order of summation makes 1e-5 in deep networks

TRAINING_SLACK = 50.0


def cut_error(
    wide: nn.Module,
    narrow: nn.Module,
    parts: Sequence[CutPart],
    inputs: tuple[Tensor, ...],
    others: Sequence[Path] = (),
) -> float:
    """Returns the largest difference between the narrow and the masked wide model, relative to the root mean square.

    The outputs of the models are compared, and those of every layer that reads what was cut, because a fault deep in a
    network may be scaled down to nothing before it reaches the outputs. In training mode, where batches of two make
    small differences larger, differences are divided by 50; where the outputs of the wide model are random, only shapes
    are compared.

    others: passes to compare beside eval mode on `inputs`.

    Raises:
        ValueError: the narrow model fails, or its outputs have other shapes. The message says so in words.
    """
    masked = copy_model(wide)
    for part in parts:
        _mask(masked, narrow, part)
    return max(_error_on(path, masked, narrow, parts) for path in (Path(inputs), *others))


def _error_on(path: Path, masked: nn.Module, narrow: nn.Module, parts: Sequence[CutPart]) -> float:
    readers = sorted({part.module for part in parts if part.role == "in"})
    channels_left = {part.module: part.kept for part in parts if part.role == "out"}
    with path.taken(masked, narrow), torch.no_grad():
        try:
            expected = _run(masked, path, readers, channels_left)  # runs the narrow norms too
            actual = _run(narrow, path, readers, {})
        except Exception as error:  # the user's code may raise anything
            where = f" {path.words}" if path.training else ""
            words = f"its forward code does not run with the narrower layers{where}: {_short(error)}"
            raise ValueError(words) from error
    if [part.shape for part in actual] != [part.shape for part in expected]:
        raise ValueError(f"its outputs have another shape with the narrower layers {path.words}")
    largest = max(
        (_relative(output, expected_output) for output, expected_output in zip(actual, expected, strict=True)),
        default=0.0,
    )
    if not path.training:
        return largest
    return 0.0 if largest > TRAINING_SLACK * TOLERANCE and _is_random(masked, path) else largest / TRAINING_SLACK


def _is_random(model: nn.Module, path: Path) -> bool:
    with path.taken(model), torch.no_grad():
        first, second = path.run(model, 1), path.run(model, 2)
    return any(not torch.equal(one, other) for one, other in zip(first, second, strict=True))


def check_cut(
    wide: nn.Module,
    narrow: nn.Module,
    parts: Sequence[CutPart],
    inputs: tuple[Tensor, ...],
    others: Sequence[Path] = (),
) -> None:
    """Checks that the narrow model computes what the wide one does without the removed channels.

    Raises:
        StageError: the narrow model fails, or computes something else.
    """
    try:
        error = cut_error(wide, narrow, parts, inputs, others)
    except ValueError as fault:
        raise StageError(f"the model does not run after the cut: {fault}") from fault
    if error > TOLERANCE:
        raise StageError(
            "the cut model does not compute what the wide one does without the removed channels: its outputs differ by "
            f"{error:.2g} of their root mean square, and {TOLERANCE:g} is allowed"
        )


def _run(
    model: nn.Module, path: Path, layers: Sequence[str], channels_left: Mapping[str, Sequence[int]]
) -> list[Tensor]:
    """Returns the outputs of the model and then those of `layers`.

    channels_left: the channels to keep of the output of a layer; other layers are kept whole.
    """
    seen: dict[str, Tensor] = {}
    handles = [
        model.get_submodule(name).register_forward_hook(lambda _, __, out, n=name: seen.update({n: out.clone()}))
        for name in layers
    ]
    try:
        outputs = path.run(model)
    finally:
        for handle in handles:
            handle.remove()
    for name, kept in channels_left.items():
        if name in seen:
            seen[name] = seen[name].index_select(
                channel_dim(model.get_submodule(name)), torch.tensor(list(kept), device=seen[name].device)
            )
    return [*outputs, *(seen[name] for name in layers if name in seen)]


def _short(error: Exception) -> str:
    words = " ".join(str(error).split())
    return words[:160]


def _relative(actual: Tensor, expected: Tensor) -> float:
    """Returns the largest difference, relative to the root mean square of the finite expected numbers.

    Equal numbers are no error even if they are NaN or infinite, as in rows of padding.
    """
    differs = unlike(actual, expected)
    if not bool(differs.any()):
        return 0.0
    if not actual.is_floating_point():
        return float("inf")
    actual, expected = actual.double(), expected.double()
    scale = expected[expected.isfinite()].square().mean().sqrt().clamp(min=1e-12)
    error = float((actual - expected)[differs].abs().max() / scale)
    return float("inf") if math.isnan(error) else error


@torch.no_grad()
def _mask(masked: nn.Module, narrow: nn.Module, part: CutPart) -> None:
    layer, gone = masked.get_submodule(part.module), list(part.gone)
    if part.role == "in":
        input_weights(layer)[gone] = 0.0
    elif part.role == "out" and part.is_multiplied:
        output_weights(layer)[gone] = 0.0
        if isinstance(getattr(layer, "bias", None), Tensor):
            layer.bias[gone] = 0.0  # type: ignore[operator]
    elif part.role == "through" and is_grouped(layer):
        layer.forward = _silenced(layer.forward, part)
    elif part.role == "through":
        layer.forward = _scattered(narrow.get_submodule(part.module), part)


def _silenced(forward: Callable[..., Tensor], part: CutPart) -> Callable[..., Tensor]:
    """Returns a forward of a grouped convolution that reads zeros for removed channels.

    A cut may remove single channels of a group that stays.
    """

    def silenced(x: Tensor) -> Tensor:
        return forward(x.index_fill(part.dim, torch.tensor(part.gone, dtype=torch.long, device=x.device), 0.0))

    return silenced


def _scattered(small: nn.Module, part: CutPart) -> Callable[..., Tensor]:
    """Returns a forward that runs the narrow layer on the channels that stay, and gives zeros for the others.

    The statistics of a norm then cover only the channels that stay.
    """

    def forward(x: Tensor, *args: object, **kwargs: object) -> Tensor:
        indices = torch.tensor(part.kept, device=x.device)
        out: Tensor = small(x.index_select(part.dim, indices), *args, **kwargs)
        return torch.zeros_like(x, dtype=out.dtype).index_copy_(part.dim, indices, out)

    return forward
