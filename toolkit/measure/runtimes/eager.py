"""Holds the runtime `eager`: plain PyTorch, operator by operator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from toolkit.measure.runtimes.runtime import ModelRuntime, Ready

if TYPE_CHECKING:
    from torch import Tensor, nn


@contextmanager
def _as_it_is(model: nn.Module, _: tuple[Tensor, ...]) -> Iterator[Ready]:
    yield model


EAGER_RUNTIME = ModelRuntime(missing=lambda _: None, prepare=_as_it_is)
