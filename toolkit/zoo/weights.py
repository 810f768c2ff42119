"""Loads the user's own trained weights from a local file: safetensors, or what torch reads as plain data.

Size, names and shapes are compared with the model's before its weights are changed.
"""

from __future__ import annotations

import argparse
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from toolkit.base.errors import UserError
from toolkit.hooks.state import load_state
from toolkit.zoo.unwrapped import unwrapped

TORCH_ENDINGS = (".pt", ".pth", ".bin", ".ckpt", ".tar")  # of PyTorch, transformers, Lightning and timm

NAMED_CODE = re.compile(r"GLOBAL (\S+)")  # in torch's message: the class or function that the file asks for

MOST_FAULTS = 3

SPARE_BYTES = 16 * 2**20

MOST_TIMES = 8  # a checkpoint holds the weights, their moving average and two moments of each, some in float64

Shapes = Mapping[str, tuple[int, ...]]


class WeightsMisfitError(UserError):
    """Says that names or shapes in a file are not the model's; `shapes` are those in the file, by the model's names."""

    def __init__(self, message: str, shapes: Shapes) -> None:
        super().__init__(message)
        self.shapes = shapes


def load_weights(model: nn.Module, path: Path, key: str | None = None) -> None:
    """Reads the weights in a file into a model; floating numbers of other types are converted.

    key: the key of the weights in a checkpoint that holds several.

    Raises:
        UserError: the file cannot be read as weights, or its names and shapes are not the model's.
    """
    load_state(model, read_weights(model, path, key))


def read_weights(model: nn.Module, path: Path, key: str | None = None) -> dict[str, Tensor]:
    """Returns the weights in a file, which fit the model, by the model's names; the model is left as it is.

    model: the model, whose parameters may be on the meta device.
    key: as in `load_weights`.

    Raises:
        UserError: as `load_weights`.
    """
    state = model.state_dict()
    most_bytes = MOST_TIMES * sum(value.numel() * value.element_size() for value in state.values()) + SPARE_BYTES
    if path.suffix not in _READ:
        endings = ", ".join(_READ)
        raise UserError(f"{path}: a file of weights must end in one of: {endings}; not in {path.suffix!r}")
    try:
        if path.stat().st_size > most_bytes:
            raise UserError(
                f"{path}: has {path.stat().st_size} bytes, more than {MOST_TIMES} times what the model's weights take"
            )
        content = _READ[path.suffix](path, most_bytes)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    try:
        weights = unwrapped(content, state, key)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    _refuse_faults(path, {name: tuple(value.shape) for name, value in state.items()}, weights)
    other_kinds = [name for name in state if state[name].is_floating_point() != weights[name].is_floating_point()]
    if other_kinds:
        raise UserError(
            f"{path}: {other_kinds[0]} is {weights[other_kinds[0]].dtype}, the model's {state[other_kinds[0]].dtype}"
        )
    return weights


def _read_safetensors(path: Path, most_bytes: int) -> dict[str, Tensor]:
    return load_file(path)


def _read_torch(path: Path, most_bytes: int) -> Any:
    """Reads an archive of torch.save (since torch 1.6); code in it is not run (`weights_only`).

    A namespace of argparse, in which many training programs keep their arguments, holds nothing but attributes.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except zipfile.BadZipFile as error:
        raise UserError(f"{path}: not a file of torch.save ({error}); save its state dict again") from error
    if unpacked > most_bytes:
        raise UserError(f"{path}: holds {unpacked} bytes, more than {MOST_TIMES} times what the model's weights take")
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises anything on a damaged file
        named = NAMED_CODE.search(str(error))
        why = f"holds {named[1]}" if named else "cannot be read"
        raise UserError(
            f"{path}: not a state dict of plain tensors: it {why}, and code in a file is never run; "
            "save model.state_dict() alone"
        ) from error


def _refuse_faults(path: Path, expected: Shapes, weights: Mapping[str, Tensor]) -> None:
    in_file = {name: tuple(value.shape) for name, value in weights.items()}
    faults = list(_faults(expected, in_file))
    if faults:
        more = f"; and {len(faults) - MOST_FAULTS} more" if len(faults) > MOST_FAULTS else ""
        told = f"{path}: these are not weights of this model: {'; '.join(faults[:MOST_FAULTS])}{more}"
        raise WeightsMisfitError(told, in_file)


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
