"""Fixtures: run folders made from the hand-built records, and one page that several tests read."""

from __future__ import annotations

from pathlib import Path

import pytest

from reports.run.page import write_page
from tests.helpers.example_records import combined_record, save, save_three


@pytest.fixture
def run_folders(tmp_path: Path) -> list[Path]:
    """A depth-only, a width-only and a combined run."""
    return save_three(tmp_path)


@pytest.fixture(scope="session")
def combined_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(save(combined_record(), tmp_path_factory.mktemp("combined")))
