"""The Markdown pages of the repository, and what the tests of them take out: links, paths, blocks, tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

NUMBER = re.compile(r"(?<![\w.])[+-]?\d+\.\d+(?!\.?\d)")


def pages() -> list[Path]:
    """Returns all pages that people wrote: not what lies in virtual environments and runs."""
    folders = ("toolkit", "recipes", "reports", "tests")
    return sorted([ROOT / "README.md", *(page for folder in folders for page in (ROOT / folder).rglob("README.md"))])


@dataclass(frozen=True)
class Block:
    """A fenced block of a page. `mark` is the comment on the line before it, or ""."""

    language: str
    text: str
    mark: str


def blocks(text: str) -> Iterator[Block]:
    for found in re.finditer(r"(?:<!-- ([^\n]*) -->\n)?```(\w*)\n(.*?)```", text, flags=re.DOTALL):
        yield Block(found[2], found[3], found[1] or "")


def links(text: str) -> Iterator[str]:
    """Yields the targets of links and images that are files, without the part behind #."""
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http:", "https:", "#")):
            yield target.partition("#")[0]


def named_paths(text: str) -> Iterator[str]:
    """Yields what is written as code and is a path below one of the folders of the repository."""
    for code in re.findall(r"`([^`\n]+)`", text):
        for word in code.split():
            if re.fullmatch(r"(toolkit|recipes|reports|tests)/[\w./-]*", word) and "NAME" not in word:
                yield word


def commands(text: str) -> Iterator[list[str]]:
    """Yields the words of each command of this project in the shell blocks: module, then arguments."""
    for block in blocks(text):
        if block.language == "bash":
            joined = block.text.replace("\\\n", " ").replace("&&\n", "&& ")
            for line in re.split(r"\n|&&", joined):
                words = line.partition(" #")[0].split()
                if "-m" in words and words[words.index("-m") + 1].startswith(("toolkit", "reports")):
                    yield words[words.index("-m") + 1 :]


@dataclass(frozen=True)
class QuotedTable:
    """A table between `<!-- figures: FILE -->` and `<!-- end -->`; FILE is relative to the page."""

    source: str
    rows: tuple[tuple[str, ...], ...]


def quoted_tables(text: str) -> Iterator[QuotedTable]:
    for found in re.finditer(r"<!-- figures: (\S+) -->\n(.*?)<!-- end -->", text, flags=re.DOTALL):
        lines = found[2].strip().splitlines()[2:]
        yield QuotedTable(found[1], tuple(tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines))


def unsupported(row: tuple[str, ...], source: str) -> list[str]:
    """Returns the figures of a row that no single line of the source has, all of them together.

    A figure of d decimals is that of the source if the source's number, rounded to d decimals, is the same.
    """
    figures = [figure for cell in row[1:] for figure in NUMBER.findall(cell)]
    missing = min((_missing(figures, line) for line in source.splitlines()), key=len, default=figures)
    return missing if figures else []


def _missing(figures: list[str], line: str) -> list[str]:
    numbers = [float(number) for number in re.findall(r"(?<![\w.])[+-]?\d+(?:\.\d+)?(?:e-?\d+)?", line)]
    return [figure for figure in figures if not any(_same(figure, number) for number in numbers)]


def _same(figure: str, number: float) -> bool:
    decimals = len(figure.partition(".")[2])
    return abs(float(figure) - number) <= 0.5 * 10**-decimals + 1e-12
