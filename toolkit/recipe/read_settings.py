"""Reads settings from strict YAML, and raises all faults at once, with file, line and the legal choices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from toolkit.base.errors import Fault, RecipeError
from toolkit.base.settings import Settings
from toolkit.recipe.changes import ChangedValue, argument_at, changed
from toolkit.recipe.faults import plain_faults
from toolkit.recipe.yaml_nodes import Lines, read_yaml

Kind = TypeVar("Kind", bound=Settings)


def read_settings(
    path: Path,
    kind: type[Kind],
    check: Callable[[Kind], Iterable[Fault]] = lambda _: (),
    *,
    changes: Sequence[ChangedValue] = (),
    check_form: Callable[[dict[str, Any]], Iterable[Fault]] = lambda _: (),
    check_sound_parts: Callable[[dict[str, Any]], Iterable[Fault]] = lambda _: (),
) -> tuple[Kind, Lines]:
    """Returns the settings in the file at `path`, and the line of every value.

    check: finds the faults of meaning in well-formed settings.
    changes: the values that take the place of the file's; they are checked like the file.
    check_form: finds faults of form that pydantic lets pass, in the plain content of the file.
    check_sound_parts: finds faults of meaning in the well-formed parts of content that has faults of form.

    Raises:
        RecipeError: the file has faults; the message holds all of them in the order of the file. A file that is not
            YAML, or not a mapping, has one fault alone.
        UserError: a change cannot be made in this file.
    """
    document = read_yaml(path)
    data = changed(document.data, changes)
    faults = list(check_form(data))
    settings: Kind | None = None
    try:
        settings = kind.model_validate(data)
        faults += check(settings)
    except ValidationError as error:
        faults += [*plain_faults(error, kind), *check_sound_parts(data)]
    # faults of values that the reader refused follow from the refusal, and are left out
    independent = [fault for fault in faults if not document.refuses(fault.path)]
    placed = [
        replace(fault, line=document.lines.at(fault.path), argument=argument_at(changes, fault.path))
        for fault in independent
    ]
    if settings is None or document.faults or placed:
        raise RecipeError(sorted([*document.faults, *placed], key=lambda fault: fault.line or 0), path)
    return settings, document.lines
