"""Writes the report of a planner's sweep into its folder: page, tables, points and figures."""

from __future__ import annotations

from pathlib import Path

from reports.comparison.runs import Cost
from reports.drawing.html import Safe, bullets, document, el, table, together
from reports.drawing.scatter import CSS, SCRIPT, Scatter, scatter_element, tip_element
from reports.drawing.style import Drawing, drawing_style, save
from reports.drawing.words import MACS_NOTE
from reports.fronts.cells import Fronts
from reports.fronts.figures import draw_plan_fronts, draw_predictions
from reports.fronts.files import POINTS_FILE, TABLE_FILE, write_fronts_table
from reports.fronts.plots import front_plot, prediction_plot
from reports.fronts.scores import misses
from reports.fronts.tables import Sheet, lists, sheets
from reports.fronts.words import cost_name, front_title
from reports.run.page import PAGE_FILE
from toolkit.base.files import write_atomically

PREDICTED = "predicted-latency"

NARROW = (  # the widest table has twelve columns
    "body { max-width: 1232px; } th, td { padding: 5px 4px; } td small { font-size: 10.5px; }"
)


def write_fronts(fronts: Fronts, folder: Path) -> Path:
    """Writes page, tables, points and figures to a folder, over an earlier report, and returns the path of the page."""
    write_fronts_table(fronts, folder)
    plots = [_front_section(fronts, cost, folder) for cost in fronts.costs] if fronts.cells else []
    plots += _prediction_sections(fronts, folder)
    style = Safe(f"<style>{NARROW}{CSS}</style>")
    body = [style, *_introduction(fronts), *plots, *map(_table, sheets(fronts)), *_lists(fronts)]
    script = Safe(f"<script>{SCRIPT}</script>")
    write_atomically(folder / PAGE_FILE, document(f"{fronts.name}: fronts", *body, tip_element(), script))
    return folder / PAGE_FILE


def _introduction(fronts: Fronts) -> list[Safe]:
    how = (
        "Point at a dot, or tap it, to see its recipe; with the keyboard, Tab goes to a plot and the arrow keys from "
        "dot to dot. Every dot is one seed; lines join a family's means over seeds. Towards the upper left is better."
    )
    files = [el("a", name, href=name) for name in (TABLE_FILE, POINTS_FILE)]
    return [
        el("h1", f"{fronts.name}: fronts of planned models"),
        el("p", fronts.settings, class_="note"),
        el("p", how),
        el("p", "All numbers: ", files[0], ", ", files[1], class_="note"),
    ]


def _front_section(fronts: Fronts, cost: Cost, folder: Path) -> Safe:
    stem = f"fronts-{cost.key}"
    with drawing_style():
        save(Drawing(stem, draw_plan_fronts(fronts, cost), front_title(fronts, cost)), folder)
    note = MACS_NOTE if cost.key == "macs_ratio" else ""
    return _section(front_title(fronts, cost), front_plot(fronts, cost), stem, note)


def _prediction_sections(fronts: Fronts, folder: Path) -> list[Safe]:
    entries = [entry for entry in misses(fronts) if entry.misses]
    if not entries:
        return []
    with drawing_style():
        save(Drawing(PREDICTED, draw_predictions(fronts), "predicted against measured latency"), folder)
    note = "On the line, prediction and measurement agree; in the grey band they do within 10 %."
    return [
        _section(
            f"Predicted against measured {cost_name(entry.cost)}",
            prediction_plot(fronts, entry), PREDICTED, note,
        )
        for entry in entries
    ]  # fmt: skip


def _section(heading: str, plot: Scatter, stem: str, note: str) -> Safe:
    files = {"PNG": f"{stem}.png", "SVG": f"{stem}.svg", "CSV": POINTS_FILE}
    links = together(part for kind, name in files.items() for part in (" ", el("a", kind, href=name)))
    caption = el("figcaption", f"{note} As files:".strip(), links)
    return el("section", el("h2", heading), el("figure", scatter_element(plot), caption))


def _table(sheet: Sheet) -> Safe:
    rows = [[_cell(value, place >= sheet.text_columns) for place, value in enumerate(row)] for row in sheet.rows]
    body = table(sheet.head, rows, sheet.text_columns)
    return el("section", el("h2", sheet.title), body, el("p", sheet.note, class_="note"))


def _cell(value: str, is_number: bool) -> str:
    """Returns a cell with the spread of a number below its mean, so that the table is narrow enough to read."""
    mean, opened, rest = value.partition(" (")
    return together([mean, el("small", f"({rest}")]) if is_number and opened else value


def _lists(fronts: Fronts) -> list[Safe]:
    return [
        el("section", el("h2", title), bullets(lines) if lines else el("p", "None.")) for title, lines in lists(fronts)
    ]
