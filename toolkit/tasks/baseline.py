"""Reads trained baselines: weights as safetensors, beside the record of their training.

Weights that were trained on data whose licence forbids commercial use do not ship: every user trains them, into the
folder that `TOOLKIT_BASELINES` names, or into runs/baselines.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from toolkit.base.errors import UserError
from toolkit.base.files import bytes_sha256
from toolkit.tasks.contract import seeded_name
from toolkit.tasks.training_record import RECORD_FILE, WEIGHTS_FILE, TrainRecord

BASELINES_VARIABLE = "TOOLKIT_BASELINES"

BASELINES = Path("runs") / "baselines"


def read_baseline(folder: Path) -> dict[str, Tensor] | None:
    """Returns the weights that `python -m toolkit.train --out folder` wrote; None if there is no such folder.

    Raises:
        UserError: a file is missing or damaged, or the weights are not those of the record.
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
        raise UserError(f"{folder}: not the folder of a trained baseline: {error}") from error


@dataclass(frozen=True)
class LocalBaseline:
    """Is a baseline of one seed that the user trains; it is read only when it is needed.

    family: the name of the task with the baseline of seed 0, which names of the other seeds begin with.
    config: the settings of the training, a file of the repository, for seed 0.
    """

    family: str
    seed: int
    config: str

    @property
    def task(self) -> str:
        """Returns the name of the task with this baseline."""
        return seeded_name(self.family, self.seed)

    @property
    def folder(self) -> Path:
        """Returns the folder of the weights."""
        return Path(os.environ.get(BASELINES_VARIABLE) or BASELINES) / f"{self.family}-seed{self.seed}"

    def load_into(self, model: nn.Module) -> nn.Module:
        """Returns the model in eval mode after it got the trained weights.

        Raises:
            UserError: as `weights`.
        """
        model.load_state_dict(self.weights())
        return model.eval()

    def weights(self) -> dict[str, Tensor]:
        """Returns the trained weights.

        Raises:
            UserError: the baseline is missing or damaged, or was trained for another task or seed.
        """
        folder = self.folder
        weights = read_baseline(folder)
        command = f"python -m toolkit.train {self.config} --out {folder}"
        how = command if self.seed == 0 else f"{command} with seed: {self.seed} in a copy of that file"
        if weights is None:
            raise UserError(
                f"{folder}: task {self.task!r} has no trained baseline there (weights trained on its data do not "
                f"ship); train it: {how}; or set {BASELINES_VARIABLE} to the folder that holds it"
            )
        config = TrainRecord.model_validate_json((folder / RECORD_FILE).read_bytes()).config
        if config.seed != self.seed or not config.task.startswith(self.family):
            raise UserError(
                f"{folder}: was trained for task {config.task!r} with seed {config.seed}, "
                f"but {self.task!r} needs seed {self.seed}; train it: {how}"
            )
        return weights
