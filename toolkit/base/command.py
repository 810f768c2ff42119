"""Holds what all commands share: argument types, and errors as one line and an exit code instead of a traceback."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path

from toolkit.base.errors import UserError


def tolerance(text: str) -> float:
    """Returns the number in an argument, which must be above 0 and below 1."""
    value = float(text)
    if not 0.0 < value < 1.0:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def positive(text: str) -> int:
    """Returns the whole number in an argument, which must be at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


def not_negative(text: str) -> int:
    """Returns the whole number in an argument, which must be at least 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is not 0 or more")
    return value


def finite(text: str) -> float:
    """Returns the number in an argument, which must be neither infinite nor undefined."""
    value = float(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number")
    return value


def check_is_new(out: Path) -> None:
    """Raises UserError where something is at the path of --out already, so that no file is lost to another one."""
    if out.exists() or out.is_symlink():
        raise UserError(f"--out {out}: exists already; choose another file or remove this one")


GO_ON = "interrupted; run the same command again to go on"


def exit_code(work: Callable[[], int | None], interrupted: str = GO_ON) -> int:
    """Runs `work` and returns the exit code of the command; errors that the user can fix are printed as one line.

    The exit code is what `work` returns (0 for None), 2 after a `UserError` or an error of the operating system, and
    130 after ctrl-C. All other exceptions are raised.

    interrupted: the line that is printed after ctrl-C.
    """
    try:
        return work() or 0
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{error.filename or 'the system'}: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return 130
