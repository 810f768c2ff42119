"""Makes the section of a run's page on what the convolutions of a model repeat."""

from __future__ import annotations

from reports.drawing.html import Safe, bullets, el, table, together
from reports.drawing.style import Drawing
from reports.run.redundancy_figure import draw_redundancy
from reports.run.sections import Section
from toolkit.redundancy.report import RedundancyReport
from toolkit.redundancy.words import NOTE, remarks_of, tables_of

TITLE = "Redundancy of the convolutions"

CAPTION = (
    "R² is of what is not computed, rebuilt from what is: 1 is exact, 0 is as good as the mean. Hollow marks are the "
    "simple ways: to keep the first channels, and to repeat the step before."
)


def redundancy_section(report: RedundancyReport) -> Section:
    """Returns the section; it draws a figure, so it must be called within `drawing_style()`."""
    lead = (
        f"Measured by inspect --redundancy on {report.model} (task {report.task}): at most {report.examples} examples "
        f"of each of the splits calibration and holdout, and {report.positions} positions of each example."
    )
    parts = [el("p", f"{lead} {NOTE}", class_="note")]
    parts += [table(columns, rows, text_columns=2, caption=title) for title, columns, rows in tables_of(report)]
    remarks = remarks_of(report)
    parts.append(bullets(remarks) if remarks else Safe(""))
    drawings = (Drawing("redundancy", draw_redundancy(report), CAPTION),) if report.layers else ()
    return Section(TITLE, together(parts), drawings)
