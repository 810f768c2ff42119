"""Turn a YAML file into plain Python, with the line of every value; all faults of form are collected.

Anchors and aliases are refused, never expanded, so a small file stays small in memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml.nodes import CollectionNode, MappingNode, Node, ScalarNode, SequenceNode

from toolkit.base.errors import Fault, RecipeError
from toolkit.recipe.yaml_parse import only_document, parse_file

MAX_KEY_LENGTH = 80

ALIAS_MESSAGE = "anchors, aliases and merge keys (&name, *name, <<) are not used in recipes; write the value out"

TAG_MESSAGE = "tags (!name) are not used in recipes; write the plain value"

Place = tuple[str | int, ...]


@dataclass(frozen=True)
class Lines:
    """The 1-based line of every value in a file; `at` asks by path, such as `("stages", 0, "num_blocks")`."""

    by_path: Mapping[Place, int]

    def at(self, path: Place) -> int | None:
        """Line of the value at `path`, or of its nearest parent that is in the file."""
        parents = (path[:length] for length in range(len(path), -1, -1))
        return next((self.by_path[parent] for parent in parents if parent in self.by_path), None)


@dataclass(frozen=True)
class Document:
    """A file's content as plain Python. `refused`: places whose value was not taken over; its fault is in `faults`."""

    data: dict[str, Any]
    lines: Lines
    faults: tuple[Fault, ...]
    refused: frozenset[Place]

    def refuses(self, path: Place) -> bool:
        return any(path[: len(place)] == place for place in self.refused)


def read_yaml(path: Path) -> Document:
    """Read the file at `path`.

    Raises:
        RecipeError: it cannot be read at all: missing, not text, not YAML, or not a mapping.
    """
    tree = parse_file(path)
    walk = _Walk(tree.tagged)
    data = walk.value(tree.root, ())
    if () in walk.refused:
        raise RecipeError(walk.faults, path)
    if not isinstance(data, dict):
        raise only_document(path, f"a recipe is a mapping (lines of key: value), not {kind_of(data)}", _line(tree.root))
    return Document(data, Lines(walk.lines), tuple(walk.faults), frozenset(walk.refused))


def kind_of(value: Any) -> str:
    """A plain word for what a value is, for messages."""
    kinds = {dict: "a mapping", list: "a list", str: "text", bool: "true or false", type(None): "empty"}
    return kinds.get(type(value), "a number")


@dataclass
class _Walk:
    """One pass over the nodes of a file."""

    tagged: frozenset[int]  # where a node with a written-out tag starts
    lines: dict[Place, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    refused: set[Place] = field(default_factory=set)
    anchored: set[int] = field(default_factory=set)

    def value(self, node: Node, path: Place) -> Any:
        self.lines.setdefault(path, _line(node))
        if node.anchor is not None:
            return self._refuse_anchored(node, path)
        if node.start_mark.index in self.tagged:
            return self._refuse(path, TAG_MESSAGE, _line(node))
        if isinstance(node, MappingNode):
            return self._mapping(node, path)
        if isinstance(node, SequenceNode):
            return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        return _scalar(node)

    def _mapping(self, node: MappingNode, path: Place) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = _line(key_node)
            if key_node.tag.endswith(":merge"):
                self._refuse(path, ALIAS_MESSAGE, line)
                continue
            key = _scalar(key_node) if isinstance(key_node, ScalarNode) else None
            if not isinstance(key, str) or not key.isprintable() or not 0 < len(key) <= MAX_KEY_LENGTH:
                self.faults.append(Fault(path, _key_message(key_node), line))
            elif key in data:
                first = self.lines[(*path, key)]
                self.faults.append(Fault((*path, key), f"duplicate key, first given on line {first}", line))
            else:
                self.lines[(*path, key)] = line
                data[key] = self.value(value_node, (*path, key))
        return data

    def _refuse_anchored(self, node: Node, path: Place) -> None:
        self.refused.add(path)
        if id(node) not in self.anchored:  # an alias is the anchored node again: one fault is enough
            self.anchored.add(id(node))
            self.faults.append(Fault(path, ALIAS_MESSAGE, _line(node)))

    def _refuse(self, path: Place, message: str, line: int) -> None:
        self.refused.add(path)
        self.faults.append(Fault(path, message, line))


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1


def _key_message(node: Node) -> str:
    if isinstance(node, CollectionNode):
        return f"a key must be a word, not {'a list' if isinstance(node, SequenceNode) else 'a mapping'}"
    return f"a key must be a word, not {ascii(node.value)[:MAX_KEY_LENGTH]}"


def _scalar(node: Node) -> Any:
    """YAML 1.2 scalars; what only older YAML knows (dates, yes/no) stays text."""
    text = str(node.value)
    match str(node.tag).rsplit(":", 1)[-1]:
        case "null":
            return None
        case "bool":
            return text.lower() == "true"
        case "int":
            return _integer(text)
        case "float":
            return _float(text)
    return text


def _integer(text: str) -> int | str:
    digits = text.replace("_", "").lower()
    base = 0 if digits.lstrip("+-")[:2] in ("0x", "0o", "0b") else 10
    try:
        return int(digits, base)
    except ValueError:  # thousands of digits: Python refuses to convert them
        return text


def _float(text: str) -> float:
    plain = text.replace("_", "").lower()
    if plain.lstrip("+-") == ".nan":
        return math.nan
    return float(plain.replace(".inf", "inf"))
