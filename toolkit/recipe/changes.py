"""Changes values of a recipe or a sweep before it is checked, as `--seed` and `--set` ask.

Nothing here imports torch.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from toolkit.base.errors import UserError
from toolkit.recipe.yaml_nodes import Place, kind_of, read_value

EXAMPLE = "stages.0.num_blocks=4"

_PARTS = re.compile(r'(?:"([^"]+)"|([^".]+))(?:\.(?!\Z)|\Z)')


@dataclass(frozen=True)
class ChangedValue:
    """States one value that takes the place of the file's.

    argument: the words of the command line that gave the value, such as `--set stages.0.num_blocks=4`, for messages.
    place: the keys and indices that lead to the value.
    """

    argument: str
    place: Place
    value: Any


def add_change_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that change values of a recipe, which `changes_given` reads."""
    add_seed_argument(parser, "random seed of the run (default: the recipe's `seed`)")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="device to run on (default: the recipe's `device`)")
    add_set_argument(parser, EXAMPLE)


def add_seed_argument(parser: argparse.ArgumentParser, meaning: str) -> None:
    """Adds the argument `--seed`, whose value is checked like the file."""
    parser.add_argument("--seed", metavar="N", help=meaning)


def add_set_argument(parser: argparse.ArgumentParser, example: str) -> None:
    """Adds the argument `--set`, which may be given several times; `example` is one of its values, for the help."""
    parser.add_argument(
        "--set",
        dest="changes",
        action="append",
        default=[],
        metavar="PLACE=VALUE",
        help=f"put another value into the file, such as {example}; it is YAML and is checked like the file; may be "
        "given several times (default: the file's values)",
    )


def changes_given(args: argparse.Namespace) -> tuple[ChangedValue, ...]:
    """Returns the changes that the arguments of `add_change_arguments` state.

    Raises:
        UserError: a word is no PLACE=VALUE, its value is no YAML, or a place is given twice.
    """
    options = {"seed": args.seed, "device": args.device}
    own = [change_of(f"--{name}", (name,), text) for name, text in options.items() if text is not None]
    return changes_of(args.changes, own)


def changes_of(words: Iterable[str], others: Sequence[ChangedValue] = ()) -> tuple[ChangedValue, ...]:
    """Returns `others`, then the changes that the words of `--set` state.

    Raises:
        UserError: a word is no PLACE=VALUE, its value is no YAML, or a place is given twice.
    """
    changes = [*others, *(_change(word) for word in words)]
    for index, change in enumerate(changes):
        for earlier in changes[:index]:
            if _dotted(earlier.place) == _dotted(change.place):
                raise UserError(f"{change.argument}: the same place is given by {earlier.argument}; give it once")
    return tuple(changes)


def change_of(option: str, place: Place, text: str) -> ChangedValue:
    """Returns the change that an option with a place of its own states, such as `--seed 3`.

    Raises:
        UserError: the text is no YAML.
    """
    argument = f"{option} {text}"
    return ChangedValue(argument, place, read_value(text, argument))


def changed(data: dict[str, Any], changes: Iterable[ChangedValue]) -> dict[str, Any]:
    """Returns a copy of the plain content of a file with the changes made, which is not checked yet.

    Raises:
        UserError: a place leads into a list behind its end, or into a value that holds no others.
    """
    for change in changes:
        data = _with(data, change.place, change, ())
    return data


def argument_at(changes: Iterable[ChangedValue], path: Place) -> str | None:
    """Returns the argument that gave the value at a path, or a value that holds it; None if the file gave it."""
    given = [change.argument for change in changes if f"{_dotted(path)}.".startswith(f"{_dotted(change.place)}.")]
    return given[-1] if given else None


def _change(word: str) -> ChangedValue:
    argument = f"--set {word}"
    place, equals, text = word.partition("=")
    if not equals or not place:
        raise UserError(f"{argument}: is no PLACE=VALUE; write one such as {EXAMPLE}")
    return ChangedValue(argument, _place(place, argument), read_value(text, argument))


def _place(text: str, argument: str) -> Place:
    parts: list[str | int] = []
    end = 0
    for match in _PARTS.finditer(text):
        if match.start() != end:
            break
        quoted, plain = match.groups()
        parts.append(quoted if quoted is not None else int(plain) if plain.isdecimal() else plain)
        end = match.end()
    if end != len(text) or not parts:
        raise UserError(f'{argument}: {text} is no place; join keys by dots, and put keys with dots in quotes: a."b.c"')
    return tuple(parts)


def _dotted(place: Place) -> str:
    return ".".join(map(str, place))


def _with(holder: Any, place: Place, change: ChangedValue, before: Place) -> Any:
    """Returns a copy of a list or mapping in which the value at the first part of `place` holds the change."""
    if not place:
        return change.value
    where = _dotted(before) or "the file"
    if isinstance(holder, list):
        index, rest = place[0], place[1:]
        if not isinstance(index, int) or index >= len(holder):
            last = f"its places are 0 to {len(holder) - 1}" if holder else "it is empty"
            raise UserError(f"{change.argument}: {where} is a list and has no place {index}; {last}")
        return [*holder[:index], _with(holder[index], rest, change, (*before, index)), *holder[index + 1 :]]
    if holder is not None and not isinstance(holder, dict):
        raise UserError(f"{change.argument}: {where} is {kind_of(holder)}, which holds no other values")
    mapping = {} if holder is None else holder
    key, rest = _key(mapping, place)
    return {**mapping, key: _with(mapping.get(key), rest, change, (*before, key))}


def _key(mapping: dict[str, Any], place: Place) -> tuple[str, Place]:
    """Returns the first key of a place and the rest; a key of the file may hold dots, as the name of a block does."""
    for length in range(len(place), 0, -1):
        key = _dotted(place[:length])
        if key in mapping:
            return key, place[length:]
    return str(place[0]), place[1:]
