"""Turns pydantic's validation errors into faults in plain words, with the legal keys, choices or ranges."""

from __future__ import annotations

import json
import re
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from toolkit.base.errors import Fault
from toolkit.base.words import did_you_mean
from toolkit.recipe.yaml_nodes import Place, kind_of
from toolkit.tasks.reference import BY_NAME

NOT_FINITE = {"NaN": ".nan", "Infinity": ".inf", "-Infinity": "-.inf"}  # JSON's word: YAML's

NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


@dataclass(frozen=True)
class _Error:
    """Holds one of pydantic's errors, with its place in the file."""

    path: Place
    model: type[BaseModel]  # the model that the last key belongs to
    value: Any
    context: dict[str, Any]


NAME_RULE = "it must be 1 to 80 letters, digits, '.', '_' or '-', of which the first is a letter or digit"

WORDS: dict[str, Callable[[_Error], str]] = {
    "missing": lambda error: f"missing; the keys here are: {_keys(error.model)}",
    "extra_forbidden": lambda error: _unknown_key(str(error.path[-1]), error.model),
    "union_tag_not_found": lambda error: f"missing; choose one of: {', '.join(_tags(error))}",
    "union_tag_invalid": lambda error: _not_a_choice(error.value["type"], _tags(error)),
    "literal_error": lambda error: _not_a_choice(error.value, _expected(error)),
    "int_type": lambda error: _wrong_type(error.value, "a whole number"),
    "float_type": lambda error: _wrong_type(error.value, "a number"),
    "finite_number": lambda error: _wrong_type(error.value, "a finite number"),
    "bool_type": lambda error: _wrong_type(error.value, "true or false"),
    "string_type": lambda error: _wrong_type(error.value, "text"),
    "tuple_type": lambda error: _wrong_type(error.value, "a list"),
    "model_type": lambda error: _wrong_type(error.value, "a mapping (key: value)"),
    "model_attributes_type": lambda error: _wrong_type(error.value, "a mapping (key: value)"),
    "greater_than": lambda error: _out_of_range(error, "above", "gt"),
    "greater_than_equal": lambda error: _out_of_range(error, "at least", "ge"),
    "less_than": lambda error: _out_of_range(error, "below", "lt"),
    "less_than_equal": lambda error: _out_of_range(error, "at most", "le"),
    "string_pattern_mismatch": lambda error: f"{shown(error.value)} cannot be a name: {NAME_RULE}",
    "string_too_short": lambda error: "must not be empty",
    "too_short": lambda error: "must not be empty",
    "value_error": lambda error: str(error.context["error"]),
}


def plain_faults(error: ValidationError, root: type[BaseModel]) -> list[Fault]:
    """Returns one fault for each cause, in pydantic's order and without lines.

    root: the model that was validated.
    """
    details = [detail for detail in error.errors() if not _follows_from_another(detail)]
    faults = [(_fault(detail, root), detail["type"]) for detail in details]
    paths = [fault.path for fault, _ in faults]
    return [fault for fault, kind in faults if not _is_of_another_form(fault.path, kind, paths)]


def _is_of_another_form(path: Place, kind: str, paths: Sequence[Place]) -> bool:
    """Returns whether a fault is about a form (a number or a mapping) that the value does not have.

    Pydantic tries a value that may be a number or a mapping as both, and reports a fault of each.
    """
    if kind == "model_type":
        return paths.count(path) > 1
    return kind == "int_type" and any(len(other) > len(path) and other[: len(path)] == path for other in paths)


def shown(value: Any) -> str:
    """Returns a value as a recipe would write it, in at most 60 characters; a list or mapping is only called that."""
    if isinstance(value, (dict, list)):
        return kind_of(value)
    if value is None:
        return "empty"
    text = json.dumps(value, ensure_ascii=isinstance(value, str) and not value.isprintable())
    text = NOT_FINITE.get(text, text)
    return text if len(text) <= 60 else text[:57] + "..."


def _follows_from_another(detail: ErrorDetails) -> bool:
    """Returns whether an error only follows from another: pydantic calls a list too short if its items are faulty."""
    return detail["type"] == "too_short" and len(detail["input"]) > 0


