"""Saves models without pickle, as a folder with a manifest of the structure (JSON) and weights (safetensors)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import JsonValue
from safetensors.torch import save_file
from torch import Tensor, nn

from toolkit.base.errors import CheckpointError, UserError
from toolkit.base.files import file_sha256, replacing, write_atomically
from toolkit.blocks.dropped import stand_ins_of
from toolkit.checkpoint.difference import describe_tensors, diff_attributes, smaller_buffers
from toolkit.checkpoint.fingerprint import fingerprint_of
from toolkit.checkpoint.load import fill, shape_like
from toolkit.checkpoint.manifest import MANIFEST_FILE, WEIGHTS_FILE, Manifest, WeightsFile
from toolkit.hooks.copies import copy_model
from toolkit.hooks.state import versions_of
from toolkit.measure.environment import package_versions


def save_model(
    directory: Path | str,
    model: nn.Module,
    dense: nn.Module,
    *,
    factory: Mapping[str, JsonValue],
    example_inputs: tuple[Tensor, ...],
    recipe_sha256: str | None,
    folded: Sequence[str] = (),
) -> None:
    """Writes a model as its difference to `dense`, the unmodified architecture, whose weights do not matter.

    The folder appears whole or not at all, and only after it was loaded again and gave the same outputs. Neither model
    is changed. `folded` names the tensors that the user's architecture computes and both models keep as parameters.

    Raises:
        CheckpointError: the folder exists, or the model cannot be expressed as a shrunk `dense`.
    """
    if (directory := Path(directory)).exists():
        raise CheckpointError(f"{directory}: exists already; remove it or choose another folder")
    part = directory.with_name(f".{directory.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # left by a process that was killed while saving
    part.mkdir(parents=True)
    try:
        portable = copy_model(model).cpu()
        buffers = smaller_buffers(dense, portable)
        arguments: dict[str, Any] = {name: stand_in.arguments for name, stand_in in stand_ins_of(model).items()}
        manifest = Manifest(
            factory=dict(factory),
            removed_blocks={name: given.structure for name, given in arguments.items() if given.type == "nothing"},
            stand_ins={name: given for name, given in arguments.items() if given.type != "nothing"},
            attributes=diff_attributes(dense, model),
            tensors=describe_tensors(portable, buffers),
            buffers=tuple(buffers),
            folded=tuple(folded),
            versions=versions_of(portable.state_dict()),
            weights=_write_weights(part / WEIGHTS_FILE, portable, buffers),
            fingerprint=fingerprint_of(portable, [tensor.cpu() for tensor in example_inputs]),
            recipe_sha256=recipe_sha256,
            packages=package_versions(),
        )
        fill(shape_like(copy_model(dense).cpu(), manifest), manifest, part / WEIGHTS_FILE)
        write_atomically(part / MANIFEST_FILE, manifest.model_dump_json(indent=1) + "\n")
        shutil.copymode(part / MANIFEST_FILE, part / WEIGHTS_FILE)  # safetensors lets only the owner read it
        os.rename(part, directory)
    except (ValueError, UserError) as error:
        raise CheckpointError(f"{directory}: this model cannot be saved as a shrunk dense model: {error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write_weights(path: Path, model: nn.Module, buffers: Mapping[str, Tensor]) -> WeightsFile:
    """Writes the weights, a shared tensor once per name; safetensors refuses views of it, so it is copied."""
    describe_tensors(model, buffers)
    tensors = {**model.state_dict(), **buffers}
    weights = {name: _real(tensor.detach()).contiguous().clone() for name, tensor in tensors.items()}
    with replacing(path) as part:
        save_file(weights, part)
    return WeightsFile(sha256=file_sha256(path), bytes=path.stat().st_size)


def _real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
