"""Makes clips: a digit that moves in one of eight ways over a photograph, with noise that is the same in every frame.

A still clip repeats one frame. In the other clips something comes back about every 4 frames: a digit that leaves on one
side enters on the other, one that has grown starts small again, one that rotates has turned once. So every frame is
needed to tell these ways apart: in every second frame a digit that moves to the left looks like one that moves to the
right, and one that grows like one that shrinks; in every fourth frame all of them look nearly still.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from toolkit.tasks.moving_digits.sources import Material

MOTIONS = ("still", "left", "right", "up", "down", "in", "out", "rotation")

ROUND = (0,) * 14 + tuple(
    range(1, 8)
) * 3  # the motions of 35 clips: 14 of 35 are still (40 %), 3 are of each other way

NUM_FRAMES, SIDE = 16, 32

PERIOD = (3.5, 4.65)  # frames after which a moving digit is where it was, or as large as it was

TURN = (3.85, 4.15)  # frames after which a rotating digit stands as it stood

SMALL, LARGE = 14.0, 24.0  # sides of digits, in pixels

TILT = 0.15  # the largest tilt of a digit, in radians

DIMMED = 0.5  # what is left of the photographs' light, so that digits, which are light, stand out

LIGHT = (0.7, 1.0)  # of digits; white is 1

NOISE = 0.05  # standard deviation of the noise; white is 1

CHUNK = 64  # clips that are drawn at once, so that the memory that is taken stays small

# Of every way of moving what changes by one period in `PERIOD` (or, for angles, in `TURN`) frames, with its sign.
_ACROSS = {"left": -1, "right": 1}

_DOWN = {"up": -1, "down": 1}

_GROWTH = {"in": 1, "out": -1}

_TURNED = {"rotation": 1}


@dataclass(frozen=True, eq=False)
class Clips:
    """Holds clips.

    pixels: uint8 [N, 1, 16, 32, 32].
    digits: int64 [N], which digit is seen.
    motions: int64 [N], indices into `MOTIONS`.
    """

    pixels: Tensor
    digits: Tensor
    motions: Tensor


def motions_of(count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Returns the motions of clips: every 35 of them are a shuffled `ROUND`."""
    rounds = [rng.permutation(ROUND) for _ in range(-(-count // len(ROUND)))]
    return np.concatenate(rounds)[:count].astype(np.int64)


def make_clips(count: int, material: Material, rng: np.random.Generator) -> Clips:
    """Returns new clips of digits and parts of photographs, drawn with replacement; the generator fixes everything."""
    motions = motions_of(count, rng)
    places = rng.integers(len(material.labels), size=count)
    pixels = [
        _drawn(motions[first : first + CHUNK], material.images[places[first : first + CHUNK]], material, rng)
        for first in range(0, count, CHUNK)
    ]
    return Clips(torch.cat(pixels), torch.from_numpy(material.labels[places]), torch.from_numpy(motions))


def _drawn(
    motions: NDArray[np.int64], images: NDArray[np.float32], material: Material, rng: np.random.Generator
) -> Tensor:
    """Returns the pixels of clips with these motions and these digits' images."""
    count = len(motions)
    ink = _ink(torch.from_numpy(images), _tracks(motions, rng))
    backgrounds = _backgrounds(count, material, rng)
    light = rng.uniform(*LIGHT, (count, 1, 1, 1)).astype(np.float32)
    noise = rng.standard_normal((count, SIDE, SIDE), dtype=np.float32) * np.float32(NOISE)
    behind, grain = torch.from_numpy(backgrounds)[:, None], torch.from_numpy(noise)[:, None]
    frames = behind + ink * (torch.from_numpy(light) - behind) + grain
    return (frames * 255).round().clamp(0, 255).to(torch.uint8)[:, None]


def _backgrounds(count: int, material: Material, rng: np.random.Generator) -> NDArray[np.float32]:
    """Returns squares [count, 32, 32] of the photographs."""
    squares = np.empty((count, SIDE, SIDE), dtype=np.float32)
    for number in range(count):
        photo = material.photos[int(rng.integers(len(material.photos)))]
        top, left = (int(rng.integers(size - SIDE + 1)) for size in photo.shape)
        squares[number] = DIMMED * photo[top : top + SIDE, left : left + SIDE]
    return squares


@dataclass(frozen=True, eq=False)
class _Tracks:
    """Says where digits are in every frame; each is float32 [N, 16].

    x, y: of the middle, in pixels, before what leaves the frame re-enters.
    side: of the square that the digit fills, in pixels.
    angle: in radians.
    """

    x: Tensor
    y: Tensor
    side: Tensor
    angle: Tensor


def _tracks(motions: NDArray[np.int64], rng: np.random.Generator) -> _Tracks:
    """Returns new tracks. Where a digit does not move, it is wholly inside the frame."""
    count = len(motions)
    start = rng.uniform(0.0, 1.0, (3, count, 1))  # of x, y and size
    cycles = np.arange(NUM_FRAMES) / rng.uniform(*PERIOD, (count, 1))
    turns = np.arange(NUM_FRAMES) / rng.uniform(*TURN, (count, 1)) * rng.choice((-1.0, 1.0), (count, 1))
    tilt = rng.uniform(-TILT, TILT, (count, 1))
    moved = np.stack([_signs(motions, _ACROSS), _signs(motions, _DOWN)])
    places = np.where(moved, start[:2] * SIDE, LARGE / 2 + start[:2] * (SIDE - LARGE)) + moved * cycles * SIDE
    side = SMALL * (LARGE / SMALL) ** ((start[2] + _signs(motions, _GROWTH) * cycles) % 1.0)
    angle = tilt + _signs(motions, _TURNED) * turns * 2 * np.pi
    return _Tracks(*(torch.from_numpy(part.astype(np.float32)) for part in (*places, side, angle)))


def _signs(motions: NDArray[np.int64], of: Mapping[str, int]) -> NDArray[np.float64]:
    """Returns the sign of each clip's motion [N, 1], 0 where the mapping does not have it."""
    return np.array([of.get(name, 0) for name in MOTIONS], dtype=np.float64)[motions][:, None]


def _ink(images: Tensor, tracks: _Tracks) -> Tensor:
    """Returns the share of ink [N, 16, 32, 32] of digits [N, 8, 8]; what leaves the frame re-enters opposite."""
    count = len(images)
    pixel = torch.arange(SIDE) + 0.5
    across = torch.remainder(pixel - tracks.x[..., None] + SIDE / 2, SIDE) - SIDE / 2  # [N, 16, 32]: pixels from the
    down = torch.remainder(pixel - tracks.y[..., None] + SIDE / 2, SIDE) - SIDE / 2  # middle of the digit
    cos, sin = ((part / (tracks.side / 2))[..., None] for part in (tracks.angle.cos(), tracks.angle.sin()))
    rows = (down * cos)[..., :, None] - (across * sin)[..., None, :]
    columns = (across * cos)[..., None, :] + (down * sin)[..., :, None]
    grid = torch.stack([columns, rows], dim=-1).view(count, NUM_FRAMES * SIDE, SIDE, 2)
    ink = F.grid_sample(images[:, None], grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return ink.view(count, NUM_FRAMES, SIDE, SIDE)
