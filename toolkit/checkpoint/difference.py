"""Takes the difference in structure between a model and the unmodified one as plain data, and applies it again.

Faults are raised as ValueErrors that do not name the file, which only the caller knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from toolkit.blocks.dropped import stand_ins_of
from toolkit.checkpoint.manifest import Attribute, TensorSpec
from toolkit.stand_ins.contract import StandIn
from toolkit.stand_ins.registry import make_stand_in


def diff_attributes(dense: nn.Module, model: nn.Module) -> dict[str, dict[str, Attribute]]:
    """Returns the plain attributes (int, float, tuple or list of ints) that compression changed, by module name.

    Compression only shrinks: an integer that grew is something else, such as a counter, and is left out.
    """
    changed: dict[str, dict[str, Attribute]] = {}
    originals = dict(dense.named_modules()) | _fresh_stand_ins(dense, model)
    for name, module in model.named_modules():
        if isinstance(module, StandIn) or name not in originals:
            continue
        original = vars(originals[name])
        for attribute, value in vars(module).items():
            if attribute in original and _is_other(original[attribute], value):
                plain = tuple(value) if isinstance(value, (tuple, list)) else value
                changed.setdefault(name, {})[attribute] = plain
    return changed


def _is_other(old: object, new: object) -> bool:
    """Returns whether an attribute was changed as compression may change it; NaN counts as equal to NaN."""
    return fault_of_patch(old, new) is None and new != old and not (old != old and new != new)  # noqa: PLR0124


def _fresh_stand_ins(dense: nn.Module, model: nn.Module) -> dict[str, nn.Module]:
    """Returns the parts of the model's stand-ins as they were when they were made, by name."""
    fresh: dict[str, nn.Module] = {}
    for place, stand_in in stand_ins_of(model).items():
        new = make_stand_in(dense.get_submodule(place), stand_in.arguments, without_memory=True)
        fresh |= {f"{place}.{name}": part for name, part in new.named_modules() if name}
    return fresh


def apply_attributes(model: nn.Module, attributes: Mapping[str, Mapping[str, Attribute]]) -> None:
    """Sets the attributes that `diff_attributes` gave.

    Raises:
        ValueError: an attribute does not exist, is of another type, or would grow.
    """
    modules = dict(model.named_modules())
    for name, values in attributes.items():
        if name not in modules:
            raise ValueError(f"attributes: the model has no submodule {name!r}")
        for attribute, value in values.items():
            place = f"attributes: {name}.{attribute}"
            if attribute not in vars(modules[name]):
                raise ValueError(f"{place}: the module has no such attribute")
            old = vars(modules[name])[attribute]
            fault = fault_of_patch(old, value)
            if fault:
                raise ValueError(f"{place}: {fault}")
            is_other = isinstance(value, tuple) and isinstance(old, (torch.Size, list))
            setattr(modules[name], attribute, type(old)(value) if is_other else value)


def fault_of_patch(old: object, new: object) -> str | None:
    """Returns why an attribute may not change from `old` to `new`, in words; None when it may."""
    if not isinstance(new, (int, float, tuple, list)):  # the value is not printed: it may be a table of weights
        return f"a {type(old).__name__} may not become a {type(new).__name__}"
    if type(old) is float and type(new) is float:
        return None
    if type(old) is int and type(new) is int:
        return None if _shrinks(old, new) else f"{new} is not between 1 and {old}"
    if isinstance(old, (tuple, list)) and isinstance(new, (tuple, list)) and len(old) == len(new):
        if all(type(entry) is int for entry in (*old, *new)):
            fits = all(_shrinks(*pair) for pair in zip(old, new, strict=True))
            return None if fits else f"{new} is not between 1 and {tuple(old)}"
        return "only tuples and lists of integers may change"
    return f"a {type(old).__name__} may not become {new!r}"


def _shrinks(old: int, new: int) -> bool:
    return new == old or 1 <= new <= old


