"""The page of one run: what it says, that it is safe and offline, and that incomplete records still make one."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import pytest

from reports.run.page import write_page
from tests.helpers.example_records import BLOCKS, combined_record, measurement, record, save, timeline
from tests.helpers.html_reading import Page
from toolkit.base.errors import RecordError
from toolkit.record.run import RunRecord, StepRecord

HOSTILE = "</title></pre><script>alert('x')</script>\"'&"


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Markup, formula signs and control characters wherever a record has free text; an unknown stage; odd details."""
    good = combined_record(task=HOSTILE, processor=HOSTILE)
    stream = timeline(0.6, stream=f"{HOSTILE}$\\frac{{\x00")
    baseline = good.baseline.model_copy(
        update={"measurement": good.baseline.measurement.model_copy(update={"timeline": stream})}
    )
    strange = measurement(0.5, 0.5, 0.6).model_copy(update={"timeline": stream})
    steps = (
        baseline,
        _with_detail(good.steps[1], later_addition=HOSTILE, criterion=HOSTILE),
        StepRecord(stage="channel_prune", detail={"rounds": "none"}, seconds=1.0, measurement=strange),
        StepRecord(stage="recover", detail={HOSTILE: [HOSTILE]}, seconds=1.0, measurement=strange),
    )
    folder = tmp_path_factory.mktemp("hostile<script>")
    return write_page(save(good.model_copy(update={"steps": steps}), folder))


def test_every_stage_and_section_is_there(combined_page: Path) -> None:
    page = Page(combined_page)
    for name in ("0 dense", "1 block_drop", "2 channel_prune", "3 recover"):
        assert name in page.text
    assert page.titles == [
        "What was done",
        "Result after each stage",
        "Block importance",
        "Channels kept per layer",
        "Repair",
        "Recovery",
        "One test stream",
        "Uncounted operators",
        "Recipe",
    ]


def test_numbers_are_those_of_the_record(combined_page: Path) -> None:
    text = Page(combined_page).text
    expected = ["17.23 M", "8.10 M", "47.0 % of dense", "112.80 k", "0.639", "−0.013, 24 examples", "aten::softmax"]
    expected += [
        "blocks.7, blocks.9, blocks.4",
        "Lower means that the block matters less",
        "MLP hidden units: 576 of 2304 kept; attention heads: 18 of 36 kept",
        "took 61.0 s",
        "The weights of step 300 were kept",
    ]
    assert [piece for piece in expected if piece not in text] == []


def test_latency_shows_median_spread_and_ratio(combined_page: Path) -> None:
    text = Page(combined_page).text
    latency = combined_record().steps[3].measurement.latency[0]
    assert f"{1000 * latency.median_s:.2f} [{1000 * latency.percentile_s(10):.2f} .. " in text
    assert f"× {latency.ratio:.2f} of dense" in text


def test_macs_are_called_multiply_adds(combined_page: Path) -> None:
    text = Page(combined_page).text
    assert "MACs are multiply-adds of one example: what fvcore calls “FLOPs”" in text
    heads = re.findall(r"<th[^>]*>([^<]*MACs[^<]*)</th>", combined_page.read_text())
    assert heads
    assert all("multiply-adds" in head for head in heads)


def test_figures_are_files_too(combined_page: Path) -> None:
    stems = {path.stem for path in combined_page.parent.glob("*.svg")}
    expected = {"waterfall", "importance-1", "channels-2", "repairs-1", "repairs-2", "recovery-3", "timeline"}
    assert stems == expected == {path.stem for path in combined_page.parent.glob("*.png")}
    assert not list(combined_page.parent.glob("*.part"))


