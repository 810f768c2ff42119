"""Changes training streams at random. Signals are float32 [samples, channels]; every sensor has three axes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Signal = NDArray[np.float32]


@dataclass(frozen=True)
class Augment:
    """Holds the largest values of all random changes; zeros change nothing.

    speed: signals are resampled by 1 +- speed.
    rotation_deg: degrees by which the sensor frame is turned about a random axis, once per stream.
    scale: signals are scaled by 1 +- scale, once per stream.
    noise: white noise, in units of each channel's standard deviation.
    """

    speed: float = 0.0
    rotation_deg: float = 0.0
    scale: float = 0.0
    noise: float = 0.0


def resampled(source: Signal, length: int, factor: float) -> Signal:
    """Returns `length` samples of a signal, one every `factor` samples, by linear interpolation.

    source: the signal, of at least ceil(length * factor) + 1 samples.
    """
    position = np.arange(length) * factor
    below = position.astype(int)
    weight = (position - below)[:, None].astype(np.float32)
    return np.asarray(source[below] * (1 - weight) + source[below + 1] * weight, dtype=np.float32)


def augmented(signal: Signal, rng: np.random.Generator, augment: Augment) -> Signal:
    """Returns the signal rotated (all sensors alike), scaled and with noise; the speed is left to the caller."""
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
    """Returns a rotation [3, 3] by up to `largest` radians about a random axis (Rodrigues' formula)."""
    axis = rng.standard_normal(3)
    x, y, z = axis / np.linalg.norm(axis)
    angle = rng.uniform(-largest, largest)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross, dtype=np.float32)
