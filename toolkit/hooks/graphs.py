"""Keeps graphs of torch.fx from printing an error that the caller catches: they print each one before they raise it."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator
from typing import TextIO

from torch import fx, nn

FIRST_WORDS = "Call using an FX-traced Module"


class _WithoutGraphErrors(io.TextIOBase):
    """Hands on what is written, except errors of graphs and the line break behind each."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._ends_line = stream, False

    def write(self, text: str) -> int:
        is_dropped = FIRST_WORDS in text or (self._ends_line and text == "\n")
        self._ends_line = FIRST_WORDS in text
        return len(text) if is_dropped else self._stream.write(text)

    def flush(self) -> None:
        self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()


@contextlib.contextmanager
def graphs_quiet(*models: nn.Module) -> Iterator[None]:
    """Drops what graphs among the modules of the models print of their errors; whatever else is printed stays."""
    if not any(isinstance(module, fx.GraphModule) for model in models for module in model.modules()):
        yield
        return
    with contextlib.redirect_stderr(_WithoutGraphErrors(sys.stderr)):
        yield
