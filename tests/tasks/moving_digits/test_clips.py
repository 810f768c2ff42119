"""The clips of moving-digits: what moves, how fast, what is the same in every frame, and what no two splits share."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from toolkit.tasks.moving_digits.clips import MOTIONS, PERIOD, SIDE, TURN, Clips, make_clips, motions_of
from toolkit.tasks.moving_digits.sources import Material, material_of, training_material
from toolkit.tasks.task import Split

FIXED: tuple[Split, ...] = ("score", "calibration", "holdout")


@pytest.fixture(scope="module")
def marks() -> Clips:
    """Clips whose digit is a light bar in the upper half of its square, over black."""
    image = np.zeros((1, 8, 8), dtype=np.float32)
    image[:, 1:3, 2:6] = 1.0
    black = np.zeros((SIDE, SIDE), dtype=np.float32)
    return make_clips(70, Material(image, np.zeros(1, dtype=np.int64), (black,)), np.random.default_rng(0))


@pytest.fixture(scope="module")
def clips() -> Clips:
    return make_clips(70, training_material(), np.random.default_rng(0))


def light(marks: Clips, motion: str) -> Tensor:
    """The light of the marks [clips, 16, 32, 32], without the noise."""
    pixels = marks.pixels[marks.motions == MOTIONS.index(motion), 0].double()
    return (pixels - 60).clamp(min=0)


def places(seen: Tensor, dim: int) -> Tensor:
    """The middle of the light along a side that is closed to a ring, as a complex number of modulus 1: [clips, 16]."""
    turn = torch.exp(2j * torch.pi * torch.arange(SIDE) / SIDE)
    total = (seen.sum(dim) * turn).sum(-1)
    return total / total.abs()


def test_four_of_ten_are_still_and_the_other_motions_are_equally_frequent() -> None:
    counts = np.bincount(motions_of(700, np.random.default_rng(0)))
    assert counts.tolist() == [280, *[60] * 7]
    assert len(motions_of(1, np.random.default_rng(0))) == 1


def test_a_still_clip_repeats_one_frame_and_no_other_does(clips: Clips) -> None:
    is_repeated = (clips.pixels[:, 0, 1:] == clips.pixels[:, 0, :1]).flatten(2).all(2)
    is_still = clips.motions == MOTIONS.index("still")
    assert is_repeated[is_still].all() and not is_repeated[~is_still].any()
    assert len(set(map(bytes, clips.pixels[is_still, 0, 0].numpy()))) == int(is_still.sum())


def test_what_does_not_move_is_the_same_in_every_frame(clips: Clips) -> None:
    """Noise included: most pixels of a clip are background that no digit passes."""
    turning = clips.pixels[clips.motions == MOTIONS.index("rotation"), 0]
    assert ((turning == turning[:, :1]).all(1).flatten(1).double().mean(1) > 0.2).all()


@pytest.mark.parametrize(("motion", "dim", "sign"), [("left", 2, -1), ("right", 2, 1), ("up", 3, -1), ("down", 3, 1)])
def test_digits_move_where_they_are_said_to_and_alias_in_every_second_frame(
    marks: Clips, motion: str, dim: int, sign: int
) -> None:
    at = places(light(marks, motion), dim)
    step = (at[:, 1:] / at[:, :-1]).angle() * sign / (2 * torch.pi)  # in periods
    assert ((step > 0.8 / PERIOD[1]) & (step < 1.2 / PERIOD[0])).all()
    second, fourth = ((at[:, n:] / at[:, :-n]).angle().abs() / (2 * torch.pi) for n in (2, 4))
    assert (second > 0.4).all()  # half a period, which has no direction
    assert (fourth < 0.2).all()  # nearly a whole one, which is nearly still
    across = places(light(marks, motion), 5 - dim)
    assert ((across[:, 1:] / across[:, :1]).angle().abs() < 0.2).all()


@pytest.mark.parametrize(("motion", "sign"), [("in", 1), ("out", -1)])
def test_digits_grow_or_shrink_and_start_again(marks: Clips, motion: str, sign: int) -> None:
    area = light(marks, motion).sum((2, 3)).log()
    change = area.diff(dim=1) * sign
    assert ((change < 0).sum(1) <= 16 / PERIOD[0] + 1).all() and ((change < 0).sum(1) >= 1).all()
    assert (area.amax(1) - area.amin(1) > 0.7).all()


def test_a_digit_that_rotates_looks_nearly_still_in_every_fourth_frame(marks: Clips) -> None:
    seen = light(marks, "rotation").flatten(2)
    seen = seen / seen.norm(dim=2, keepdim=True)
    fourth, second = ((seen[:, step:] * seen[:, :-step]).sum(2).mean() for step in (4, 2))
    assert fourth > 0.8 and second < 0.3
    assert TURN[0] < 4 < TURN[1]


def test_no_two_splits_share_a_digit_or_a_column_of_a_photograph() -> None:
    training = training_material()
    parts = [material_of(split) for split in FIXED]
    assert sum(len(part.labels) for part in parts) == len(training.labels) == 1197
    others = [material_of("validation"), material_of("test")]
    assert [len(part.labels) for part in others] == [300, 300]
    images = [image.tobytes() for part in (*parts, *others) for image in part.images]
    assert len(images) == 1797 and len(set(images)) > 1790  # a few people draw the same 64 pixels
    for one, two, three in zip(training.photos, others[0].photos, others[1].photos, strict=True):
        assert one.shape[1] + two.shape[1] + three.shape[1] == 320
        assert not {column.tobytes() for column in one.T} & {column.tobytes() for column in (*two.T, *three.T)}
        assert not {column.tobytes() for column in two.T} & {column.tobytes() for column in three.T}
    for part in (*parts, *others):
        assert set(part.labels) == set(range(10)) and part.images.max() == 1.0


def test_the_generator_alone_says_what_comes(clips: Clips) -> None:
    again = make_clips(70, training_material(), np.random.default_rng(0))
    other = make_clips(70, training_material(), np.random.default_rng(1))
    assert torch.equal(again.pixels, clips.pixels) and torch.equal(again.digits, clips.digits)
    assert not torch.equal(other.pixels, clips.pixels)
