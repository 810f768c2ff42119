"""Trained baselines: weights as safetensors beside the record of how they were made."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from toolkit.errors import UserError
from toolkit.training import TrainRecord

WEIGHTS_FILE = "weights.safetensors"
RECORD_FILE = "training.json"


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_baseline(folder: Path) -> dict[str, Tensor] | None:
    """The weights that `python -m toolkit.train --out folder` wrote; None if there is no such folder.

    Raises:
        UserError: the folder is there but its weights are not those of its record.
    """
    if not folder.exists():
        return None
    try:
        record = TrainRecord.model_validate_json((folder / RECORD_FILE).read_bytes())
        content = (folder / WEIGHTS_FILE).read_bytes()
        if hashlib.sha256(content).hexdigest() != record.weights_sha256:
            raise UserError(f"{folder / WEIGHTS_FILE}: damaged, its SHA-256 is not the one in {RECORD_FILE}")
        return load(content)
    except (OSError, ValidationError, SafetensorError) as error:
        raise UserError(f"{folder}: not a trained baseline: {error}") from error