def _fault(detail: ErrorDetails, root: type[BaseModel]) -> Fault:
    path, model = _locate(detail["loc"], root)
    error = _Error(path, model, detail["input"], detail.get("ctx", {}))
    words = WORDS.get(detail["type"])
    message = detail["msg"] if words is None else words(error)
    return Fault((*path, "type") if detail["type"].startswith("union_tag") else path, message)


def _locate(location: tuple[int | str, ...], root: type[BaseModel]) -> tuple[Place, type[BaseModel]]:
    """Returns the path of an error without pydantic's union tags, and the model that the last key belongs to."""
    path: list[int | str] = []
    candidates, owner = [root], root
    is_mapping = is_in_mapping = False
    for part in location:
        if is_mapping:  # a key that the recipe chose, such as the name of a group
            path.append(part)
            is_mapping, is_in_mapping = False, True
            continue
        if is_in_mapping:  # which form of value
            is_in_mapping = False
            candidates = [model for model in candidates if model.__name__ == part]
            owner = candidates[0] if candidates else owner
            continue
        if _is_tag(part, candidates, owner):
            candidates = [model for model in candidates if _tag(model) == part]
            continue
        path.append(part)
        if isinstance(part, str):
            owner = candidates[0]
            field = owner.model_fields.get(part)
            candidates = _models_in(field.annotation) if field else []
            is_mapping = field is not None and _is_mapping(field.annotation)
    return tuple(path), owner


def _is_mapping(annotation: Any) -> bool:
    return typing.get_origin(annotation) is dict or any(_is_mapping(part) for part in typing.get_args(annotation))


def _is_tag(part: int | str, candidates: list[type[BaseModel]], owner: type[BaseModel]) -> bool:
    """Returns whether a part of a location only says which member of a union is meant."""
    if not isinstance(part, str) or not candidates:
        return False
    return len(candidates) > 1 or (candidates[0] is not owner and part in (BY_NAME, _tag_or_none(candidates[0])))


def _tag_or_none(model: type[BaseModel]) -> str | None:
    return _tag(model) if "type" in model.model_fields else None


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in typing.get_args(annotation) for model in _models_in(part)]


def _tag(model: type[BaseModel]) -> str:
    return str(model.model_fields["type"].default)


def _keys(model: type[BaseModel]) -> str:
    return ", ".join(model.model_fields)


def _unknown_key(key: str, model: type[BaseModel]) -> str:
    return f"unknown key; {did_you_mean(key, list(model.model_fields))}the keys here are: {_keys(model)}"


def _tags(error: _Error) -> list[str]:
    """Returns the types of stages; `error.path` is the path of a stage."""
    return [_tag(option) for option in _models_in(error.model.model_fields[str(error.path[0])].annotation)]


def _expected(error: _Error) -> list[str]:
    expected = str(error.context["expected"])  # "'cpu' or 'cuda'", or "1"
    return re.findall(r"'([^']*)'", expected) or [expected]


def _out_of_range(error: _Error, words: str, key: str) -> str:
    return f"{shown(error.value)} is out of range: must be {words} {error.context[key]}"


def _not_a_choice(value: Any, choices: Sequence[str]) -> str:
    if isinstance(value, str) and value in choices:  # only a number can be right as text and wrong as a value
        return _quoted(value)
    hint = did_you_mean(value, choices) if isinstance(value, str) else ""
    return f"{shown(value)} is not a choice; {hint}choose one of: {', '.join(choices)}"


def _wrong_type(value: Any, wanted: str) -> str:
    if isinstance(value, str) and "number" in wanted and len(value) <= 60 and NUMBER.fullmatch(value):
        return _quoted(value)
    if isinstance(value, str) and wanted == "true or false" and value in ("true", "false"):
        return _quoted(value)
    is_text = f"the text {shown(value)}" if isinstance(value, str) else shown(value)
    return f"must be {wanted}, not {is_text}"


def _quoted(value: str) -> str:
    return f"{shown(value)} is a string in quotes; write {value} without quotes"
