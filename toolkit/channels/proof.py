"""Proof of a cut: the narrow model computes what the wide one does when nothing reads the channels that are gone."""

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

TOLERANCE = 1e-3  # of the outputs' scale; another order of summation makes 1e-5 in deep networks

TRAINING_SLACK = 50.0


def cut_error(
    wide: nn.Module,
    narrow: nn.Module,
    parts: Sequence[CutPart],
    inputs: tuple[Tensor, ...],
    others: Sequence[Path] = (),
) -> float:
    """Largest difference between the narrow model and the masked wide one, relative to the root mean square.

    The models' outputs are compared, and those of every layer that reads what was cut: deep in a network a fault may
    be scaled down to nothing before it reaches the outputs. So they are on the ways of `others` to run the models; in
    training mode, where batches of two make small differences larger, an error counts a fiftieth, and none where the
    wide model's outputs are random: there only shapes are compared.

    Raises:
        ValueError: the narrow model does not run, or gives outputs of other shapes; with its own words.
    """
    masked = copy_model(wide)
    for part in parts:
        _mask(masked, narrow, part)
    return max(_error_on(path, masked, narrow, parts) for path in (Path(inputs), *others))


def _error_on(path: Path, masked: nn.Module, narrow: nn.Module, parts: Sequence[CutPart]) -> float:
    readers = sorted({part.module for part in parts if part.role == "in"})
    left = {part.module: part.kept for part in parts if part.role == "out"}
    with path.taken(masked, narrow), torch.no_grad():
        try:
            expected = _run(masked, path, readers, left)  # runs the narrow norms too
            found = _run(narrow, path, readers, {})
        except (RuntimeError, ValueError, TypeError, AssertionError, ArithmeticError, LookupError) as error:
            where = f" {path.words}" if path.training else ""
            words = f"its forward code does not run with the narrower layers{where}: {_short(error)}"
            raise ValueError(words) from error
    if [part.shape for part in found] != [part.shape for part in expected]:
        raise ValueError(f"its outputs have another shape with the narrower layers {path.words}")
    worst = max((_relative(one, other) for one, other in zip(found, expected, strict=True)), default=0.0)
    if not path.training:
        return worst
    return 0.0 if worst > TRAINING_SLACK * TOLERANCE and _is_random(masked, path) else worst / TRAINING_SLACK


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
    """Checks that the cut model computes what the wide one does without the channels that are gone.

    Raises:
        StageError: it does not, or does not run.
    """
    try:
        error = cut_error(wide, narrow, parts, inputs, others)
    except ValueError as fault:
        raise StageError(f"the model does not run after the cut: {fault}") from fault
    if error > TOLERANCE:
        raise StageError(f"the cut model does not compute what the wide one does without those channels ({error:.2g})")


def _run(model: nn.Module, path: Path, layers: Sequence[str], left: Mapping[str, Sequence[int]]) -> list[Tensor]:
    """The outputs of the model and then of the layers, of which only the channels that are `left`."""
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
    for name, kept in left.items():
        if name in seen:
            seen[name] = seen[name].index_select(
                channel_dim(model.get_submodule(name)), torch.tensor(list(kept), device=seen[name].device)
            )
    return [*outputs, *(seen[name] for name in layers if name in seen)]


def _short(error: Exception) -> str:
    words = " ".join(str(error).split())
    return words[:160]


def _relative(one: Tensor, other: Tensor) -> float:
    """Rows of padding may be NaN or infinite in both: equal numbers are no error, and the scale is of finite ones."""
    differs = unlike(one, other)
    if not bool(differs.any()):
        return 0.0
    if not one.is_floating_point():
        return float("inf")
    one, other = one.double(), other.double()
    scale = other[other.isfinite()].square().mean().sqrt().clamp(min=1e-12)
    error = float((one - other)[differs].abs().max() / scale)
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
    """A convolution in groups reads zeros for what is gone: of a group that stays, single channels may be gone."""

    def silenced(x: Tensor) -> Tensor:
        return forward(x.index_fill(part.dim, torch.tensor(part.gone, dtype=torch.long, device=x.device), 0.0))

    return silenced


def _scattered(small: nn.Module, part: CutPart) -> Callable[..., Tensor]:
    """The narrow layer's work on the channels that are left, zeros for the others: its statistics know only those."""

    def forward(x: Tensor, *args: object, **kwargs: object) -> Tensor:
        indices = torch.tensor(part.kept, device=x.device)
        out: Tensor = small(x.index_select(part.dim, indices), *args, **kwargs)
        return torch.zeros_like(x, dtype=out.dtype).index_copy_(part.dim, indices, out)

    return forward
