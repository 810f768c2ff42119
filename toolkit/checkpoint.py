"""Portable saved models without pickle: a folder with a structure manifest (JSON) and weights (safetensors)."""

from __future__ import annotations

import copy
import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from pydantic import JsonValue
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from toolkit.dropped import DroppedBlock, replace_block
from toolkit.errors import CheckpointError, UserError
from toolkit.factory import build_model, check_memory
from toolkit.fingerprint import describe_inputs, find_difference, take_fingerprint
from toolkit.manifest import (
    MANIFEST_FILE,
    WEIGHTS_FILE,
    Manifest,
    TensorSpec,
    WeightsFile,
    printable,
    read_manifest,
    size_of_file,
)
from toolkit.measure.environment import package_versions
from toolkit.structure import check_tensors, describe_tensors, diff_attributes, patch_attributes, reshape_like
from toolkit.zoo.skeleton import materialise

_DTYPE_OF = {
    **{"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "BOOL": "bool", "U8": "uint8"},
    **{"I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8"},
}
_LARGEST_HEADER_BYTES = 4 * 2**20


def save_model(
    directory: Path | str,
    model: nn.Module,
    dense: nn.Module,
    *,
    factory: Mapping[str, JsonValue],
    example_inputs: tuple[Tensor, ...],
    recipe_sha256: str | None,
) -> None:
    """Write `model` as its difference to `dense`, the unmodified architecture, whose weights do not matter.

    The folder appears whole or not at all, and only after it was loaded again and computed the same. Tensors that
    share memory are written once per name. Neither model is changed.

    Raises:
        CheckpointError: the folder exists, or the model cannot be expressed as a shrunk `dense`.
    """
    directory = Path(directory)
    if directory.exists():
        raise CheckpointError(f"{directory}: exists already; remove it or choose another folder")
    part = directory.with_name(f".{directory.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # left by a process that was killed while saving
    part.mkdir(parents=True)
    try:
        portable = copy.deepcopy(model).cpu()
        _write_weights(part / WEIGHTS_FILE, portable)
        manifest = Manifest(
            factory=dict(factory),
            removed_blocks={name: m.structure for name, m in model.named_modules() if isinstance(m, DroppedBlock)},
            attributes=diff_attributes(dense, model),
            tensors=describe_tensors(portable),
            weights=WeightsFile(sha256=_sha256(part / WEIGHTS_FILE), bytes=(part / WEIGHTS_FILE).stat().st_size),
            fingerprint=take_fingerprint(portable, describe_inputs(example_inputs)),
            recipe_sha256=recipe_sha256,
            packages=package_versions(),
        )
        _fill(_shape(copy.deepcopy(dense).cpu(), manifest), manifest, part / WEIGHTS_FILE)
        _write_text(part / MANIFEST_FILE, manifest.model_dump_json(indent=1) + "\n")
        shutil.copymode(part / MANIFEST_FILE, part / WEIGHTS_FILE)  # safetensors writes for the owner alone
        os.rename(part, directory)
    except (ValueError, UserError) as error:
        raise CheckpointError(f"{directory}: this model cannot be saved as a shrunk dense model: {error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def load_model(directory: Path | str, model: nn.Module | None = None) -> nn.Module:
    """The saved model, in eval mode on the CPU, checked against the fingerprint taken when it was saved.

    `directory` is a folder that `save_model` wrote, or that of a run. `model` is the unmodified architecture for what
    is neither of a built-in task nor of a zoo; it is not changed. No code is executed but that of the architecture,
    nothing is downloaded, and memory is taken in proportion to the weights.

    Raises:
        CheckpointError: the folder is damaged, does not fit the architecture, or does not compute what it did.
    """
    directory = Path(directory)
    if not (directory / MANIFEST_FILE).exists() and (directory / "model" / MANIFEST_FILE).exists():
        directory = directory / "model"
    manifest = read_manifest(directory / MANIFEST_FILE)
    weights = directory / WEIGHTS_FILE
    _check_file(weights, manifest.weights)
    try:
        _check_header(weights, manifest.tensors)
        if model is not None:
            return _fill(_shape(copy.deepcopy(model).cpu(), manifest), manifest, weights)
        inputs, weights_bytes = manifest.fingerprint.inputs, manifest.weights.bytes
        shaped = _shape(build_model(manifest.factory, inputs, weights_bytes), manifest)
        check_memory(shaped, inputs, weights_bytes)
        return _fill(shaped, manifest, weights)
    except CheckpointError:
        raise
    except (ValueError, UserError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(
            f"{directory / MANIFEST_FILE}: {printable(str(error))}; the folder is damaged or belongs to another "
            "architecture: copy or save it again, or pass the model that it was made from"
        ) from error


def _shape(model: nn.Module, manifest: Manifest) -> nn.Module:
    """Give an unmodified model the structure of the saved one, in place. Raises ValueError or StageError."""
    for name, structure in manifest.removed_blocks.items():
        replace_block(model, name, structure)
    check_tensors(model, manifest.tensors)
    patch_attributes(model, manifest.attributes)
    reshape_like(model, manifest.tensors)
    return model


def _fill(model: nn.Module, manifest: Manifest, weights: Path) -> nn.Module:
    """Load the weights into a shaped model, and see that it computes what it did. Raises ValueError."""
    materialise(model)
    model.load_state_dict(load_file(weights), strict=True)
    difference = find_difference(manifest.fingerprint, take_fingerprint(model, manifest.fingerprint.inputs))
    if difference:
        raise ValueError(f"the loaded model does not compute what the saved one did: {difference}")
    return model.eval()


def _write_weights(path: Path, model: nn.Module) -> None:
    """safetensors refuses views and shared memory, hence the copies."""
    describe_tensors(model)
    save_file({name: tensor.detach().contiguous().clone() for name, tensor in model.state_dict().items()}, path)
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _write_text(path: Path, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _check_file(path: Path, expected: WeightsFile) -> None:
    try:
        size = size_of_file(path)
        if size != expected.bytes:
            raise CheckpointError(f"{path}: has {size} bytes, not {expected.bytes}; it is truncated: copy it again")
        if _sha256(path) != expected.sha256:
            raise CheckpointError(f"{path}: its SHA-256 is not the manifest's; the file is damaged: copy it again")
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); copy the whole folder again") from error


def _check_header(path: Path, expected: Mapping[str, TensorSpec]) -> None:
    """The file's own list of tensors must be the manifest's; nothing is read into memory for it."""
    try:
        with open(path, "rb") as raw:
            header_bytes = int.from_bytes(raw.read(8), "little")
        if header_bytes > _LARGEST_HEADER_BYTES:
            raise CheckpointError(f"{path}: not a safetensors file of ours: it declares {header_bytes} bytes of names")
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping
            found = {name: (tuple(part.get_shape()), _DTYPE_OF.get(part.get_dtype())) for name, part in slices.items()}
    except SafetensorError as error:
        raise CheckpointError(f"{path}: not a safetensors file ({error}); nothing was read from it") from error
    listed = {name: (spec.shape, spec.dtype) for name, spec in expected.items()}
    for name in sorted(found.keys() | listed.keys()):
        if found.get(name) != listed.get(name):
            raise CheckpointError(
                f"{path}: {printable(name)} is {found.get(name)} in the file but {listed.get(name)} in the manifest; "
                "save it again"
            )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()
