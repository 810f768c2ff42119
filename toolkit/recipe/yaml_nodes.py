"""Turns a YAML file into plain Python with the line of every value, and collects all faults of form.

Anchors and aliases are refused and never expanded, so a small file stays small in memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml.nodes import CollectionNode, MappingNode, Node, ScalarNode, SequenceNode

from toolkit.base.errors import Fault, RecipeError
from toolkit.recipe.yaml_parse import only_document, parse_file, parse_text

MAX_KEY_LENGTH = 80

ALIAS_MESSAGE = "anchors, aliases and merge keys (&name, *name, <<) are not used in recipes; write the value out"

TAG_MESSAGE = "tags (!name) are not used in recipes; write the plain value"

Place = tuple[str | int, ...]


@dataclass(frozen=True)
class Lines:
    """Holds the line of every value in a file, counted from 1, by the path of the value."""

    by_path: Mapping[Place, int]

    def at(self, path: Place) -> int | None:
        """Returns the line of the value at a path such as `("stages", 0, "num_blocks")`.

        For a path that is not in the file it is the line of the nearest parent, or None if there is no parent either.
        """
        parents = (path[:length] for length in range(len(path), -1, -1))
        return next((self.by_path[parent] for parent in parents if parent in self.by_path), None)


@dataclass(frozen=True)
class Document:
    """Holds the content of a file as plain Python, and what is wrong with it.

    faults: the faults of form.
    refused: the paths of values that are left out of `data` because of a fault.
    """

    data: dict[str, Any]
    lines: Lines
    faults: tuple[Fault, ...]
    refused: frozenset[Place]

    def refuses(self, path: Place) -> bool:
        """Returns whether the value at `path`, or a list or mapping that holds it, is left out of `data`."""
        return any(path[: len(place)] == place for place in self.refused)


def read_yaml(path: Path) -> Document:
    """Returns the content of the file at `path`, with the faults of form that leave the rest readable.

    Raises:
        RecipeError: the file is missing, not text, not YAML, or not a mapping.
    """
    tree = parse_file(path)
    walk = _Walk(tree.tagged)
    data = walk.value(tree.root, ())
    if () in walk.refused:
        raise RecipeError(walk.faults, path)
    if not isinstance(data, dict):
        raise only_document(path, f"a recipe is a mapping (lines of key: value), not {kind_of(data)}", _line(tree.root))
    return Document(data, Lines(walk.lines), tuple(walk.faults), frozenset(walk.refused))


def read_value(text: str, argument: str) -> Any:
    """Returns the plain value that a text of YAML gives, such as `4`, `[0, 1]` or `{mlp: 0.5}`.

    argument: the words of the command line that hold the text, for messages.

    Raises:
        RecipeError: the text is empty or not plain YAML.
    """
    if not text.strip():
        raise RecipeError([Fault((), "gives no value; write null for an empty one", argument=argument)])
    try:
        tree = parse_text(text, argument)
        walk = _Walk(tree.tagged)
        value = walk.value(tree.root, ())
    except RecipeError as error:
        raise RecipeError([Fault((), error.faults[0].message, argument=argument)]) from error
    if walk.faults:
        raise RecipeError([Fault(fault.path, fault.message, argument=argument) for fault in walk.faults])
    return value


def kind_of(value: Any) -> str:
    """Returns a plain word for the kind of a value, for messages."""
    kinds = {dict: "a mapping", list: "a list", str: "text", bool: "true or false", type(None): "empty"}
    return kinds.get(type(value), "a number")


@dataclass
class _Walk:
    """Goes once over the nodes of a file, and collects values, lines and faults."""

    tagged: frozenset[int]  # the positions in the text at which nodes with a written-out tag start
    lines: dict[Place, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    refused: set[Place] = field(default_factory=set)
    anchored: set[int] = field(default_factory=set)

    def value(self, node: Node, path: Place) -> Any:
        """Returns the plain value of a node."""
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
    """Returns a scalar of YAML 1.2; values that only older YAML knows (dates, yes/no) stay text."""
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
