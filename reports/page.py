"""A run's page: one self-contained HTML file that shows what was gained and lost, and its figures as files."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path

from reports.figures.style import Drawing, drawing_style, save
from reports.markup import Safe, document, el, together
from reports.sections import Section, sections_of
from reports.words import FAMILY_WORDS
from toolkit.record import load_record, write_atomically

REPORT_FOLDER = "report"
PAGE_FILE = "index.html"


def write_page(run_dir: Path) -> Path:
    """Write `run_dir/report/index.html` and its figures from `run_dir/run.json` alone; returns the page's path.

    The run may be unfinished; the page then says so.

    Raises:
        RecordError: no readable run record in `run_dir`.
    """
    record = load_record(run_dir)
    folder = run_dir / REPORT_FOLDER
    folder.mkdir(exist_ok=True)
    with drawing_style():
        written = [_written(section, folder) for section in sections_of(record)]
    recipe = record.recipe
    lead = el("p", f"{FAMILY_WORDS[recipe.family]} · task {recipe.task} · device {recipe.device}", class_="note")
    text = document(f"{recipe.name}: compression run", el("h1", recipe.name), lead, *written)
    write_atomically(folder / PAGE_FILE, text)
    return folder / PAGE_FILE


def figure_element(drawing: Drawing, folder: Path) -> Safe:
    """Save the figure in `folder`; the element holds it whole, with links to the files."""
    source = "data:image/svg+xml;base64," + b64encode(save(drawing, folder)).decode()
    links = [el("a", kind.upper(), href=f"{drawing.stem}.{kind}") for kind in ("svg", "png")]
    caption = el("figcaption", drawing.caption, " (", links[0], ", ", links[1], ")")
    return el("figure", el("img", src=source, alt=drawing.caption), caption)


def _written(section: Section, folder: Path) -> Safe:
    figures = [figure_element(drawing, folder) for drawing in section.drawings]
    return el("section", el("h2", section.title), section.text, together(figures))