def describe_tensors(model: nn.Module, buffers: Iterable[str] = ()) -> dict[str, TensorSpec]:
    """Returns shape and type of every parameter and persistent buffer, by name.

    buffers: names of further buffers to describe, which a state dict leaves out.

    Raises:
        ValueError: an entry of the state is no tensor, or of a type that cannot be saved; the message names it.
    """
    specs = {}
    for name, value in {**model.state_dict(), **{name: model.get_buffer(name) for name in buffers}}.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"{name}: state that is not a tensor cannot be saved without pickle")
        try:
            specs[name] = TensorSpec.of(value)
        except ValidationError as error:
            raise ValueError(f"{name}: tensors of type {value.dtype} cannot be saved ({_NOT_SAVED})") from error
    return specs


_NOT_SAVED = "quantised weights: compress the model before it is quantised"


def smaller_buffers(dense: nn.Module, model: nn.Module) -> dict[str, Tensor]:
    """Returns the buffers that a state dict leaves out and whose shape is not the unmodified model's, by name."""
    saved, originals = model.state_dict(), dict(dense.named_buffers(remove_duplicate=False))
    return {
        name: buffer
        for name, buffer in model.named_buffers(remove_duplicate=False)
        if name not in saved and name in originals and originals[name].shape != buffer.shape
    }


def put_buffers(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Copies values into buffers that a state dict leaves out, by name."""
    for name, value in values.items():
        model.get_buffer(name).copy_(value)


def check_tensors(model: nn.Module, specs: Mapping[str, TensorSpec], buffers: Sequence[str] = ()) -> None:
    """Checks that `specs` lists the model's tensors and no others, with their types and no larger in any dimension.

    buffers: names in `specs` of buffers that the model's state dict leaves out.

    Raises:
        ValueError: a tensor is missing, unknown, of another type, or too large.
    """
    unknown = sorted(set(buffers) - dict(model.named_buffers(remove_duplicate=False)).keys())
    if unknown:
        raise ValueError(f"buffers: unknown {unknown[:3]}")
    existing = describe_tensors(model, buffers)
    missing, extra = sorted(set(existing) - set(specs)), sorted(set(specs) - set(existing))
    if missing or extra:
        raise ValueError(f"tensors: missing {missing[:3] or 'none'}, unknown {extra[:3] or 'none'}")
    for name, spec in specs.items():
        dense = existing[name]
        if spec.dtype != dense.dtype:
            raise ValueError(f"tensors: {name} is {spec.dtype}, the unmodified model's is {dense.dtype}")
        fits = len(spec.shape) == len(dense.shape) and all(
            new == old or 1 <= new <= old for new, old in zip(spec.shape, dense.shape, strict=True)
        )
        if not fits:
            raise ValueError(
                f"tensors: {name} has shape {spec.shape}, which does not fit into the unmodified model's {dense.shape}"
            )


def reshape_like(model: nn.Module, specs: Mapping[str, TensorSpec], buffers: Sequence[str] = ()) -> None:
    """Gives every parameter and buffer that is in `specs` its shape there; a tensor whose shape changes is emptied.

    Parameters that share one object go on sharing it.

    buffers: as in `check_tensors`.

    Raises:
        ValueError: the tensors do not fit, or tensors that share memory would get different shapes.
    """
    check_tensors(model, specs, buffers)
    resized: dict[int, tuple[Tensor, Tensor]] = {}  # id -> (old, new); the old one is held so that its id is not reused
    for prefix, module in model.named_modules(remove_duplicate=False):
        for table in (module._parameters, module._buffers):
            for leaf, tensor in table.items():
                spec = specs.get(f"{prefix}.{leaf}" if prefix else leaf)
                if tensor is None or spec is None:
                    continue
                new = resized.setdefault(id(tensor), (tensor, _resized(tensor, spec)))[1]
                if new.shape != spec.shape:
                    raise ValueError(f"tensors: {prefix}.{leaf} shares its memory with a tensor of another shape")
                table[leaf] = new  # a Parameter stays a Parameter


def _resized(tensor: Tensor, spec: TensorSpec) -> Tensor:
    if tensor.shape == spec.shape:
        return tensor
    empty = torch.empty(spec.shape, dtype=tensor.dtype, device=tensor.device)
    return nn.Parameter(empty, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
