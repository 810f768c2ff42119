"""Rounds of a stage on disk, so that a stage that was stopped goes on where it was.

round-NN/        choice.json        the block that was chosen, with all scores: scoring is not repeated
                 align.safetensors  how far its training is (toolkit.training.checkpoint)
                 model/             the model after the round, then
                 round.json         the round's detail: the round is finished
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
    """Without a folder nothing is kept. `save` writes a model to a new folder; `load` reads it back as it was saved."""

    folder: Path | None = None
    save: Callable[[nn.Module, Path], None] = _no_models
    load: Callable[[Path], nn.Module] = _no_models

    def finished(self) -> list[Detail]:
        """The details of all finished rounds, in order."""
        details: list[Detail] = []
        while (found := self._read(len(details) + 1, "round.json")) is not None:
            details.append(found)
        return details

    def model_after(self, number: int) -> nn.Module:
        assert self.folder is not None
        return self.load(self._round(number) / "model")

    def choice(self, number: int) -> Detail | None:
        return self._read(number, "choice.json")

    def keep_choice(self, number: int, detail: Detail) -> None:
        self._write(number, "choice.json", detail)

    def alignment(self, number: int) -> Path | None:
        """Returns the file where the training of a round may leave what it needs to go on; None without a folder."""
        if self.folder is None:
            return None
        self._round(number).mkdir(parents=True, exist_ok=True)
        return self._round(number) / "align.safetensors"

    def finish(self, number: int, model: nn.Module, detail: Detail) -> nn.Module:
        """Keep the round; what comes back is the model as it was saved and loaded, as after a stop."""
        if self.folder is None:
            return model
        place = self._round(number) / "model"
        shutil.rmtree(place, ignore_errors=True)  # left by a process that was killed before it wrote round.json
        place.parent.mkdir(parents=True, exist_ok=True)
        self.save(model, place)
        loaded = self.load(place)
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
            raise RecordError(f"{self._round(number) / name}: damaged ({error}); remove that round's folder") from error
        assert isinstance(detail, dict)
        return detail
