"""A run that was made before the code was moved into rooms (commit 35ca4bc) is read, drawn and loaded today.

The folder was made there by `run(recipe, task=TinyTask())` with the recipe that lies in it; `stages/` is left out, and
the name of the machine's system in `run.json`.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch

from reports.run.page import write_page
from tests.helpers.tiny_task import TinyNet, TinyTask
from toolkit import load_model, load_record
from toolkit.base.files import content_sha256
from toolkit.measure.macs import count_macs
from toolkit.stages.settings import STAGE_SETTINGS

OLD = Path(__file__).parents[1] / "data" / "old_run"


def test_its_record_means_what_it_meant() -> None:
    record = load_record(OLD)
    assert record.finished and [step.stage for step in record.steps] == [
        "baseline",
        "block_drop",
        "channel_prune",
        "recover",
    ]
    assert record.recipe.sha256 == record.recipe_sha256, "what was begun before could not be resumed"


def test_its_details_are_those_of_today() -> None:
    """Each detail is read as its stage's class and written back as it was, nothing lost and nothing added."""
    for step in load_record(OLD).steps[1:]:
        detail = STAGE_SETTINGS[step.stage].detail.model_validate(step.detail)
        assert not detail.model_extra
        assert detail.model_dump(mode="json", exclude_unset=True) == step.detail


def test_its_page_is_drawn(tmp_path: Path) -> None:
    folder = shutil.copytree(OLD, tmp_path / "run")
    page = write_page(folder).read_text()
    for section in ("Block importance", "Channels kept per layer", "Repair", "Recovery"):
        assert section in page
    assert "Other stages" not in page


def test_its_model_loads_and_counts_what_it_counted() -> None:
    model = load_model(OLD, TinyNet())
    inputs = TinyTask(train_steps=0).example_inputs(1)
    assert count_macs(model, inputs).total == load_record(OLD).steps[-1].measurement.macs.total
    with torch.no_grad():
        assert bool(model(*inputs).isfinite().all())


def test_hashes_of_plain_json_stay() -> None:
    content = json.loads((OLD / "run.json").read_text())
    assert content_sha256(content["recipe"]) == content["recipe_sha256"]
