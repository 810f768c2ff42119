"""Reads a page as a browser would: its text, and all that could make it load something."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path


class Page(HTMLParser):
    """`text` without markup; `links` are (attribute, value); `tags` all element names; `titles` the headings."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.text, self.css, self.open_tag = "", "", ""
        self.links: list[tuple[str, str]] = []
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.titles: list[str] = []
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open_tag = tag
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
        self.links += [(name, value or "") for name, value in attrs if name in ("src", "href", "srcset", "data")]

    def handle_endtag(self, tag: str) -> None:
        self.open_tag = ""

    def handle_data(self, data: str) -> None:
        if self.open_tag == "style":
            self.css += data
            return
        if self.open_tag == "h2":
            self.titles.append(data)
        self.text += data + " "
