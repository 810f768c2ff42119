"""Holds what all figures share: a colour-blind safe palette (Okabe and Ito), sizes, and saving without dates."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from toolkit.base.files import replacing, write_atomically

BLUE, ORANGE, GREEN, PURPLE, SKY = "#0072B2", "#D55E00", "#007A5A", "#AA4499", "#8CC4E8"

GREY, LIGHT, INK = "#6E6E6E", "#D9D9D9", "#1B1B1B"

WIDTH_IN = 11.0

PNG_DPI = 150

SETTINGS: Any = {  # only newer matplotlib has a type for it
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.labelsize": 10,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "legend.fontsize": 9.5,
    "figure.titlesize": 13,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "text.parse_math": False,  # a `$` in a name is a dollar sign, not a formula
    "text.usetex": False,
    "svg.fonttype": "path",  # looks the same everywhere, no font needed
    "svg.hashsalt": "reports",  # the same figure gives the same bytes
}


@contextmanager
def drawing_style() -> Iterator[None]:
    """Sets the style of the figures that are drawn and saved in the `with`."""
    with mpl.rc_context(SETTINGS):
        yield


@dataclass(frozen=True)
class Drawing:
    """Holds a figure, the name of its files without their endings, and its caption."""

    stem: str
    figure: Figure
    caption: str


def new_figure(height_in: float, title: str, width_in: float = WIDTH_IN) -> Figure:
    """Returns an empty figure with a title; height and width are in inches."""
    figure = Figure(figsize=(width_in, height_in), layout=ConstrainedLayoutEngine(h_pad=0.07, w_pad=0.06))
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    return figure


def light_grid(axes: Axes, along: str) -> None:
    """Draws pale lines behind the data at the ticks of the axis `along` (`x` or `y`)."""
    axes.set_axisbelow(True)
    (axes.xaxis if along == "x" else axes.yaxis).grid(True, color="#E6E6E6", linewidth=0.8)


def save(drawing: Drawing, directory: Path) -> bytes:
    """Writes `STEM.svg` and `STEM.png`, each whole or not at all, and returns the bytes of the SVG."""
    svg = BytesIO()
    drawing.figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    write_atomically(directory / f"{drawing.stem}.svg", svg.getvalue().decode())
    with replacing(directory / f"{drawing.stem}.png") as part:
        drawing.figure.savefig(part, format="png", dpi=PNG_DPI, metadata={"Software": None})
    return svg.getvalue()
