"""Writes the page of a run: one self-contained HTML file of what was gained and lost, and its figures as files."""

from __future__ import annotations

from pathlib import Path

from reports.drawing.html import Safe, document, el, figure_element, together
from reports.drawing.style import drawing_style
from reports.drawing.words import FAMILY_WORDS
from reports.run.redundancy_section import redundancy_section
from reports.run.sections import Section, sections_of
from reports.run.verdict import verdict
from toolkit.base.files import write_atomically
from toolkit.record.run import load_record
from toolkit.redundancy.report import load_redundancy

REPORT_FOLDER = "report"

PAGE_FILE = "index.html"


def write_page(run_dir: Path) -> Path:
    """Writes `report/index.html` and its figures from the `run.json` in a folder, and returns the path of the page.

    The run may be unfinished; the page then says so. A `redundancy.json` beside `run.json` gets a section of its own.

    Raises:
        RecordError: the folder has no readable run record, or a damaged redundancy report.
    """
    record, redundancy = load_record(run_dir), load_redundancy(run_dir)
    folder = run_dir / REPORT_FOLDER
    folder.mkdir(exist_ok=True)
    with drawing_style():
        sections = sections_of(record)
        if redundancy is not None:
            sections.insert(len(sections) - 1, redundancy_section(redundancy))  # the recipe stays last
        written = [_written(section, folder) for section in sections]
    recipe = record.recipe
    lead = el("p", f"{FAMILY_WORDS[recipe.family]} · task {recipe.task_name} · device {recipe.device}", class_="note")
    line = verdict(record)
    top = [el("h1", recipe.name), lead, *([] if line is None else [el("p", el("strong", line))])]
    text = document(f"{recipe.name}: compression run", *top, *written)
    write_atomically(folder / PAGE_FILE, text)
    return folder / PAGE_FILE


def _written(section: Section, folder: Path) -> Safe:
    figures = [figure_element(drawing, folder) for drawing in section.drawings]
    return el("section", el("h2", section.title), section.text, together(figures))
