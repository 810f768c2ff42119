"""Draws interactive scatter plots as inline SVG: a dot shows its lines on hover, focus or tap. No library is used."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from reports.drawing.html import Safe, el, together
from reports.drawing.style import GREY, INK

WIDTH, HEIGHT = 1130, 480

LEFT, RIGHT, TOP, BOTTOM = 78, 920, 14, 420  # edges of the area for data; the legend is to the right of the area

CORNERS: Final = {
    "s": (4, 45.0),
    "D": (4, 0.0),
    "h": (6, 0.0),
    "^": (3, -90.0),
    "v": (3, 90.0),
}  # other marks are stars

CSS: Final = """
svg.scatter { width: 100%; height: auto; font: 13px system-ui, "DejaVu Sans", Arial, sans-serif; }
.dot { cursor: pointer; outline: none; }
.dot:hover .mark, .dot:focus .mark { stroke: #1b1b1b; stroke-width: 2.5; }
#tip { position: absolute; max-width: 480px; background: #fff; border: 1px solid #666; border-radius: 6px;
  box-shadow: 0 2px 8px #0003; padding: 8px 12px; font-size: 13px; pointer-events: none; overflow-wrap: anywhere; }
"""

SCRIPT: Final = """
(() => {
  const tip = document.getElementById("tip");
  const hide = () => { tip.hidden = true; };
  const show = (dot) => {
    tip.replaceChildren(...dot.dataset.tip.split("\\n").map((line, place) => {
      const row = document.createElement("div");
      row.textContent = line;
      if (place === 0) row.style.fontWeight = "bold";
      return row;
    }));
    tip.style.left = "0px"; // or its place would narrow it while it is measured
    tip.hidden = false;
    const at = dot.getBoundingClientRect();
    const room = at.right + 8 + tip.offsetWidth < document.documentElement.clientWidth;
    const left = room ? at.right + 8 : Math.max(4, at.left - 8 - tip.offsetWidth);
    tip.style.left = `${left + scrollX}px`;
    tip.style.top = `${Math.max(4, at.top + scrollY - 12)}px`;
  };
  const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
  for (const plot of document.querySelectorAll("svg.scatter")) {
    const dots = [...plot.querySelectorAll(".dot")];
    dots.forEach((dot, place) => {
      for (const name of ["mouseenter", "focus", "click"]) dot.addEventListener(name, () => show(dot));
      for (const name of ["mouseleave", "blur"]) dot.addEventListener(name, hide);
      dot.addEventListener("keydown", (event) => {
        if (event.key === "Escape") hide();
        if (!(event.key in steps)) return;
        event.preventDefault();
        const next = dots[(place + steps[event.key] + dots.length) % dots.length];
        dot.setAttribute("tabindex", "-1");
        next.setAttribute("tabindex", "0");
        next.focus();
      });
    });
  }
})();
"""


@dataclass(frozen=True)
class Look:
    """Describes how a dot looks; `marker` is one of matplotlib's letters."""

    colour: str
    marker: str


@dataclass(frozen=True)
class Dot:
    """Describes a dot in data coordinates; `lines` are the text that it shows, of which the first is its name."""

    x: float
    y: float
    look: Look
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Line:
    """Describes a line through points in data coordinates, or, if `filled`, the area within the line."""

    points: tuple[tuple[float, float], ...]
    colour: str
    filled: bool = False


@dataclass(frozen=True)
class Scatter:
    """Describes a plot.

    name: a name that is used once on the page.
    titles: the titles of the x axis and of the y axis, with units.
    square: whether both axes show the same range.
    """

    name: str
    titles: tuple[str, str]
    dots: tuple[Dot, ...]
    lines: tuple[Line, ...]
    legend: tuple[tuple[Look, str], ...]
    square: bool = False


@dataclass(frozen=True)
class _Scale:
    """Turns data coordinates into pixels along one axis."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def scatter_element(plot: Scatter) -> Safe:
    """Returns the plot as SVG; its dots are in the order of the arrow keys, from left to right.

    The page needs `CSS`, `SCRIPT` and `tip_element` too.
    """
    dots = sorted(plot.dots, key=lambda dot: (dot.x, dot.y))
    xs, ys = [dot.x for dot in dots], [dot.y for dot in dots]
    if plot.square:
        xs = ys = [*xs, *ys]
    x, y = _Scale(*_limits(xs), LEFT, RIGHT), _Scale(*_limits(ys), BOTTOM, TOP)
    clip = f"clip-{plot.name}"
    area = {"x": str(LEFT), "y": str(TOP), "width": str(RIGHT - LEFT), "height": str(BOTTOM - TOP)}
    lines = el("g", *(_drawn(line, x, y) for line in plot.lines), **{"clip-path": f"url(#{clip})"})
    marks = [_dot(dot, x(dot.x), y(dot.y), place == 0) for place, dot in enumerate(dots)]
    return el(
        "svg", el("clipPath", el("rect", **area), id=clip), _axes(plot.titles, x, y), lines, *marks,
        _legend(plot.legend), viewBox=f"0 0 {WIDTH} {HEIGHT}", class_="scatter", role="group",
        **{"aria-label": f"{plot.titles[1]} against {plot.titles[0]}"},
    )  # fmt: skip


def tip_element() -> Safe:
    """Returns the element that shows the text of a dot; it must be outside of any positioned element."""
    return el("div", id="tip", role="tooltip", hidden="hidden")


def ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Returns about eight round numbers from `low` to `high`, each with its text; all have the same decimals."""
    rough = (high - low) / 8
    exponent = math.floor(math.log10(rough))
    size = next(size for size in (1, 2, 5, 10) if size * 10.0**exponent >= rough)
    step, decimals = size * 10.0**exponent, max(0, -exponent - (size == 10))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [(place * step, f"{place * step:.{decimals}f}") for place in range(first, last + 1)]


def _limits(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = 0.07 * (high - low) or max(0.05 * abs(high), 0.01)
    return low - room, high + room


def _axes(titles: tuple[str, str], x: _Scale, y: _Scale) -> Safe:
    parts = []
    for value, words in ticks(x.low, x.high):
        parts += [_line(x(value), TOP, x(value), BOTTOM, "#E6E6E6"), _text(x(value), BOTTOM + 20, words)]
    for value, words in ticks(y.low, y.high):
        parts += [_line(LEFT, y(value), RIGHT, y(value), "#E6E6E6")]
        parts += [_text(LEFT - 8, y(value) + 4, words, anchor="end")]
    parts += [_line(LEFT, BOTTOM, RIGHT, BOTTOM, GREY), _line(LEFT, TOP, LEFT, BOTTOM, GREY)]
    middle = (TOP + BOTTOM) / 2
    parts.append(_text((LEFT + RIGHT) / 2, BOTTOM + 46, titles[0]))
    parts.append(_text(20, middle, titles[1], transform=f"rotate(-90 20 {middle:g})"))
    return together(parts)


def _dot(dot: Dot, x: float, y: float, first: bool) -> Safe:
    """Returns a dot with an invisible circle around it, which a finger or a mouse can hit."""
    texts = {"data-tip": "\n".join(dot.lines), "aria-label": "; ".join(dot.lines)}
    target = el("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r="11", fill="transparent")
    return el("g", target, _mark(dot.look, x, y), class_="dot", role="img", tabindex="0" if first else "-1", **texts)


def _mark(look: Look, x: float, y: float) -> Safe:
    shown = {"fill": look.colour, "stroke": "#fff", "class": "mark"}
    if look.marker == "o":
        return el("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r="6", **shown)
    corners, turn = CORNERS.get(look.marker, (10, -90.0))
    places = []
    for corner in range(corners):
        radius = 4.0 if look.marker not in CORNERS and corner % 2 else 9.0 if look.marker not in CORNERS else 7.5
        angle = math.radians(turn + 360.0 * corner / corners)
        places.append(f"{x + radius * math.cos(angle):.1f},{y + radius * math.sin(angle):.1f}")
    return el("polygon", points=" ".join(places), **shown)


def _drawn(line: Line, x: _Scale, y: _Scale) -> Safe:
    points = " ".join(f"{x(across):.1f},{y(up):.1f}" for across, up in line.points)
    if line.filled:
        return el("polygon", points=points, fill=line.colour)
    return el("polyline", points=points, fill="none", stroke=line.colour, **{"stroke-width": "1.6"})


def _legend(entries: Sequence[tuple[Look, str]]) -> Safe:
    rows = []
    for place, (look, words) in enumerate(entries):
        height = TOP + 16 + 24 * place
        rows += [_mark(look, RIGHT + 26, height), _text(RIGHT + 42, height + 4, words, anchor="start")]
    return together(rows)


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> Safe:
    return el("line", x1=f"{x1:.1f}", y1=f"{y1:.1f}", x2=f"{x2:.1f}", y2=f"{y2:.1f}", stroke=colour)


def _text(x: float, y: float, words: str, anchor: str = "middle", **more: str) -> Safe:
    return el("text", words, x=f"{x:.1f}", y=f"{y:.1f}", fill=INK, **{"text-anchor": anchor}, **more)
