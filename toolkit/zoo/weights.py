"""Loads the user's own trained weights from a local file: safetensors, or a state dict that torch reads as plain data.

Names and shapes in the file are compared with the model's before the tensors are read into memory.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from toolkit.base.errors import UserError
from toolkit.hooks.state import load_state

TORCH_ENDINGS = (".pt", ".pth", ".bin")

MOST_FAULTS = 3

SPARE_BYTES = 16 * 2**20

Shapes = Mapping[str, tuple[int, ...]]


def load_weights(model: nn.Module, path: Path) -> None:
    """Reads the weights in a file into a model; floating numbers of other types are converted.

    Raises:
        UserError: the file cannot be read as weights, or its names and shapes are not the model's.
    """
    state = model.state_dict()
    most_bytes = 2 * sum(value.numel() * value.element_size() for value in state.values()) + SPARE_BYTES
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    try:
        if path.stat().st_size > most_bytes:
            raise UserError(f"{path}: has {path.stat().st_size} bytes, more than twice what the model's weights take")
        weights = _READ[path.suffix](path, shapes, most_bytes)
    except KeyError as error:
        endings = ", ".join(_READ)
        raise UserError(f"{path}: a file of weights must end in one of: {endings}; not in {path.suffix!r}") from error
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    other_kinds = [name for name in state if state[name].is_floating_point() != weights[name].is_floating_point()]
    if other_kinds:
        raise UserError(
            f"{path}: {other_kinds[0]} is {weights[other_kinds[0]].dtype}, the model's {state[other_kinds[0]].dtype}"
        )
    load_state(model, weights)


def _read_safetensors(path: Path, expected: Shapes, most_bytes: int) -> dict[str, Tensor]:
    with safe_open(path, framework="pt") as file:
        in_file = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    _refuse_faults(path, expected, in_file)
    return load_file(path)


def _read_torch(path: Path, expected: Shapes, most_bytes: int) -> dict[str, Tensor]:
    """Reads an archive of torch.save (since torch 1.6); code in it is not run (`weights_only`)."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except zipfile.BadZipFile as error:
        raise UserError(f"{path}: not a file of torch.save ({error}); save its state dict again") from error
    if unpacked > most_bytes:
        raise UserError(f"{path}: holds {unpacked} bytes, more than twice what the model's weights take")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises anything on a damaged file
        raise UserError(f"{path}: not a state dict of plain tensors: {' '.join(str(error).split())[:300]}") from error
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        keys = f" of {', '.join(map(str, content))[:100]}" if isinstance(content, dict) else ""
        raise UserError(f"{path}: holds a {type(content).__name__}{keys}, not a state dict; save model.state_dict()")
    _refuse_faults(path, expected, {str(name): tuple(value.shape) for name, value in content.items()})
    return dict(content)


def _refuse_faults(path: Path, expected: Shapes, in_file: Shapes) -> None:
    faults = list(_faults(expected, in_file))
    if faults:
        more = f"; and {len(faults) - MOST_FAULTS} more" if len(faults) > MOST_FAULTS else ""
        raise UserError(f"{path}: these are not weights of this model: {'; '.join(faults[:MOST_FAULTS])}{more}")


def _faults(expected: Shapes, in_file: Shapes) -> Iterator[str]:
    for name in expected:
        if name not in in_file:
            yield f"{name} is missing"
        elif in_file[name] != expected[name]:
            yield f"{name} is {in_file[name]}, not {expected[name]}"
    for name in in_file:
        if name not in expected:
            yield f"{name[:80]!a} is not in the model"


_READ = {".safetensors": _read_safetensors, **dict.fromkeys(TORCH_ENDINGS, _read_torch)}
