"""The pages of the committed records are drawn: one of each benchmark in the suite, the others among the slow tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from reports.run.page import write_page
from tests.helpers.slow import cases
from toolkit.record.run import RUN_FILE, load_record

RESULTS = Path(__file__).parents[3] / "reports" / "results"
RECORDS = sorted(str(path.parent.relative_to(RESULTS)) for path in RESULTS.rglob(RUN_FILE))
FIRST = {name.split("/")[0]: name for name in reversed(RECORDS)}


def test_there_are_records() -> None:
    assert len(RECORDS) > 100 and len(FIRST) > 4


@pytest.mark.parametrize("name", cases(RECORDS, in_suite=set(FIRST.values())))
def test_a_page_is_drawn(name: str, tmp_path: Path) -> None:
    shutil.copy(RESULTS / name / RUN_FILE, tmp_path / RUN_FILE)
    page = write_page(tmp_path).read_text()
    record = load_record(tmp_path)
    for stage in record.recipe.stages:
        assert stage.type in page
    assert "down to 100 % of the dense MACs" not in page and "allow_no_change =" not in page
    assert "Other stages" not in page or any(stage.type == "reinitialise" for stage in record.recipe.stages)