@pytest.mark.parametrize("which", ["combined_page", "hostile_page"])
def test_loads_nothing_from_elsewhere(which: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(which)
    page = Page(path)
    assert len([value for name, value in page.links if name == "src"]) >= 3
    for name, value in page.links:
        if name == "src":
            assert value.startswith("data:image/svg+xml;base64,")
            _check_svg(base64.b64decode(value.partition(",")[2]).decode())
        else:
            assert (path.parent / value).is_file()
    assert page.css
    assert not re.search(r"url\(|@import", page.css)


@pytest.mark.parametrize("which", ["combined_page", "hostile_page"])
def test_holds_no_script(which: str, request: pytest.FixtureRequest) -> None:
    page = Page(request.getfixturevalue(which))
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    assert not [name for name in page.attributes if name.startswith("on")]


def test_hostile_text_is_shown_as_text(hostile_page: Path) -> None:
    page = Page(hostile_page)
    assert "<script" not in page.source.lower()
    assert page.text.count("<script>alert('x')</script>") >= 4  # task (twice), processor, stream, unknown stage
    assert "Other stages" in page.titles
    assert "2 channel_prune" in page.text  # its detail is in no known form: shown raw


def test_same_record_gives_the_same_bytes(combined_page: Path, tmp_path: Path) -> None:
    again = write_page(save(combined_record(), tmp_path))
    assert again.read_bytes() == combined_page.read_bytes()


def test_unfinished_run_says_so(tmp_path: Path) -> None:
    full = combined_record(finished=False)
    page = Page(write_page(save(full.model_copy(update={"steps": full.steps[:2]}), tmp_path)))
    assert "not finished: 1 of 3 stages are done" in page.text
    assert "Recovery" not in page.titles


def test_record_without_any_step(tmp_path: Path) -> None:
    page = Page(write_page(save(combined_record(finished=False, steps=()), tmp_path)))
    assert "Nothing was measured yet" in page.text
    assert page.titles == ["What was done", "Results", "Recipe"]


def test_baseline_only_without_timeline(tmp_path: Path) -> None:
    bare = _bare(record("only_dense", (), ()))
    page = Page(write_page(save(bare, tmp_path)))
    assert "No timeline" in page.text
    assert "every operator carries a count" in page.text
    assert "Block importance" not in page.titles


def test_stages_that_recorded_nothing(tmp_path: Path) -> None:
    full = combined_record()
    empty = timeline(0.6).model_copy(update={"truth": (), "predicted": ()})
    steps = [
        step.model_copy(update={"measurement": step.measurement.model_copy(update={"timeline": empty})})
        for step in full.steps
    ]
    steps[1] = _with_detail(steps[1], rounds=[])
    steps[2] = _with_detail(steps[2], groups=[], repairs=[])
    steps[3] = _with_detail(steps[3], curve=[])
    page = Page(write_page(save(full.model_copy(update={"steps": tuple(steps)}), tmp_path)))
    assert not {"Block importance", "Channels kept per layer", "Repair"} & set(page.titles)
    assert {"Recovery", "One test stream"} <= set(page.titles)


def test_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"run\.json"):
        write_page(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_blocks_are_named_as_in_the_dense_model(combined_page: Path) -> None:
    svg = (combined_page.parent / "importance-1.svg").read_text()
    for block in BLOCKS:
        assert f"<!-- {block.removeprefix('blocks.')} -->" in svg  # matplotlib notes each text beside its outline


def _check_svg(svg: str) -> None:
    assert svg.startswith("<?xml")
    assert "<script" not in svg.lower()
    assert all(target.startswith(("#", "data:image/png;base64,")) for target in re.findall(r'href="([^"]*)"', svg))


def _with_detail(step: StepRecord, **changes: Any) -> StepRecord:
    return step.model_copy(update={"detail": {**step.detail, **changes}})


def _bare(full: RunRecord) -> RunRecord:
    """No timeline, no details of the metric, no uncounted operators, one latency sample."""
    whole = full.baseline.measurement
    reduced = whole.model_copy(
        update={
            "timeline": None,
            "macs": whole.macs.model_copy(update={"uncounted": {}}),
            "quality": tuple(entry.model_copy(update={"details": {}}) for entry in whole.quality[:1]),
            "latency": (whole.latency[0].model_copy(update={"samples_s": (0.005,), "dense_samples_s": (0.005,)}),),
        }
    )
    return full.model_copy(update={"steps": (full.baseline.model_copy(update={"measurement": reduced}),)})
