"""Writes HTML as nested calls; all text that is not `Safe` is escaped, so text of a record never becomes markup."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from reports.drawing.style import Drawing, save

VOID_TAGS = frozenset({"img", "meta"})

CSS = """
body { font: 16px/1.5 system-ui, "Segoe UI", "DejaVu Sans", Arial, sans-serif; color: #1b1b1b; background: #fff;
  margin: 0 auto; max-width: 1180px; padding: 24px; }
h1 { font-size: 28px; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 21px; margin: 40px 0 8px; padding-top: 12px; border-top: 1px solid #d0d0d0; }
h3 { font-size: 17px; margin: 24px 0 4px; }
p, li, figcaption { overflow-wrap: anywhere; }
td, th { overflow-wrap: break-word; max-width: 800px; }
td.number, tbody td:first-child { white-space: nowrap; }
.note, figcaption, small { color: #555; font-size: 14px; }
.warning { background: #fff4d6; border-left: 4px solid #b36b00; padding: 8px 12px; }
.tiles { display: flex; flex-wrap: wrap; gap: 10px; margin: 16px 0; }
.tile { border: 1px solid #d0d0d0; border-radius: 6px; padding: 8px 14px; min-width: 110px; font-size: 14px; }
.tile strong { display: block; font-size: 24px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14px; margin: 8px 0; }
caption { text-align: left; color: #555; padding-bottom: 4px; }
th, td { padding: 5px 10px; border-bottom: 1px solid #e2e2e2; text-align: left; vertical-align: top; }
thead th { border-bottom: 2px solid #888; vertical-align: bottom; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
td small { display: block; font-size: 12.5px; }
figure { margin: 16px 0 28px; }
figure img { width: 100%; max-width: 1300px; height: auto; }
pre { background: #f5f5f5; padding: 12px; overflow-x: auto; font-size: 13px; }
"""


class Safe(str):
    """Marks text that is HTML already and is not escaped."""

    __slots__ = ()


def el(tag: str, *children: str, **attributes: str) -> Safe:
    """Returns one element; underscores at the end of an attribute's name are removed (`class_`)."""
    written = "".join(f' {name.rstrip("_")}="{escape(value)}"' for name, value in attributes.items())
    if tag in VOID_TAGS:
        return Safe(f"<{tag}{written}>")
    return Safe(f"<{tag}{written}>{together(children)}</{tag}>")


def together(children: Iterable[str]) -> Safe:
    """Returns the children one after the other, escaped where they are not `Safe`."""
    return Safe("".join(child if isinstance(child, Safe) else escape(child) for child in children))


def table(head: Sequence[str], rows: Iterable[Sequence[str]], text_columns: int = 1, caption: str = "") -> Safe:
    """Returns a table whose first `text_columns` columns are text and whose other columns are numbers."""

    def cells(tag: str, values: Sequence[str]) -> Safe:
        return together(
            el(tag, value) if column < text_columns else el(tag, value, class_="number")
            for column, value in enumerate(values)
        )

    titled = el("caption", caption) if caption else Safe("")
    body = together(el("tr", cells("td", row)) for row in rows)
    return el("div", el("table", titled, el("thead", el("tr", cells("th", head))), el("tbody", body)), class_="wide")


def bullets(items: Iterable[str], tag: str = "ul") -> Safe:
    """Returns a list: with bullets, or with numbers for the tag `ol`."""
    return el(tag, *(el("li", item) for item in items))


def document(title: str, *body: str) -> str:
    """Returns a whole page, which loads nothing from elsewhere."""
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("title", title),
        Safe(f"<style>{CSS}</style>"),
    )
    return f"<!DOCTYPE html>\n{el('html', head, el('body', *body), lang='en')}\n"


def figure_element(drawing: Drawing, folder: Path) -> Safe:
    """Saves a figure in a folder, and returns an element that holds the whole figure and links to its files."""
    source = "data:image/svg+xml;base64," + b64encode(save(drawing, folder)).decode()
    links = [el("a", kind.upper(), href=f"{drawing.stem}.{kind}") for kind in ("svg", "png")]
    caption = el("figcaption", drawing.caption, " (", links[0], ", ", links[1], ")")
    return el("figure", el("img", src=source, alt=drawing.caption), caption)
