"""What `python -m toolkit.train` is told and what it leaves behind. Nothing here imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from toolkit.check import check_task
from toolkit.config import Config
from toolkit.errors import Fault, RecipeError
from toolkit.plain_faults import plain_faults
from toolkit.recipe import Version
from toolkit.record import Entry, Environment, Quality
from toolkit.stage_configs import Positive
from toolkit.yaml_nodes import read_yaml


class TrainConfig(Config):
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


class CurvePoint(Entry):
    step: int
    loss: float
    validation: float


class TrainRecord(Entry):
    """How a trained baseline came to be; lies beside its weights."""

    command: str
    config: TrainConfig
    environment: Environment
    seconds: float
    weights_sha256: str
    best_step: int
    curve: tuple[CurvePoint, ...]
    validation: Quality
    test: Quality | None  # evaluated once, after training, only on demand


def read_train_config(path: Path) -> TrainConfig:
    """Read a training configuration, with the same strictness as recipes.

    Raises:
        RecipeError: with every fault, its file and line.
    """
    document = read_yaml(path)
    try:
        config = TrainConfig.model_validate(document.data)
        faults = check_task(config.task)
    except ValidationError as error:
        faults = plain_faults(error, TrainConfig)
    placed = [Fault(f.path, f.message, document.lines.at(f.path)) for f in faults if not document.refuses(f.path)]
    if document.faults or placed:
        raise RecipeError(sorted([*document.faults, *placed], key=lambda fault: fault.line or 0), path)
    return config
