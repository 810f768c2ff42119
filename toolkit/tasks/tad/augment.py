"""Random changes of training streams. Signals are float32 [samples, channels], three axes to a sensor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Signal = NDArray[np.float32]


@dataclass(frozen=True)
class Augment:
    """All amplitudes are largest values; zeros change nothing."""

    speed: float = 0.0  # signals are resampled by 1 +- speed
    rotation_deg: float = 0.0  # the sensor frame is turned about a random axis, once a stream
    scale: float = 0.0  # signals are scaled by 1 +- scale, once a stream
    noise: float = 0.0  # white noise, in units of each channel's deviation


def resampled(source: Signal, length: int, factor: float) -> Signal:
    """`length` samples of `source`, taken every `factor` samples by linear interpolation; it must be long enough."""
    position = np.arange(length) * factor
    below = position.astype(int)
    weight = (position - below)[:, None].astype(np.float32)
    return np.asarray(source[below] * (1 - weight) + source[below + 1] * weight, dtype=np.float32)


def augmented(signal: Signal, rng: np.random.Generator, augment: Augment) -> Signal:
    """Rotate each sensor's three axes alike, scale, add noise. Speed is for whoever cuts the signal out."""
    if augment.rotation_deg:
        rotation = _rotation(rng, np.deg2rad(augment.rotation_deg))
        triples = signal.reshape(len(signal), -1, 3)
        signal = (triples @ rotation.T).reshape(signal.shape)
    if augment.scale:
        signal = signal * np.float32(1.0 + rng.uniform(-augment.scale, augment.scale))
    if augment.noise:
        noise = rng.standard_normal(signal.shape, dtype=np.float32)
        signal = signal + noise * signal.std(axis=0, keepdims=True) * augment.noise
    return np.ascontiguousarray(signal, dtype=np.float32)


def _rotation(rng: np.random.Generator, largest: float) -> Signal:
    """A rotation by up to `largest` radians about a random axis (Rodrigues' formula), [3, 3]."""
    axis = rng.standard_normal(3)
    x, y, z = axis / np.linalg.norm(axis)
    angle = rng.uniform(-largest, largest)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross, dtype=np.float32)
