"""Keeps finished rounds of a stage on disk, so that an interrupted stage can resume.

round-NN/        choice.json        chosen block with all scores, so that scoring is not repeated
                 align.safetensors  progress of the training after the round (toolkit.training.checkpoint)
                 model/             model after the round
                 round.json         detail of the round, written last: the round is finished
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from toolkit.base.errors import RecordError
from toolkit.base.files import write_atomically
from toolkit.base.settings import Detail


def _no_models(*_: object) -> Any:
    raise AssertionError("a store without a folder keeps no models")


@dataclass(frozen=True)
class RoundStore:
    """Stores the rounds of one stage; without a folder nothing is stored.

    save: writes a model to a new folder.
    load: reads a model back as it was saved.
    """

    folder: Path | None = None
    save: Callable[[nn.Module, Path], None] = _no_models
    load: Callable[[Path], nn.Module] = _no_models

    def finished(self) -> list[Detail]:
        """Returns the details of all finished rounds, in order."""
        details: list[Detail] = []
        while (detail := self._read(len(details) + 1, "round.json")) is not None:
            details.append(detail)
        return details

    def model_after(self, number: int) -> nn.Module:
        """Returns the model after a finished round; rounds are counted from 1."""
        assert self.folder is not None
        return self.load(self._round(number) / "model")

    def choice(self, number: int) -> Detail | None:
        """Returns the choice of an unfinished round, or None if it has not chosen yet."""
        return self._read(number, "choice.json")

    def keep_choice(self, number: int, detail: Detail) -> None:
        """Writes the choice of a round."""
        self._write(number, "choice.json", detail)

    def alignment(self, number: int) -> Path | None:
        """Returns the file for the checkpoint of the training of a round, or None without a folder."""
        if self.folder is None:
            return None
        self._round(number).mkdir(parents=True, exist_ok=True)
        return self._round(number) / "align.safetensors"

    def finish(self, number: int, model: nn.Module, detail: Detail) -> nn.Module:
        """Saves a round and returns its model as loaded again.

        A run that goes on and one that resumes thus have the same model.
        """
        if self.folder is None:
            return model
        folder = self._round(number) / "model"
        shutil.rmtree(folder, ignore_errors=True)  # left by a process that was killed before it wrote round.json
        folder.parent.mkdir(parents=True, exist_ok=True)
        self.save(model, folder)
        loaded = self.load(folder)
        self._write(number, "round.json", detail)
        return loaded

    def _round(self, number: int) -> Path:
        assert self.folder is not None
        return self.folder / f"round-{number:02d}"

    def _write(self, number: int, name: str, detail: Detail) -> None:
        if self.folder is None:
            return
        self._round(number).mkdir(parents=True, exist_ok=True)
        write_atomically(self._round(number) / name, json.dumps(detail) + "\n")

    def _read(self, number: int, name: str) -> Detail | None:
        if self.folder is None or not (self._round(number) / name).exists():
            return None
        try:
            detail = json.loads((self._round(number) / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RecordError(
                f"{self._round(number) / name}: damaged ({error}); remove the folder of this round"
            ) from error
        assert isinstance(detail, dict)
        return detail
