"""Reads ground truth and predictions in the JSON form of ActivityNet and THUMOS14."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from toolkit.base.errors import UserError
from toolkit.tasks.tad.metric import Detections


def truth_from_json(content: Mapping[str, Any], subset: str) -> dict[str, Detections]:
    """Returns the ground truth of a subset by video.

    content: `{"database": {id: {subset, annotations: [{segment, label}]}}}`; times are in seconds and may be strings.

    Raises:
        UserError: the content has another form, or lacks the subset.
    """
    videos = content.get("database")
    if not isinstance(videos, Mapping):
        raise UserError('ground truth in ActivityNet form must have a mapping "database" at the top')
    known = sorted({str(video.get("subset")) for video in videos.values()})
    if subset not in known:
        raise UserError(f"subset {subset!r} is not in the ground truth; choose one of: {', '.join(known)}")
    return {
        name: _detections(video.get("annotations", ()), f"database.{name}")
        for name, video in videos.items()
        if video.get("subset") == subset
    }


def predictions_from_json(content: Mapping[str, Any]) -> dict[str, Detections]:
    """Returns predictions by video.

    content: `{"results": {id: [{segment, label, score}]}}`; times are in seconds and may be strings.

    Raises:
        UserError: the content has another form.
    """
    results = content.get("results")
    if not isinstance(results, Mapping):
        raise UserError('predictions in ActivityNet form must have a mapping "results" at the top')
    for name, rows in results.items():
        if any("score" not in row for row in rows):
            raise UserError(f"results.{name}: a prediction has no score")
    return {name: _detections(rows, f"results.{name}") for name, rows in results.items()}


def _detections(rows: Iterable[Mapping[str, Any]], place: str) -> Detections:
    segments, labels, scores = [], [], []
    for row in rows:
        try:
            start, end = (float(value) for value in row["segment"])
            labels.append(str(row["label"]))
            scores.append(float(row.get("score", 1.0)))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{place}: {row!r} is not {{segment: [start, end], label, score}} in seconds") from error
        if end < start:
            raise UserError(f"{place}: segment {row['segment']!r} ends before it starts")
        segments.append((start, end))
    return Detections(np.asarray(segments, dtype=float).reshape(-1, 2), tuple(labels), np.asarray(scores, dtype=float))
