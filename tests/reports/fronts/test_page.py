"""`python -m reports SWEEP_DIR`: the page and its interactive plots, the tables, the figures, and what is refused."""

from __future__ import annotations

import csv
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from reports.__main__ import main
from reports.drawing.scatter import Dot, Look, Scatter, scatter_element, ticks
from reports.drawing.words import FAMILY_WORDS
from reports.fronts.cells import load_fronts
from tests.helpers.example_fronts import REASON, plan_note, planned_record, save_infeasible, save_planned, save_sweep
from tests.helpers.example_records import save
from tests.helpers.html_reading import Page

COSTS = ("macs_ratio", "params_ratio", "latency_ratio_cpu_batch1", "latency_ratio_cpu_batch16")
HOSTILE = "</script><script>alert('x')</script>\"'&|"


class Dots(HTMLParser):
    """Of every plot: what its dots tell."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.plots: list[list[dict[str, str | None]]] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if found.get("class") == "scatter":
            self.plots.append([])
        if found.get("class") == "dot":
            self.plots[-1].append(found)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_sweep(tmp_path_factory.mktemp("fronts") / "hapt_fronts")
    assert main([str(folder)]) == 0
    return folder


def test_everything_is_written_and_linked(sweep: Path) -> None:
    stems = {*(f"fronts-{cost}" for cost in COSTS), "predicted-latency"}
    assert {path.stem for path in sweep.glob("*.svg")} == stems == {path.stem for path in sweep.glob("*.png")}
    page = Page(sweep / "index.html")
    linked = {value for name, value in page.links if name == "href"}
    assert linked == {f"{stem}.{kind}" for stem in stems for kind in ("png", "svg")} | {"points.csv", "fronts.md"}
    assert all((sweep / value).is_file() for value in linked)
    assert page.titles == [
        *(f"Test mAP minus dense against {cost}" for cost in ("MACs", "parameters", "latency, cpu, batch 1")),
        "Test mAP minus dense against latency, cpu, batch 16",
        *(f"Predicted against measured latency, cpu, batch {size}" for size in (1, 16)),
        "Results per family and budget",
        "Combined against the better single axis, per budget",
        "Hypervolume of each family's front",
        "Predicted against measured latency",
        "Not run",
        "Infeasible",
    ]


def test_page_loads_nothing(sweep: Path) -> None:
    page = Page(sweep / "index.html")
    assert {name for name, _ in page.links} == {"href"}
    assert "http" not in page.source
    assert page.tags.count("script") == 1


def test_every_dot_tells_its_recipe(sweep: Path) -> None:
    plots = Dots((sweep / "index.html").read_text()).plots
    fronts = load_fronts(sweep)
    planned = [cell for cell in fronts.cells if cell.place.family]
    assert [len(plot) for plot in plots] == [len(fronts.cells) + 1] * 4 + [len(planned)] * 2
    texts = [dot["data-tip"] or "" for dot in plots[0]]
    for cell in planned:
        name = f"{FAMILY_WORDS[cell.place.family or 'none']}, {cell.place.budget}, seed {cell.place.seed}"
        (text,) = [text for text in texts if text.split("\n")[0] == name]
        assert f"batch 16: predicted {cell.predicted[COSTS[3]]:.3f}, measured {cell.costs[COSTS[3]]:.3f}" in text
        assert f"({cell.quality['test']:.3f} against {cell.dense_quality['test']:.3f})" in text
    assert [dot["tabindex"] for dot in plots[0]] == ["0", *["-1"] * (len(plots[0]) - 1)]
    assert all(dot["aria-label"] == (dot["data-tip"] or "").replace("\n", "; ") for plot in plots for dot in plot)


def test_table_and_page_hold_the_same(sweep: Path) -> None:
    table, page = (sweep / "fronts.md").read_text(), Page(sweep / "index.html").text
    assert "| depth only | latency=0.35 | 3 | 3 | – |" in table
    assert "| depth and width | latency=0.5 | 2 of 3 | 0 |" in table
    assert "| latency=0.35 | width only, depth and width | yes (3 of 3 seeds) | 3 of 3 |" in table
    assert "| control | plain_smaller | 3 | – | 0.500 |" in table
    assert "Left out, as not every family has been run there: seed 2: latency=0.5." in table
    assert "Not run:\n\n- combined_0.5/seed2: not begun\n" in table
    assert f"Infeasible:\n\n- depth_0.35/seed0: {REASON}\n" in table
    for words in ("combined_0.5/seed2: not begun", f"depth_0.35/seed2: {REASON}", "yes (3 of 3 seeds)", "2 of 3"):
        assert words in page


def test_points_survive_the_round_trip(sweep: Path) -> None:
    with open(sweep / "points.csv", newline="", encoding="utf-8") as file:
        rows = {f"{row['variant']}/seed{row['seed']}": row for row in csv.DictReader(file)}
    assert len(rows) == 33
    for cell in load_fronts(sweep).cells:
        row = rows[cell.place.name]
        assert {cost: float(row[cost]) for cost in COSTS} == cell.costs
        assert (float(row["test"]), float(row["dense_test"])) == (cell.quality["test"], cell.dense_quality["test"])
        assert float(row["test_minus_dense"]) == cell.change
    row = rows["combined_0.7/seed0"]
    assert (row["status"], row["dropped"]) == ("measured", "blocks.3 blocks.7 blocks.8")
    assert json.loads(row["widths"])["blocks.0.attn"] == {"heads": 2, "head_dim": 8}
    assert (rows["depth_0.35/seed1"]["status"], rows["depth_0.35/seed1"]["reason"]) == ("infeasible", REASON)
    assert (rows["combined_0.5/seed2"]["status"], rows["combined_0.5/seed2"]["test"]) == ("not run", "")


def test_the_same_sweep_gives_the_same_files(sweep: Path) -> None:
    before = {path.name: path.read_bytes() for path in sweep.iterdir() if path.is_file()}
    assert main([str(sweep)]) == 0  # an earlier report may be replaced
    assert {path.name: path.read_bytes() for path in sweep.iterdir() if path.is_file()} == before


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    cell = save(planned_record("combined", 0.5), tmp_path / "combined_0.5" / "seed0")
    plan_note("combined", 0.5, dropped=(HOSTILE,), widths={HOSTILE: 3}, budget=HOSTILE).save(cell)
    save_infeasible(tmp_path, "depth", 0.5, reason=f"{HOSTILE}\nsecond line")
    save(planned_record("width", 0.5), tmp_path / "a<script>b" / "seed0")
    assert main([str(tmp_path)]) == 0
    page = Page(tmp_path / "index.html")
    assert page.tags.count("script") == 1
    assert HOSTILE in page.text
    tips = [dot["data-tip"] or "" for plot in Dots(page.source).plots for dot in plot]
    assert any(f"dropped blocks: {HOSTILE}" in tip for tip in tips)
    assert f"- depth_0.5/seed0: {HOSTILE} second line\n" in (tmp_path / "fronts.md").read_text()
    widths = {
        line.count("|") for line in (tmp_path / "fronts.md").read_text().splitlines() if line.startswith("| depth")
    }
    assert len(widths) == 1  # a bar in a name makes no column


def test_sweep_without_any_measurement(tmp_path: Path) -> None:
    save_infeasible(tmp_path, "depth", 0.35)
    assert main([str(tmp_path)]) == 0
    page = Page(tmp_path / "index.html")
    assert "Nothing is measured yet." in page.text
    assert f"depth_0.35/seed0: {REASON}" in page.text
    assert list(tmp_path.glob("*.svg")) == []


def test_sweep_of_controls_and_one_plan(tmp_path: Path) -> None:
    save_planned(tmp_path, "width", 0.5)
    assert main([str(tmp_path)]) == 0
    assert "| latency=0.5 | width only | not run | 0 of 1 |" in (tmp_path / "fronts.md").read_text()


@pytest.mark.parametrize("option", [["--out", "elsewhere"], ["--split", "validation"]])
def test_options_of_comparisons_are_refused(
    option: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_planned(tmp_path, "width", 0.5)
    assert main([str(tmp_path), *option]) == 2
    assert f"leave out {option[0]}" in capsys.readouterr().err
    assert not (tmp_path / "index.html").exists()


def test_folders_that_are_no_sweeps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(planned_record("width", 0.5), tmp_path / "control" / "seed0")
    assert main([str(tmp_path)]) == 2
    assert "give the folder of a sweep with `plans`" in capsys.readouterr().err
    assert main([str(tmp_path), str(tmp_path / "control" / "seed0")]) == 2  # two folders: runs to compare
    assert "run.json: cannot be read" in capsys.readouterr().err


def test_ticks_are_round_and_inside() -> None:
    assert [words for _, words in ticks(0.31, 1.02)] == ["0.4", "0.5", "0.6", "0.7", "0.8", "0.9", "1.0"]
    assert [words for _, words in ticks(0.5972, 0.6651)] == ["0.60", "0.61", "0.62", "0.63", "0.64", "0.65", "0.66"]
    assert [value for value, _ in ticks(0.0, 80.0)] == [0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0]
    assert [words for _, words in ticks(0.0, 0.7)] == ["0.0", "0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7"]


def test_one_dot_alone_has_axes() -> None:
    plot = Scatter("one", ("cost (s)", "quality"), (Dot(0.5, 0.0, Look("#000", "o"), ("one",)),), (), ())
    drawn = str(scatter_element(plot))
    assert "cost (s)" in drawn and "quality" in drawn and "nan" not in drawn
