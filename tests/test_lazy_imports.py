"""What only reads or checks starts without torch; the public names are all there."""

from __future__ import annotations

import subprocess
import sys

import pytest

import toolkit

LIGHT = [
    "toolkit",
    "toolkit.recipe",
    "toolkit.record",
    "toolkit.recipe.read",
    "toolkit.planning.solve",
    "toolkit.tasks",
]
LIGHT += ["toolkit.apply", "toolkit.schema", "toolkit.base.console", "reports", "reports.run.page"]


def test_light_modules_do_not_import_torch() -> None:
    code = (
        f"import sys, {', '.join(LIGHT)}; toolkit.compose; print('torch' in sys.modules, 'torchvision' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "False False\n", "")


def test_every_public_name_can_be_had() -> None:
    assert toolkit.__all__
    for name in toolkit.__all__:
        assert getattr(toolkit, name) is not None
    assert set(toolkit.__all__) <= set(dir(toolkit))


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="toolkit attribute comprss"):
        toolkit.comprss  # noqa: B018
