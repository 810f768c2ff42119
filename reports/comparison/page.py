"""Writes a comparison of runs: `index.html`, `points.csv`, and one figure of Pareto fronts per cost."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from reports.comparison.figure import draw_front
from reports.comparison.pareto import Point, front
from reports.comparison.runs import Cost, Run, costs_of, dense_point, points_of
from reports.drawing.html import Safe, bullets, document, el, figure_element, table
from reports.drawing.style import Drawing, drawing_style
from reports.drawing.words import FAMILY_WORDS, MACS_NOTE, change
from reports.run.page import PAGE_FILE
from toolkit.base.errors import RecordError
from toolkit.base.files import write_atomically

POINTS_FILE = "points.csv"


def write_comparison(runs: Sequence[Run], split: str, out: Path) -> Path:
    """Writes the page, the figures and the points to a folder, and returns the path of the page.

    runs: the runs that `load_runs` returned.

    Raises:
        RecordError: the folder cannot be made, or holds something other than an earlier comparison.
    """
    _make_folder(out)
    dense = dense_point(runs[0], split)
    paths = [points_of(run, split) for run in runs]
    costs = costs_of(runs[0].record.baseline.measurement)
    with drawing_style():
        figures = [figure_element(_drawing(dense, paths, cost, _axis(runs[0], split)), out) for cost in costs]
    write_atomically(out / POINTS_FILE, points_csv(dense, paths, costs, _axis(runs[0], split)))
    body = [*_introduction(runs, split), *figures, el("h2", "Results"), _results(dense, paths, costs)]
    write_atomically(out / PAGE_FILE, document("Comparison of runs", *body))
    return out / PAGE_FILE


def points_csv(dense: Point, paths: Sequence[Sequence[Point]], costs: Sequence[Cost], quality: str) -> str:
    """Returns the points as CSV, one row for each measured model.

    A column `COST_front` says on which front of that cost the model is: `all`, only `family`, or empty for none.
    """
    keys = [cost.key for cost in costs]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["run", "family", "step", "stage", "is_result", "quality", "metric", *keys, *(f"{key}_front" for key in keys)]
    )
    finals = [path[-1] for path in paths]
    for point in [dense, *(point for path in paths for point in path)]:
        place = [point.run, point.family, point.step, point.stage, int(point in finals)]
        fronts = [_widest_front(point, dense, finals, key) for key in keys]
        writer.writerow([*place, repr(point.quality), quality, *(repr(point.costs[key]) for key in keys), *fronts])
    return text.getvalue()


def _widest_front(point: Point, dense: Point, finals: Sequence[Point], cost: str) -> str:
    """Returns `all`, `family` or an empty text.

    Only results of runs and the dense model are on fronts, and the dense model belongs to every family.
    """
    if point in front([dense, *finals], cost):
        return "all"
    family = [final for final in finals if final.family == point.family]
    return "family" if point is not dense and point in front([dense, *family], cost) else ""


def _drawing(dense: Point, paths: Sequence[Sequence[Point]], cost: Cost, quality: str) -> Drawing:
    caption = (
        "Numbered marks are the results of runs, small hollow marks the stages on the way. Upper left is better. "
        "A front joins the models that no other one beats in both cost and quality; every front has the dense model."
    )
    caption += f" {MACS_NOTE}" if cost.key == "macs_ratio" else ""
    return Drawing(f"front-{cost.key}", draw_front(dense, paths, cost.key, (cost.words, quality)), caption)


def _axis(run: Run, split: str) -> str:
    quality = run.record.baseline.measurement.quality_on(split)
    assert quality is not None, "checked on loading"
    return f"{quality.metric} ({split}, {quality.num_examples} examples)"


def _introduction(runs: Sequence[Run], split: str) -> list[Safe]:
    record = runs[0].record
    where = f"{record.environment.processor}, GPU: {record.environment.gpu or 'none'}"
    threads = f"{record.recipe.measure.threads} threads"
    lines = [
        f"{run.label}: recipe {run.record.recipe.name}, {FAMILY_WORDS[run.record.recipe.family]}, seed "
        f"{run.record.recipe.seed}"
        for run in runs
    ]
    settings = f"Task {record.recipe.task_name}, {split} split, device {record.recipe.device}, {where}, {threads}."
    files = el("p", "All points as numbers: ", el("a", POINTS_FILE, href=POINTS_FILE), class_="note")
    return [el("h1", "Comparison of runs"), el("p", settings, class_="note"), bullets(lines, "ol"), files]


def _results(dense: Point, paths: Sequence[Sequence[Point]], costs: Sequence[Cost]) -> Safe:
    head = ["run", "family", "quality", "change", *(f"{cost.words}, ratio to dense" for cost in costs)]
    rows = [["dense", "–", f"{dense.quality:.3f}", "–", *("1.00" for _ in costs)]]
    for point in [path[-1] for path in paths]:
        ratios = [f"{point.costs[cost.key]:.2f}" for cost in costs]
        rows.append(
            [
                point.run,
                FAMILY_WORDS[point.family],
                f"{point.quality:.3f}",
                change(point.quality - dense.quality),
                *ratios,
            ]
        )
    return table(head, rows, text_columns=2)


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        is_foreign = any(out.iterdir()) and not (out / POINTS_FILE).exists()
    except OSError as error:
        raise RecordError(f"{out}: cannot be used as the output folder ({error.strerror})") from error
    if is_foreign:
        raise RecordError(f"{out}: is not empty and holds no earlier comparison; give another folder with --out")
