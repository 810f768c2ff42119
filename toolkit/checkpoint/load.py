"""Loads a saved model: checks the files, rebuilds the structure, and compares the outputs with the saved ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from toolkit.base.errors import CheckpointError, UserError
from toolkit.base.files import file_sha256
from toolkit.blocks.dropped import replace_block, stand_ins_of
from toolkit.checkpoint.difference import apply_attributes, check_tensors, put_buffers, reshape_like
from toolkit.checkpoint.factory import build_model, check_memory
from toolkit.checkpoint.fingerprint import find_difference, take_fingerprint
from toolkit.checkpoint.manifest import (
    COMPLEX,
    MANIFEST_FILE,
    WEIGHTS_FILE,
    Manifest,
    TensorSpec,
    WeightsFile,
    printable,
    read_manifest,
    size_of_file,
)
from toolkit.hooks.copies import copy_model
from toolkit.hooks.folding import computed_tensors, fold_tensors
from toolkit.hooks.state import load_state
from toolkit.hooks.unfit import refuse_unfit
from toolkit.stand_ins.nothing import NothingArguments
from toolkit.zoo.skeleton import materialise

_DTYPE_OF = {
    **{"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "BOOL": "bool", "U8": "uint8"},
    **{"I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8"},
}

_LARGEST_HEADER_BYTES = 4 * 2**20


def load_model(directory: Path | str, model: nn.Module | None = None) -> nn.Module:
    """Returns the saved model in eval mode on the CPU, compared with the fingerprint that was saved with it.

    No code is executed but that of the architecture, nothing is downloaded, and the memory taken is in proportion to
    the weights.

    directory: a folder that `save_model` wrote, or the folder of a run.
    model: the unmodified architecture, if the saved model is of your own task; it is not changed. None for a model of a
        built-in task or of a zoo.

    Raises:
        CheckpointError: the folder is damaged, does not fit the architecture, or the loaded model's outputs differ from
            those of the saved one.
        UserError: the given model is compiled, quantised, or without values.
    """
    directory = Path(directory)
    if not (directory / MANIFEST_FILE).exists() and (directory / "model" / MANIFEST_FILE).exists():
        directory = directory / "model"
    manifest = read_manifest(directory / MANIFEST_FILE)
    if model is not None:
        refuse_unfit(model, "the model given to load_model")
    weights = directory / WEIGHTS_FILE
    _check_file(weights, manifest.weights)
    try:
        _check_header(weights, manifest.tensors)
        if model is not None:
            return fill(shape_like(copy_model(model).cpu(), manifest), manifest, weights)
        inputs, weights_bytes = manifest.fingerprint.inputs, manifest.weights.bytes
        shaped = shape_like(build_model(manifest.factory, inputs, weights_bytes), manifest)
        check_memory(shaped, inputs, weights_bytes)
        return fill(shaped, manifest, weights)
    except CheckpointError:
        raise
    except (ValueError, UserError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(
            f"{directory / MANIFEST_FILE}: {printable(str(error))}; the folder is damaged or belongs to another "
            "architecture: copy or save it again, or pass the model that it was made from"
        ) from error


def shape_like(model: nn.Module, manifest: Manifest) -> nn.Module:
    """Gives an unmodified model the structure of the saved one in place, and returns it.

    Raises:
        ValueError: the manifest does not fit the model.
        StageError: a block that the manifest drops cannot be dropped.
    """
    in_both = sorted(manifest.removed_blocks.keys() & manifest.stand_ins.keys())
    if in_both:
        raise ValueError(f"stand_ins: {in_both[0]!r} is in removed_blocks too; a block is either removed or replaced")
    for name, structure in manifest.removed_blocks.items():
        replace_block(model, name, NothingArguments(structure=structure))
    for name, arguments in manifest.stand_ins.items():
        replace_block(model, name, arguments, without_memory=True)
    computed = computed_tensors(model)
    fold_tensors(model, [name for name in manifest.folded if name in computed])
    check_tensors(model, manifest.tensors, manifest.buffers)
    apply_attributes(model, manifest.attributes)
    reshape_like(model, manifest.tensors, manifest.buffers)
    for name, stand_in in stand_ins_of(model).items():
        if fault := stand_in.fault():
            raise ValueError(f"stand_ins: {name}: {fault}")
    return model


def fill(model: nn.Module, manifest: Manifest, weights: Path) -> nn.Module:
    """Loads the weights into a shaped model, compares it with its fingerprint, and returns it in eval mode.

    Raises:
        ValueError: the weights do not fit, or the outputs are not those of the fingerprint.
    """
    materialise(model)
    content = {name: as_complex(tensor, manifest.tensors[name]) for name, tensor in load_file(weights).items()}
    put_buffers(model, {name: content.pop(name) for name in manifest.buffers})
    load_state(model, content, manifest.versions)
    difference = find_difference(manifest.fingerprint, take_fingerprint(model, manifest.fingerprint.inputs))
    if difference:
        raise ValueError(f"the loaded model does not compute what the saved one did: {difference}")
    return model.eval()


def as_complex(tensor: Tensor, spec: TensorSpec) -> Tensor:
    """Returns a tensor of the file in its own type: files hold a complex number as two real ones."""
    return torch.view_as_complex(tensor) if spec.dtype in COMPLEX else tensor


def _check_file(path: Path, expected: WeightsFile) -> None:
    try:
        size = size_of_file(path)
        if size != expected.bytes:
            raise CheckpointError(f"{path}: has {size} bytes, not {expected.bytes}; it is truncated: copy it again")
        if file_sha256(path) != expected.sha256:
            raise CheckpointError(f"{path}: its SHA-256 is not the manifest's; the file is damaged: copy it again")
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); copy the whole folder again") from error


def _check_header(path: Path, expected: Mapping[str, TensorSpec]) -> None:
    """Checks that the file lists the manifest's tensors, without reading them into memory."""
    try:
        with open(path, "rb") as raw:
            header_bytes = int.from_bytes(raw.read(8), "little")
        if header_bytes > _LARGEST_HEADER_BYTES:
            raise CheckpointError(f"{path}: not a safetensors file of ours: it declares {header_bytes} bytes of names")
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping
            in_file = {
                name: (tuple(part.get_shape()), _DTYPE_OF.get(part.get_dtype())) for name, part in slices.items()
            }
    except SafetensorError as error:
        raise CheckpointError(f"{path}: not a safetensors file ({error}); nothing was read from it") from error
    listed = {name: (spec.written.shape, spec.written.dtype) for name, spec in expected.items()}
    for name in sorted(in_file.keys() | listed.keys()):
        if in_file.get(name) != listed.get(name):
            raise CheckpointError(
                f"{path}: {printable(name)} is {in_file.get(name)} in the file but {listed.get(name)} in the manifest; "
                "save it again"
            )
