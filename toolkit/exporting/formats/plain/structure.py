"""Describes how a saved model differs from the unmodified one, as plain tables of names."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from toolkit.base.errors import ExportError, UserError
from toolkit.blocks.dropped import put_module, stand_ins_of
from toolkit.checkpoint.manifest import COMPLEX
from toolkit.exporting.saved import SavedModel
from toolkit.hooks.folding import computed_tensors, fold_tensors
from toolkit.stand_ins import plain


@dataclass(frozen=True)
class Difference:
    """Holds what load.py does to the unmodified model.

    stand_ins: class and arguments of each stand-in, by the name of the block.
    returns: how the replaced blocks returned the stream, where that was not a tensor.
    folded: what computed each tensor that is a parameter now.
    shapes: the shapes of tensors that are smaller, and what they were.
    numbers: the attributes of modules that changed.
    buffers: the smaller buffers that a state dict leaves out.
    complexes: the tensors of complex numbers.
    """

    stand_ins: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    returns: dict[str, dict[str, Any]] = field(default_factory=dict)
    folded: dict[str, str] = field(default_factory=dict)
    shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    numbers: dict[str, dict[str, Any]] = field(default_factory=dict)
    buffers: tuple[str, ...] = ()
    complexes: tuple[str, ...] = ()


def difference_of(saved: SavedModel, model: nn.Module) -> Difference:
    """Returns the difference between a saved model, loaded as `model`, and the unmodified one.

    Raises:
        ExportError: a stand-in has no plain form.
    """
    manifest, dense = saved.manifest, saved.build_dense()
    stand_ins = {}
    for name, stand_in in stand_ins_of(model).items():
        try:
            stand_ins[name] = stand_in.plain_form()
        except ExportError as error:
            raise ExportError(f"{name} cannot be written as plain code: {error}") from error
        class_name, arguments = stand_ins[name]
        put_module(dense, name, getattr(plain, class_name)(**arguments))
    kinds = computed_tensors(dense)
    folded = {name: kinds[name] for name in manifest.folded if name in kinds}
    try:
        fold_tensors(dense, folded)
    except UserError as error:
        raise ExportError(str(error)) from error
    tensors = dense.state_dict() | {name: dense.get_buffer(name) for name in manifest.buffers}
    shapes = {name: (spec.shape, tuple(tensors[name].shape)) for name, spec in manifest.tensors.items()}
    return Difference(
        stand_ins=stand_ins,
        returns={
            name: given for name, each in stand_ins_of(model).items() if (given := each.arguments.structure.plain())
        },
        folded=folded,
        shapes={name: pair for name, pair in shapes.items() if pair[0] != pair[1]},
        numbers={name: values for name, values in manifest.attributes.items() if not _is_within(name, stand_ins)},
        buffers=manifest.buffers,
        complexes=tuple(name for name, spec in manifest.tensors.items() if spec.dtype in COMPLEX),
    )


def _is_within(name: str, blocks: dict[str, Any]) -> bool:
    return any(name.startswith(f"{block}.") for block in blocks)
