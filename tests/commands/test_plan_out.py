"""python -m toolkit.plan: a file that exists is never replaced, and the help says what takes long."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit import plan
from toolkit.planning import arguments


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a command fail as soon as it makes its task."""

    def make(name: str) -> object:
        raise AssertionError(f"{name} was made")

    monkeypatch.setattr(arguments, "make_task", make)


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("kind", ["file", "folder", "broken link"])
def test_what_exists_is_not_replaced(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "kept.yaml"
    if kind == "file":
        out.write_text("a recipe")
    elif kind == "folder":
        out.mkdir()
    else:
        out.symlink_to(tmp_path / "nowhere")
    assert plan.main(["tad-watch", "--budget", "macs=0.5", "--out", str(out)]) == 2
    assert capsys.readouterr().err == f"--out {out}: exists already; choose another file or remove this one\n"
    assert kind != "file" or out.read_text() == "a recipe"


def test_the_help_says_what_takes_long_and_which_batch_size_is_which(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        plan.main(["--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "takes minutes for tad-watch on two idle CPU cores" in told and "Later plans reuse" in told
    assert "of the latency that --budget limits; it is timed even where --batch-sizes leaves it out" in told
    assert "predict the plan's latency for all of them, limited or not" in told
