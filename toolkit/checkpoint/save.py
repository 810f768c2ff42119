"""Portable saved models without pickle: a folder with a structure manifest (JSON) and weights (safetensors)."""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import JsonValue
from safetensors.torch import save_file
from torch import Tensor, nn

from toolkit.base.errors import CheckpointError, UserError
from toolkit.base.files import file_sha256, replacing, write_atomically
from toolkit.blocks.dropped import stand_ins_of
from toolkit.checkpoint.difference import describe_tensors, diff_attributes
from toolkit.checkpoint.fingerprint import describe_inputs, take_fingerprint
from toolkit.checkpoint.load import fill, shape_like
from toolkit.checkpoint.manifest import MANIFEST_FILE, WEIGHTS_FILE, Manifest, WeightsFile
from toolkit.measure.environment import package_versions


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
        places: dict[str, Any] = {name: stand_in.arguments for name, stand_in in stand_ins_of(model).items()}
        _write_weights(part / WEIGHTS_FILE, portable)
        manifest = Manifest(
            factory=dict(factory),
            removed_blocks={name: one.structure for name, one in places.items() if one.type == "nothing"},
            stand_ins={name: one for name, one in places.items() if one.type != "nothing"},
            attributes=diff_attributes(dense, model),
            tensors=describe_tensors(portable),
            weights=WeightsFile(sha256=file_sha256(part / WEIGHTS_FILE), bytes=(part / WEIGHTS_FILE).stat().st_size),
            fingerprint=take_fingerprint(portable, describe_inputs(example_inputs)),
            recipe_sha256=recipe_sha256,
            packages=package_versions(),
        )
        fill(shape_like(copy.deepcopy(dense).cpu(), manifest), manifest, part / WEIGHTS_FILE)
        write_atomically(part / MANIFEST_FILE, manifest.model_dump_json(indent=1) + "\n")
        shutil.copymode(part / MANIFEST_FILE, part / WEIGHTS_FILE)  # safetensors writes for the owner alone
        os.rename(part, directory)
    except (ValueError, UserError) as error:
        raise CheckpointError(f"{directory}: this model cannot be saved as a shrunk dense model: {error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write_weights(path: Path, model: nn.Module) -> None:
    """safetensors refuses views and shared memory, hence the copies."""
    describe_tensors(model)
    weights = {name: tensor.detach().contiguous().clone() for name, tensor in model.state_dict().items()}
    with replacing(path) as part:
        save_file(weights, part)
