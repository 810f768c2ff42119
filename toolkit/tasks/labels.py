"""Checks labels of classes, and names their faults with their shape, type and range."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from toolkit.base.errors import UserError
from toolkit.hooks.trial import described

IGNORED = (-100, -1, 255)  # values by which losses and data sets mark examples to leave out

OWN_TASK = "write a Task of your own, with its loss and its metric (toolkit.Task)"


def class_labels(labels: Any, name: str, classes: int | None = None) -> Tensor:
    """Returns labels as int64 [N].

    labels: whole numbers or truth values, one per example.
    name: the name of the data in messages.
    classes: the number of classes; None where it is not known yet, so that no range is checked.

    Raises:
        UserError: the labels are not those of classes, or not within 0 to `classes` - 1.
    """
    if not isinstance(labels, Tensor):
        raise UserError(f"labels of {name} are {described(labels)}; {_whole_numbers(None)}")
    if labels.ndim != 1 or labels.is_floating_point() or labels.is_complex():
        raise UserError(f"labels of {name} are {_description(labels)}; {_shape_fault(labels)}")
    if classes is not None and len(labels):
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= classes:
            raise UserError(f"labels of {name} are {_description(labels)}; {_range_fault(labels, low, high, classes)}")
    return labels.long()


def _description(labels: Tensor) -> str:
    if not labels.numel() or labels.is_complex():
        return described(labels)
    low, high = labels.min().item(), labels.max().item()
    return f"{described(labels)}, from {low:g} to {high:g}"


def _whole_numbers(count: int | None) -> str:
    shape = "" if count is None else f", shape [{count}]"
    return f"the label of a class is one whole number per example{shape}"


def _shape_fault(labels: Tensor) -> str:
    rule = _whole_numbers(len(labels) if labels.ndim else 0)
    if labels.ndim == 2 and labels.shape[1] > 1:
        return _row_fault(labels)
    if labels.ndim not in (1, 2):
        return f"{rule}; for labels of pixels, tokens or the like {OWN_TASK}"
    if bool(labels.isnan().any()):
        return f"some are NaN, and {rule}"
    if not _is_whole(labels):
        return f"they look like the targets of a regression, for which this task has no metric: {OWN_TASK}"
    steps = ("labels", ".squeeze(1)" if labels.ndim == 2 else "", ".long()" if labels.is_floating_point() else "")
    return f"{rule}: pass {''.join(steps)}"


def _row_fault(labels: Tensor) -> str:
    """Returns what is wrong with labels of several numbers per example, in words."""
    rows = labels.double()
    is_binary = bool(((rows == 0) | (rows == 1)).all())
    sums_to_one = bool(((rows.sum(1) - 1).abs() < 1e-3).all())
    if is_binary and sums_to_one:
        return f"they are one-hot rows, and {_whole_numbers(len(labels))}: pass labels.argmax(1)"
    if is_binary:
        return f"an example has several classes (multi-label), for which this task has no metric: {OWN_TASK}"
    if sums_to_one and bool((rows >= 0).all()):
        return (
            "they are soft labels, a probability per class, and accuracy needs one class per example: pass "
            f"labels.argmax(1); to train on soft labels {OWN_TASK}"
        )
    return f"{_whole_numbers(len(labels))}; for anything else {OWN_TASK}"


def _is_whole(values: Tensor) -> bool:
    return not values.is_floating_point() or bool((values == values.round()).all())


def _range_fault(labels: Tensor, low: int, high: int, classes: int) -> str:
    outputs = "one logit, which tells two classes apart" if classes == 2 else f"{classes} logits"
    should = f"the model gives {outputs}, so that labels are 0 to {classes - 1}"
    outside = {int(value) for value in torch.unique(labels) if not 0 <= int(value) < classes}
    marks = [mark for mark in IGNORED if mark in outside]
    if classes == 2 and (low, high) == (-1, 1):
        return f"{should}: pass (labels > 0).long()"
    if outside == set(marks):
        return f"{should}; leave out the examples marked {marks[0]}, which have no class"
    if low == 1 and high == classes:
        return f"{should}: pass labels - 1"
    return f"{should}; relabel the data, or give the model an output for every class"
