"""The program in recipes/README.md, "Your own model and data", is short and runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.helpers.family_checks import outputs_of
from toolkit import RunRecord
from toolkit.blocks.dropped import dropped_blocks

PAGE = Path(__file__).parents[2] / "recipes" / "README.md"


@pytest.fixture(scope="module")
def program() -> str:
    section = PAGE.read_text(encoding="utf-8").split("\n## Your own model and data\n")[1].split("\n## ")[0]
    (found,) = re.findall(r"<!-- own model -->\n```python\n(.*?)```\n<!-- end -->", section, flags=re.DOTALL)
    return str(found)


def test_under_40_lines(program: str) -> None:
    lines = [line for line in program.splitlines() if line.strip()]
    assert 10 < len(lines) < 40
    assert max(len(line) for line in lines) <= 120


AS_IT_STANDS: dict[str, str] = {}
IN_A_MOMENT = {"range(300)": "range(150)", "max_steps=100": "max_steps=20", "threads=1": "threads=1, repeats=3"}


@pytest.mark.parametrize(
    "changes", [IN_A_MOMENT, pytest.param(AS_IT_STANDS, marks=pytest.mark.slow)], ids=["short", "as it stands"]
)
def test_it_runs(
    changes: dict[str, str],
    program: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for old, new in changes.items():
        assert program.count(old) == 1
        program = program.replace(old, new)
    names: dict[str, object] = {"__name__": "__main__"}
    with torch.random.fork_rng(devices=[]):
        exec(compile(program, str(PAGE), "exec"), names)
    record, model = names["record"], names["model"]
    assert isinstance(record, RunRecord) and isinstance(model, nn.Module)
    assert [step.stage for step in record.steps] == ["baseline", "block_drop", "recover"]
    printed = capsys.readouterr().out.splitlines()[-3:]
    for step, line in zip(record.steps, printed, strict=True):
        quality = step.measurement.quality_on("test")
        assert quality is not None and quality.value > 0.8  # chance is 0.1
        assert line == f"{step.stage} {step.measurement.macs.total} {quality.value}"
    assert record.steps[-1].measurement.macs.total < 0.6 * record.baseline.measurement.macs.total
    assert len(dropped_blocks(model)) == 3
    assert outputs_of(model, (torch.zeros(2, 8, 8),))[0].shape == (2, 10)
    assert (tmp_path / "runs" / "digits" / "run.json").exists()
