"""The section of a run's page on what convolutions repeat, made from the report beside the run's record."""

from __future__ import annotations

from pathlib import Path

import pytest

from reports.drawing.style import drawing_style
from reports.run.page import write_page
from reports.run.redundancy_figure import LEAST, draw_redundancy
from tests.helpers.example_records import depth_record, save
from tests.helpers.html_reading import Page
from toolkit.base.errors import RecordError
from toolkit.redundancy.report import (
    REDUNDANCY_FILE,
    ChannelRedundancy,
    KeptShare,
    KeptSteps,
    LayerRedundancy,
    RedundancyReport,
    TimeRedundancy,
)


def layer(name: str, *, has_time: bool = True, chosen: float = 0.9, notes: tuple[str, ...] = ()) -> LayerRedundancy:
    shares = tuple(KeptShare(share=n, kept=16 // n, first=chosen - 0.25, chosen=chosen) for n in (2, 4))  # type: ignore[arg-type]
    rates = tuple(KeptSteps(rate=n, rebuilt=0.8, repeated=-12.3) for n in (2, 4))  # type: ignore[arg-type]
    time = TimeRedundancy(least_steps=8, most_steps=16, correlation=0.7, relative_rmse=0.8, explained=rates)
    return LayerRedundancy(
        name=name,
        kind="Conv1d",
        num_channels=16,
        num_constant=1 if notes else 0,
        fitted_on=640,
        measured_on=640,
        channels=ChannelRedundancy(correlation=0.95, relative_rmse=0.3, explained=shares),
        time=time if has_time else None,
        notes=notes,
    )


def report(*layers: LayerRedundancy, **not_measured: str) -> RedundancyReport:
    return RedundancyReport(
        model="mine<script>", task="t", examples=9, positions=5, seed=0, layers=layers, not_measured=not_measured
    )


def page_with(folder: Path, content: str) -> Path:
    save(depth_record(), folder)
    (folder / REDUNDANCY_FILE).write_text(content)
    return write_page(folder)


def test_the_page_shows_the_report_before_the_recipe(tmp_path: Path) -> None:
    made = report(layer("stem.0"), layer("stem.3", has_time=False, notes=("a note",)), head="it never runs on the data")
    path = page_with(tmp_path, made.model_dump_json())
    page = Page(path)
    assert page.titles[-2:] == ["Redundancy of the convolutions", "Recipe"]
    expected = ["mine<script>", "stem.3", "8 to 16", "0.950", "0.650", "0.900", "-12", "0.800", "stem.3: a note"]
    expected += ["stem.3 (1 of 16): some channels are constant", "head: not measured: it never runs on the data"]
    assert [words for words in expected if words not in page.text] == []
    assert (path.parent / "redundancy.svg").exists() and (path.parent / "redundancy.png").exists()


def test_a_run_without_report_has_no_such_section(tmp_path: Path) -> None:
    assert "Redundancy of the convolutions" not in Page(write_page(save(depth_record(), tmp_path))).titles


def test_a_report_without_figures_says_why(tmp_path: Path) -> None:
    page = Page(page_with(tmp_path, report(head="it never runs on the data").model_dump_json()))
    assert "head: not measured: it never runs on the data" in page.text
    assert not (tmp_path / "report" / "redundancy.svg").exists()


@pytest.mark.parametrize("content", ["{", "{}", report().model_dump_json().replace('"seed":0', '"seed":"x"'), ""])
def test_a_damaged_report_is_named(content: str, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"redundancy.json: damaged or no redundancy report \(.*; remove it or make"):
        page_with(tmp_path, content)


def test_panels_are_those_that_have_figures_and_marks_stay_inside() -> None:
    with drawing_style():
        with_time = draw_redundancy(report(layer("a", chosen=-50.0), layer("b")))
        without = draw_redundancy(report(layer("a", has_time=False)))
    titles = [axes.get_title(loc="left") for axes in with_time.axes]
    assert titles == ["correlation", "half of the channels", "a quarter of them", "every 2nd time step", "every 4th"]
    assert [axes.get_title(loc="left") for axes in without.axes] == titles[:3]
    for axes in with_time.axes:
        low, high = axes.get_xlim()
        places = [float(x) for line in axes.lines for x in line.get_xdata()]  # type: ignore[union-attr]
        assert places and low < min(places) and max(places) < high
    arrows = [line for line in with_time.axes[1].lines if line.get_marker() == "<"]
    assert [float(line.get_xdata()[0]) for line in arrows] == [LEAST, LEAST]  # type: ignore[index]
