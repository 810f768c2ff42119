"""Trained baselines: weights as safetensors beside the record of how they were made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from toolkit.base.errors import UserError
from toolkit.base.files import bytes_sha256
from toolkit.base.settings import Data, Positive, Settings, Version
from toolkit.measure.results import Environment, Quality

WEIGHTS_FILE = "weights.safetensors"

RECORD_FILE = "training.json"


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
        if bytes_sha256([content]) != record.weights_sha256:
            raise UserError(f"{folder / WEIGHTS_FILE}: damaged, its SHA-256 is not the one in {RECORD_FILE}")
        return load(content)
    except (OSError, ValidationError, SafetensorError) as error:
        raise UserError(f"{folder}: not a trained baseline: {error}") from error


class TrainConfig(Settings):
    """How a baseline is trained: AdamW, warm-up + cosine, averaged weights, the best validation is kept."""

    version: Version
    task: str
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    max_steps: Positive
    batch_size: Positive
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)]
    weight_decay: Annotated[float, Field(ge=0.0, le=1.0)]
    warmup_steps: Annotated[int, Field(ge=0)]
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)]
    validate_every: Positive
    patience: Positive | None = None


class BaselinePoint(Data):
    step: int
    loss: float
    validation: float


class TrainRecord(Data):
    """How a trained baseline came to be; lies beside its weights."""

    command: str
    config: TrainConfig
    environment: Environment
    seconds: float
    weights_sha256: str
    best_step: int
    curve: tuple[BaselinePoint, ...]
    validation: Quality
    test: Quality | None  # evaluated once, after training, only on demand
