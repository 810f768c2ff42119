"""What all settings share: fields that came later leave no trace where nobody has set them."""

from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar

import pytest
from pydantic import Field

from toolkit.base.files import content_sha256
from toolkit.base.settings import Settings


class First(Settings):
    """As published."""

    size: int = 3


class Grown(Settings):
    """The same, two fields later."""

    later: ClassVar[frozenset[str]] = frozenset({"colour", "parts"})

    size: int = 3
    colour: str | None = None
    parts: Annotated[list[str], Field(default_factory=list)]


class Whole(Settings):
    one: First | Grown
    many: dict[str, Grown]


def written(config: Settings) -> dict[str, Any]:
    """In both forms, which must agree."""
    found = config.model_dump(mode="json")
    assert json.loads(config.model_dump_json()) == found
    return found


def test_a_later_field_at_its_default_is_neither_written_nor_hashed() -> None:
    for size in (3, 4):
        assert written(Grown(size=size, parts=[])) == written(First(size=size)) == {"size": size}
    assert content_sha256(written(Grown(parts=[]))) == content_sha256(written(First()))


def test_a_later_field_that_was_set_is_written() -> None:
    assert written(Grown(colour="red", parts=[])) == {"size": 3, "colour": "red"}
    assert written(Grown(parts=["a"])) == {"size": 3, "parts": ["a"]}
    for grown in (Grown(colour="red", parts=[]), Grown(parts=["a"]), Grown(parts=[])):
        assert Grown.model_validate_json(grown.model_dump_json()) == grown


def test_it_holds_inside_other_settings() -> None:
    whole = Whole(one=Grown(colour="red", parts=[]), many={"a": Grown(parts=[]), "b": Grown(parts=["c"])})
    assert written(whole) == {
        "one": {"size": 3, "colour": "red"},
        "many": {"a": {"size": 3}, "b": {"size": 3, "parts": ["c"]}},
    }


def test_a_choice_of_what_to_write_is_kept() -> None:
    assert Grown(colour="red", parts=["a"]).model_dump(exclude={"size"}) == {"colour": "red", "parts": ["a"]}
    assert Grown(parts=[]).model_dump(exclude_defaults=True) == {}


def test_later_names_fields_with_a_default() -> None:
    for name in ("sise", "size"):
        with pytest.raises(AssertionError, match=f"Wrong.later: {name} is no field with a default"):
            type("Wrong", (Settings,), {"later": frozenset({name}), "__annotations__": {"size": int}})
