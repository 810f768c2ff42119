"""Holds what a task predicts as plain values, and writes it as CSV or in ActivityNet's JSON form.

Nothing here imports torch.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from toolkit.base.errors import UserError
from toolkit.base.files import write_atomically
from toolkit.measure.results import Segment

if TYPE_CHECKING:
    from torch import nn

    from toolkit.tasks.task import Split

SUFFIXES: Final = (".csv", ".json")

SEGMENT_COLUMNS: Final = ("stream", "start_s", "end_s", "label", "score")


@dataclass(frozen=True)
class Predictions:
    """Holds the predictions on a split.

    columns: the names of the columns.
    rows: one row per example, or per predicted segment.
    segments: the predicted segments by the name of the stream; None for a task that predicts no segments.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str | int | float, ...], ...]
    segments: Mapping[str, tuple[Segment, ...]] | None = None

    @classmethod
    def of_segments(cls, segments: Mapping[str, tuple[Segment, ...]]) -> Predictions:
        """Returns the predictions of a detector, with one row per segment."""
        rows = [
            (stream, segment.start_s, segment.end_s, segment.label, segment.score)
            for stream, found in segments.items()
            for segment in found
        ]
        return cls(SEGMENT_COLUMNS, tuple(rows), segments)

    def write(self, file: Path) -> None:
        """Writes a CSV file, or for `.json` a file in ActivityNet's form, whole or not at all.

        Raises:
            UserError: the file is to be `.json`, but no segments are predicted.
        """
        if file.suffix == ".csv":
            write_atomically(file, self._csv())
            return
        if self.segments is None:
            raise UserError(
                f"--out {file}: this task predicts no segments, so there is no JSON form; write a .csv file"
            )
        write_atomically(file, json.dumps(_activitynet(self.segments), indent=1) + "\n")

    def _csv(self) -> str:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(self.rows)
        return text.getvalue()


def _activitynet(segments: Mapping[str, tuple[Segment, ...]]) -> dict[str, object]:
    """Returns `{"results": {stream: [{label, score, segment}]}}`, with the keys beside it that evaluators ask for."""
    results = {
        stream: [{"label": part.label, "score": part.score, "segment": [part.start_s, part.end_s]} for part in found]
        for stream, found in segments.items()
    }
    return {"version": "VERSION 1.3", "results": results, "external_data": {"used": False, "details": ""}}


@runtime_checkable
class Predicts(Protocol):
    """Is what a task may offer besides, so that its predictions can be written to a file."""

    def predictions(self, model: nn.Module, split: Split) -> Predictions:
        """Returns what the model predicts for a fixed split; the model's mode and device are left as they were."""
