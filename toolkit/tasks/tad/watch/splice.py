"""Splices untrimmed streams from one subject's real recordings.

Actions and background alternate. Every episode is made of several pieces. All joints, at the boundary of an action,
inside it or inside background, are cross-faded in the same way, so that a joint alone does not tell where an action
starts or ends; `seam_control.py` measures this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from toolkit.tasks.tad.augment import Augment, Signal, augmented, resampled
from toolkit.tasks.tad.streams import Stream


@dataclass(frozen=True)
class SpliceConfig:
    """Holds the durations of episodes and pieces in seconds; a range is (shortest, longest), drawn uniformly.

    fade_s: the length of a cross-fade.
    shuffled: whether every piece comes from any exercise, whatever its label, as the seam control needs.
    """

    sample_rate_hz: int = 50
    action_s: tuple[float, float] = (8.0, 24.0)
    background_s: tuple[float, float] = (5.0, 16.0)
    piece_s: tuple[float, float] = (3.0, 9.0)
    fade_s: float = 0.5
    shuffled: bool = False


def _piece(source: Signal, length: int, speed: float, rng: np.random.Generator) -> Signal:
    """Returns a random stretch of a signal, resampled by a random factor in 1 +- speed.

    It has `length` samples, or fewer if the signal is too short.
    """
    factor = 1.0 + rng.uniform(-speed, speed)
    needed = int(np.ceil(length * factor)) + 1
    if needed > len(source):
        needed = len(source)
        length = int((needed - 1) / factor)
    start = int(rng.integers(0, len(source) - needed + 1))
    stretch = source[start : start + needed]
    if speed == 0.0:
        return stretch[:length]
    return resampled(stretch, length, factor)


def _join(signal: list[Signal], piece: Signal, fade: int) -> None:
    """Appends a piece to the signal, with a linear cross-fade over the last `fade` samples so far."""
    if signal:
        weight = np.linspace(0.0, 1.0, fade + 2, dtype=np.float32)[1:-1, None]
        last = signal[-1]
        signal[-1] = np.concatenate([last[:-fade], last[-fade:] * (1 - weight) + piece[:fade] * weight])
        piece = piece[fade:]
    signal.append(piece)


class Splicer:
    """Splices streams of one subject and arm.

    actions, background: the signals of the recordings, by exercise.
    """

    def __init__(
        self,
        actions: Mapping[str, Sequence[Signal]],
        background: Mapping[str, Sequence[Signal]],
        config: SpliceConfig,
    ) -> None:
        assert actions and background, "a stream needs actions and background"
        self.actions = {name: list(signals) for name, signals in actions.items()}
        self.background = {name: list(signals) for name, signals in background.items()}
        self.config = config

    def stream(self, name: str, duration_s: float, rng: np.random.Generator, augment: Augment | None = None) -> Stream:
        """Returns a stream of exactly `duration_s` seconds, which starts and ends anywhere in an episode."""
        config, augment = self.config, augment or Augment()
        rate, fade = config.sample_rate_hz, round(config.fade_s * config.sample_rate_hz)
        lead_in = int(rng.uniform(0, config.action_s[1] + config.background_s[1]) * rate)
        total = lead_in + round(duration_s * rate)
        signal: list[Signal] = []
        length, bounds, joints = 0, [], []
        action_turn = bool(rng.integers(2))
        classes: list[str] = []
        while length < total + fade:
            if action_turn and not classes:
                classes = [str(c) for c in rng.permutation(list(self.actions))]
            label = classes.pop() if action_turn else None
            begin = length
            end = length + int(rng.uniform(*(config.action_s if action_turn else config.background_s)) * rate)
            while length < end:
                wanted = int(rng.uniform(*config.piece_s) * rate)
                if end - length - wanted < config.piece_s[0] * rate:  # so that the last piece is not too short
                    wanted = max(end - length, fade + 1)
                piece = _piece(self._source(label, rng), wanted + fade, augment.speed, rng)
                joints.append(length)
                _join(signal, piece, fade)
                length += len(piece) - fade
            if label is not None:
                bounds.append((begin, length, label))
            action_turn = not action_turn
        return self._cut(name, np.concatenate(signal), bounds, joints, lead_in, total, rng, augment)

    def _source(self, label: str | None, rng: np.random.Generator) -> Signal:
        if self.config.shuffled:
            group = {**self.actions, **self.background}
        else:
            group = self.background if label is None else {label: self.actions[label]}
        signals = group[list(group)[int(rng.integers(len(group)))]]
        return signals[int(rng.integers(len(signals)))]

    def _cut(
        self,
        name: str,
        signal: Signal,
        bounds: Sequence[tuple[int, int, str]],
        joints: Sequence[int],
        begin: int,
        end: int,
        rng: np.random.Generator,
        augment: Augment,
    ) -> Stream:
        """Returns the samples `begin` to `end` as a stream; a segment stays if at least a second of it is inside."""
        rate, fade = self.config.sample_rate_hz, round(self.config.fade_s * self.config.sample_rate_hz)
        middle = fade / 2  # a joint at sample n fades over n .. n + fade; its middle is the boundary
        classes = list(self.actions)
        rows = []
        for first, last, label in bounds:
            start, stop = max(first + middle, begin) - begin, min(last + middle, end) - begin
            if stop - start >= rate:
                rows.append((start / rate, stop / rate, classes.index(label)))
        table = np.asarray(rows, dtype=np.float64).reshape(-1, 3)
        inside = np.asarray([(j + middle - begin) / rate for j in joints if begin <= j + middle < end])
        body = augmented(signal[begin:end], rng, augment)
        return Stream(name, body, table[:, :2], table[:, 2].astype(np.int64), inside)
