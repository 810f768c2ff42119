"""Holds temporal action detection as a Task: a transformer detector on windows of untrimmed streams."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from toolkit.base.errors import UserError
from toolkit.measure.results import Quality, Segment, Timeline
from toolkit.tasks.predictions import Predictions
from toolkit.tasks.tad import losses
from toolkit.tasks.tad.metric import Detections, bootstrap_interval, mean_average_precision
from toolkit.tasks.tad.model import DetectorConfig, TransformerDetector
from toolkit.tasks.tad.streams import Stream, StreamSource
from toolkit.tasks.tad.windows import as_batch, cut_window, decode, make_targets, stitch, window_starts
from toolkit.tasks.task import AlignmentOptions, Batch, Split

EVALUATION_BATCH = 16

POOL_WINDOWS = 2048  # windows that count as all training data where a share of it is asked for

REPORTED: tuple[Split, ...] = ("validation", "test")

KEPT_SCORE = 0.02  # the least score of a prediction that the report's timeline shows


@dataclass(frozen=True)
class Window:
    """Names a window by the index of its stream in the split, and by its first sample."""

    stream: int
    start: int


class DetectionTask:
    """Is a `Task` of temporal action detection; fixed splits are cut into windows that overlap by half.

    Its metric is the mean of the mAP at tIoU 0.3, 0.4, 0.5, 0.6 and 0.7.
    """

    metric = "average mAP"
    protected: tuple[str, ...] = ("head",)

    def __init__(
        self,
        name: str,
        source: StreamSource,
        config: DetectorConfig,
        *,
        centre_share: float,
        baseline: Mapping[str, Tensor] | None,
    ) -> None:
        """Names the data and the detector.

        centre_share: the share of a segment's tokens, around its middle, that are positive in training.
        baseline: the trained weights; None where they are not available.
        """
        self.name, self.source, self.config = name, source, config
        self.centre_share = centre_share
        self._baseline = baseline
        self.window = config.patch * config.num_tokens
        self.token_s = config.patch / source.sample_rate_hz
        self._streams: dict[Split, tuple[Stream, ...]] = {}

    def build_model(self) -> nn.Module:
        """Returns the detector with random weights."""
        return TransformerDetector(self.config)

    def load_baseline(self) -> nn.Module:
        """Returns the trained detector in eval mode.

        Raises:
            UserError: there are no trained weights.
        """
        if self._baseline is None:
            raise UserError(f"task {self.name!r} has no trained baseline here; train one with python -m toolkit.train")
        model = self.build_model()
        model.load_state_dict(self._baseline)
        return model.eval()

    def example_inputs(self, batch_size: int) -> tuple[Tensor, ...]:
        """Returns one signal [batch, channels, samples], the same for every example."""
        shape = (batch_size, self.config.num_channels, self.window)
        return (torch.linspace(-40.0, 40.0, shape[1] * shape[2]).sin().expand(batch_size, -1).reshape(shape).clone(),)

    def streams(self, split: Split, limit: int | None = None) -> tuple[Stream, ...]:
        """Returns the streams of a split; with a limit, so many of them in a fixed random order."""
        if split not in self._streams:
            self._streams[split] = self.source.fixed(split)
        streams = self._streams[split]
        if limit is None:
            return streams
        return tuple(streams[index] for index in np.random.default_rng(0).permutation(len(streams))[:limit])

    def num_examples(self, split: Split) -> int:
        """Returns the number of whole streams in a split."""
        return len(self.streams(split))

    def batches(self, split: Split, batch_size: int, *, limit: int | None = None) -> Iterator[Batch]:
        """Yields the windows of a split's streams in order; `limit` counts streams."""
        streams = self.streams(split, limit)
        windows = [
            Window(index, start)
            for index, stream in enumerate(streams)
            for start in window_starts(len(stream.signal), self.window)
        ]
        for first in range(0, len(windows), batch_size):
            yield self._batch([(streams[w.stream], w.start) for w in windows[first : first + batch_size]])

    def train_batches(self, batch_size: int, seed: int, share: float = 1.0) -> Iterator[Batch]:
        """Yields random windows without end.

        With all data every window is new. With a share, the windows come from a fixed pool, whose size is that share of
        POOL_WINDOWS.
        """
        rng = np.random.default_rng([seed, 1])
        while True:
            windows = [rng if share == 1.0 else self._pooled(rng, seed, share) for _ in range(batch_size)]
            yield self._batch([(self.source.train(self.window / self.source.sample_rate_hz, w), 0) for w in windows])

    def _pooled(self, rng: np.random.Generator, seed: int, share: float) -> np.random.Generator:
        """Returns the random generator of a random window in the pool."""
        number = int(rng.integers(max(1, round(share * POOL_WINDOWS))))
        return np.random.default_rng([seed, 2, number])

    def _batch(self, windows: list[tuple[Stream, int]]) -> Batch:
        rate = self.source.sample_rate_hz
        signals = [cut_window(stream.signal, start, self.window) for stream, start in windows]
        targets = make_targets(
            [stream.segments - start / rate for stream, start in windows],
            [stream.labels for stream, _ in windows],
            num_tokens=self.config.num_tokens,
            num_classes=self.config.num_classes,
            token_s=self.token_s,
            centre_share=self.centre_share,
        )
        return Batch((as_batch(signals, self.source.mean, self.source.deviation),), targets)

    def loss(self, outputs: Any, targets: Any) -> Tensor:
        """Returns the detection loss."""
        return losses.detection_loss(outputs, targets)

    def alignment(self, student: Any, teacher: Any, targets: Any, options: AlignmentOptions) -> dict[str, Tensor]:
        """Returns the alignment terms `class` and `segment`."""
        return losses.prediction_alignment(student, teacher, options)

    def evaluate(self, model: nn.Module, split: Split, *, limit: int | None = None) -> Quality:
        """Returns the average mAP on a split, or on `limit` of its streams."""
        streams = self.streams(split, limit)
        truth, predicted = self._truth_of(streams), self.predict(model, streams)
        result = mean_average_precision(truth, predicted)
        details = {f"mAP@{threshold:.1f}": value for threshold, value in result.by_threshold.items()}
        details |= {f"AP {label}": value for label, value in result.by_class.items()}
        return Quality(
            metric=self.metric,
            split=split,
            value=result.average,
            num_examples=len(streams),
            interval=bootstrap_interval(truth, predicted) if split in REPORTED else None,
            details=details,
        )

    def truth(self, split: Split) -> dict[str, Detections]:
        """Returns the ground truth of a split, by the name of the stream."""
        return self._truth_of(self.streams(split))

    def _truth_of(self, streams: tuple[Stream, ...]) -> dict[str, Detections]:
        return {
            stream.name: Detections(
                stream.segments, tuple(self.source.classes[i] for i in stream.labels), np.ones(len(stream.labels))
            )
            for stream in streams
        }

    def predict(self, model: nn.Module, streams: tuple[Stream, ...]) -> dict[str, Detections]:
        """Returns the detections in whole streams, by the name of the stream."""
        starts = [window_starts(len(stream.signal), self.window) for stream in streams]
        pairs = [(stream, start) for stream, begins in zip(streams, starts, strict=True) for start in begins]
        logits, distances = self._forward(model, pairs)
        detections, first = {}, 0
        for stream, begins in zip(streams, starts, strict=True):
            part = (logits[first : first + len(begins)], distances[first : first + len(begins)])
            first += len(begins)
            scores, segments = stitch(
                stream, begins, part, patch=self.config.patch, sample_rate_hz=self.source.sample_rate_hz
            )
            detections[stream.name] = decode(scores, segments, self.source.classes)
        return detections

    def predictions(self, model: nn.Module, split: Split) -> Predictions:
        """Returns all detections in the streams of a split, in the order of the streams."""
        found = self.predict(model, self.streams(split))
        return Predictions.of_segments({name: _segments(detections, 0.0) for name, detections in found.items()})

    @torch.inference_mode()
    def _forward(self, model: nn.Module, pairs: list[tuple[Stream, int]]) -> tuple[Tensor, Tensor]:
        was_training = model.training
        device = next(model.parameters()).device
        model.eval()
        outputs = []
        for first in range(0, len(pairs), EVALUATION_BATCH):
            windows = [cut_window(s.signal, start, self.window) for s, start in pairs[first : first + EVALUATION_BATCH]]
            batch = as_batch(windows, self.source.mean, self.source.deviation).to(device)
            outputs.append([part.cpu() for part in model(batch)])
        model.train(was_training)
        return torch.cat([logits for logits, _ in outputs]), torch.cat([distances for _, distances in outputs])

    def timeline(self, model: nn.Module) -> Timeline:
        """Returns the first test stream with its true and its predicted segments."""
        stream = self.streams("test")[0]
        predicted = self.predict(model, (stream,))[stream.name]
        truth = self.truth("test")[stream.name]
        return Timeline(
            stream=stream.name,
            duration_s=len(stream.signal) / self.source.sample_rate_hz,
            truth=_segments(truth, 0.0),
            predicted=_segments(predicted, KEPT_SCORE),
        )


def _segments(detections: Detections, threshold: float) -> tuple[Segment, ...]:
    rows = zip(detections.segments.tolist(), detections.labels, detections.scores.tolist(), strict=True)
    return tuple(
        Segment(start_s=start, end_s=end, label=label, score=score)
        for (start, end), label, score in rows
        if score >= threshold
    )
