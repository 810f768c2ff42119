"""A task that is written nearly right is asked back for, wherever a task is named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from toolkit import plan, profile, train
from toolkit.base.errors import UserError
from toolkit.benchmarks import searches
from toolkit.recipe.check import check_task
from toolkit.tasks.cards import make_task

HINT = "is not a known task; did you mean 'tad-watch'? choose one of: tad-watch"


def test_in_python_and_in_a_recipe() -> None:
    with pytest.raises(UserError, match=re.escape(f"'tad-wach' {HINT}")):
        make_task("tad-wach")
    (fault,) = check_task("tad-wach")
    assert HINT in fault.message


def test_in_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan.main(["tad-wach", "--budget", "macs=0.5"]) == 2
    assert HINT in capsys.readouterr().err
    assert profile.main(["tad-wach"]) == 2
    assert HINT in capsys.readouterr().err
    assert searches.main(["tad-wach", "--budget", "macs=0.5", "--out", str(tmp_path / "out")]) == 2
    assert HINT in capsys.readouterr().err
    config = tmp_path / "config.yaml"
    shipped = Path(__file__).parents[2] / "recipes" / "train" / "tad_watch.yaml"
    config.write_text(shipped.read_text().replace("task: tad-watch", "task: tad-wach"))
    assert train.main([str(config), "--out", str(tmp_path / "out")]) == 2
    assert HINT in capsys.readouterr().err
