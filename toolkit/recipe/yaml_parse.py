"""Parses a small YAML 1.2 file with ruamel.yaml, and stops at the first fault, as nothing after it can be trusted."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, ReusedAnchorWarning, YAMLError
from ruamel.yaml.events import DocumentStartEvent, NodeEvent
from ruamel.yaml.nodes import Node

from toolkit.base.errors import Fault, RecipeError

MAX_BYTES = 256 * 1024

MAX_DEPTH = 16


@dataclass(frozen=True)
class Tree:
    """Holds a parsed file, in which an alias is not expanded but is the very node that its anchor names.

    tagged: the positions in the text at which nodes with a written-out tag start.
    """

    root: Node
    tagged: frozenset[int]


def parse_file(path: Path) -> Tree:
    """Returns the nodes of the file at `path`.

    Raises:
        RecipeError: the file is missing, empty, too large, not text, not YAML, too deep, or has several documents.
    """
    return parse_text(_read_text(path), path)


def parse_text(text: str, path: Path | str) -> Tree:
    """Returns the nodes of a text; `path` is where it comes from, for messages.

    Raises:
        RecipeError: the text is empty, not YAML, too deep, or has several documents.
    """
    try:
        tagged = _scan(text, path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ReusedAnchorWarning)  # anchors are refused later, with a line
            root = _parser().compose(text)
    except MarkedYAMLError as error:
        raise only_document(path, _syntax_message(error, text), _syntax_line(error)) from error
    except YAMLError as error:  # ruamel's reader: a character that YAML does not allow
        line = text.count("\n", 0, getattr(error, "position", 0)) + 1
        raise only_document(path, "holds a control character; is this a text file?", line) from error
    if root is None:
        raise only_document(path, "the file is empty")
    return Tree(root, tagged)


def _read_text(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise only_document(path, "no such file") from error
    except IsADirectoryError as error:
        raise only_document(path, "is a directory; name a recipe file in it") from error
    except OSError as error:
        raise only_document(path, f"cannot be read: {error.strerror}") from error
    if len(raw) > MAX_BYTES:
        raise only_document(path, f"is over {MAX_BYTES // 1024} KB; this is no recipe")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise only_document(path, "is not text in UTF-8", raw[: error.start].count(b"\n") + 1) from error


def _scan(text: str, path: Path | str) -> frozenset[int]:
    """Returns the positions of tagged nodes; raises RecipeError for directives, more documents or too many levels."""
    tagged: set[int] = set()
    depth = documents = 0
    for event in _parser().parse(text):
        line = event.start_mark.line + 1
        if isinstance(event, DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise only_document(path, "holds more than one YAML document (---); a recipe is one", line)
            if event.version or event.tags:
                first = text[: text.index("%")].count("\n") + 1
                raise only_document(path, "directives (%YAML, %TAG) are not used in recipes", first)
        elif isinstance(event, NodeEvent) and getattr(event, "tag", None) is not None:
            tagged.add(event.start_mark.index)
        name = type(event).__name__
        depth += name in ("MappingStartEvent", "SequenceStartEvent")
        depth -= name in ("MappingEndEvent", "SequenceEndEvent")
        if depth > MAX_DEPTH:
            raise only_document(path, f"nested too deeply: more than {MAX_DEPTH} levels", line)
    return frozenset(tagged)


def _parser() -> YAML:
    return YAML(typ="safe", pure=True)


def only_document(path: Path | str, message: str, line: int | None = None) -> RecipeError:
    """Returns an error with a single fault, which is one of the whole file or of a `line`."""
    return RecipeError([Fault((), message, line)], path)


def _syntax_line(error: MarkedYAMLError) -> int | None:
    mark = error.problem_mark or error.context_mark
    return None if mark is None else int(mark.line) + 1


def _syntax_message(error: MarkedYAMLError, text: str) -> str:
    line = _syntax_line(error)
    lines = text.splitlines()
    if line is not None and line <= len(lines) and "\t" in lines[line - 1]:
        return "not valid YAML: a tab stands where only spaces may; indent with spaces"
    parts = [str(part) for part in (error.problem, error.context) if part]
    return "not valid YAML: " + ", ".join(parts).replace("\n", " ")
