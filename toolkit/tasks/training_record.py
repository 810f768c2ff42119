"""Holds the settings and the record of the training of a baseline. Nothing here imports torch."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from toolkit.base.settings import Data, Positive, Settings, Version
from toolkit.measure.results import Environment, Quality

WEIGHTS_FILE = "weights.safetensors"

RECORD_FILE = "training.json"


class TrainConfig(Settings):
    """States how a baseline is trained: with AdamW, warm-up + cosine and averaged weights; the best ones are kept.

    version: the version of this format, which is 1.
    task: the name of the task.
    seed: fixes the initial weights and the order of the examples.
    max_steps, warmup_steps: numbers of optimiser steps.
    batch_size: examples per step.
    learning_rate: the largest learning rate, which warm-up ends with.
    weight_decay: weight decay of AdamW, on matrices and kernels only.
    ema_decay: decay of the averaged weights; 0 turns averaging off.
    validate_every: the number of steps between two validations.
    patience: the number of validations without improvement after which training stops; null never stops it.
    """

    version: Version = 1
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
    """Holds one point of the training curve: the mean training loss since the last point, and the validation metric."""

    step: int
    loss: float
    validation: float


class TrainRecord(Data):
    """Records how a baseline was trained; the record lies beside the weights.

    best_step: the step whose weights were kept.
    test: the metric on the test split; None unless `--test` was given.
    """

    command: str
    config: TrainConfig
    environment: Environment
    seconds: float
    weights_sha256: str
    best_step: int
    curve: tuple[BaselinePoint, ...]
    validation: Quality
    test: Quality | None
