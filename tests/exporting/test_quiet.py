"""Nothing that exporters say gets through, and what they raise becomes one short reason."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator

import pytest

from toolkit.base.errors import ExportError
from toolkit.exporting.quiet import explained, hushed, reason_of


@contextlib.contextmanager
def handler_of_the_terminal() -> Iterator[None]:
    """A log handler that holds the stream itself, as torch's own do."""
    logger, handler = logging.getLogger("exporter"), logging.StreamHandler(sys.stderr)
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)


def shout() -> None:
    print("printed")
    print("printed", file=sys.stderr)
    logging.getLogger("exporter").error("logged")
    warnings.warn("warned", stacklevel=1)


def test_hushed(capfd: pytest.CaptureFixture[str]) -> None:
    level = logging.root.manager.disable
    with handler_of_the_terminal(), hushed():
        shout()
    assert capfd.readouterr() == ("", "")
    assert logging.root.manager.disable == level
    with handler_of_the_terminal(), pytest.warns(UserWarning, match="warned"):
        shout()
    assert capfd.readouterr() == ("printed\n", "printed\nlogged\n")


def test_the_deepest_cause_is_the_reason() -> None:
    with pytest.raises(ExportError, match=r"^it failed: KeyError: 'aten.fft'$"), explained("it failed"):
        raise RuntimeError("pages of text") from KeyError("aten.fft")
    with pytest.raises(ExportError, match=r"^mine$"), explained("it failed"):
        raise ExportError("mine")
    with pytest.raises(KeyboardInterrupt), explained("it failed"):
        raise KeyboardInterrupt


def test_reasons_are_short() -> None:
    text = '\x1b[96mfirst\x1b[0m! For more information, run with TORCH_LOGS="x"\n\n  second\nthird'
    assert reason_of(RuntimeError(text)) == "RuntimeError: first! second"
    assert len(reason_of(RuntimeError("x" * 5000))) == 300
    assert reason_of(AssertionError()) == "AssertionError"
