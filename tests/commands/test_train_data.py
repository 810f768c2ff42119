"""python -m toolkit.train finds that data are missing before it makes a folder or begins to train."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.tiny_task import TinyTask
from toolkit import train
from toolkit.base.errors import UserError
from toolkit.tasks.local_data import ROOT_VARIABLE
from toolkit.tasks.task import Batch, Split

CONFIGS = Path(__file__).parents[2] / "recipes" / "train"


def test_hapt_without_its_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path))
    out = tmp_path / "runs" / "out"
    assert train.main([str(CONFIGS / "tad_hapt.yaml"), "--out", str(out)]) == 2
    told = capsys.readouterr()
    assert "hapt" in told.err and ROOT_VARIABLE in told.err
    assert told.out == "" and not out.parent.exists()


class Incomplete(TinyTask):
    """Lacks the data of one split."""

    missing: Split = "test"

    def batches(self, split: Split, batch_size: int, *, limit: int | None = None) -> Iterator[Batch]:
        if split == self.missing:
            raise UserError(f"the {split} data are missing")
        yield from super().batches(split, batch_size, limit=limit)


@pytest.mark.parametrize(("missing", "more"), [("validation", []), ("test", ["--test"])])
def test_every_split_that_is_used_is_looked_for(
    missing: Split,
    more: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    task = Incomplete(1)
    task.missing = missing
    monkeypatch.setattr(train, "make_task", lambda name: task)
    out = tmp_path / "out"
    assert train.main([str(CONFIGS / "tad_watch.yaml"), "--out", str(out), *more]) == 2
    told = capsys.readouterr()
    assert told.err == f"the {missing} data are missing\n"
    assert told.out == "" and not out.exists()
