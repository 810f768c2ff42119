"""Differences and scales, worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from toolkit.base.errors import ExportError
from toolkit.exporting.parity import check_tolerance, compare
from toolkit.exporting.report import Parity

WANTED = torch.tensor([3.0, -4.0])


def only(eager: Tensor, exported: Tensor) -> Parity:
    (entry,) = compare(["y"], [eager], [exported], 2)
    return entry


def test_difference_and_scale() -> None:
    entry = only(WANTED, torch.tensor([3.5, -3.75]))
    assert (entry.output, entry.batch_size, entry.difference, entry.scale) == ("y", 2, 0.5, 4.0)
    assert entry.relative == 0.125


def test_the_tolerance_is_a_share_of_the_scale() -> None:
    entry = only(WANTED, torch.tensor([3.5, -3.75]))
    check_tolerance([entry], 0.126)
    with pytest.raises(ExportError, match=r"output y differs by 0.5 at batch size 2, which is 0.12 of its scale"):
        check_tolerance([entry], 0.125)


def test_other_sizes_of_named_axes_are_said() -> None:
    entry = only(WANTED, torch.tensor([3.5, -3.75])).model_copy(update={"axes": {"sequence": 48}})
    with pytest.raises(ExportError, match="at batch size 2, sequence 48, which is"):
        check_tolerance([entry], 0.125)


def test_nothing_but_zeros_must_be_met_exactly() -> None:
    zeros = torch.zeros(3)
    assert only(zeros, zeros).relative == 0.0
    assert only(zeros, zeros + 1e-9).relative == math.inf
    with pytest.raises(ExportError):
        check_tolerance([only(zeros, zeros + 1e-9)], 1e-4)


def test_integers_and_truth_values() -> None:
    assert only(torch.tensor([1, 5]), torch.tensor([1, 2])).difference == 3.0
    assert only(torch.tensor([True, False]), torch.tensor([True, True])).difference == 1.0


def test_infinities_in_the_same_places_are_left_out() -> None:
    entry = only(torch.tensor([3.0, -math.inf, 4.0]), torch.tensor([3.0, -math.inf, 4.5]))
    assert (entry.difference, entry.scale) == (0.5, 4.0)


@pytest.mark.parametrize("other", [[3.0, math.nan], [math.inf, -4.0]])
def test_numbers_that_are_not_finite(other: list[float]) -> None:
    with pytest.raises(ExportError, match="in other places than the model's"):
        only(WANTED, torch.tensor(other))
    with pytest.raises(ExportError, match="in other places than the model's"):
        only(torch.tensor(other), WANTED)


def test_nothing_to_compare_is_no_proof() -> None:
    nothing = torch.full((2,), math.nan)
    with pytest.raises(ExportError, match="no finite number"):
        only(nothing, nothing)
    with pytest.raises(ExportError, match="no output tensor"):
        compare([], [], [], 1)


def test_other_outputs() -> None:
    with pytest.raises(ExportError, match=r"has shape \(2, 1\), the model's is \(2,\)"):
        only(WANTED, WANTED[:, None])
    with pytest.raises(ExportError, match=r"is torch.float64, the model's is torch.float32"):
        only(WANTED, WANTED.double())
    with pytest.raises(ExportError, match="has 2 outputs, the model 1"):
        compare(["y"], [WANTED], [WANTED, WANTED], 1)
