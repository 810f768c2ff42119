"""Holds the two bases of pydantic models (what people write, and what is recorded), and types of numbers."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer


class Settings(BaseModel):
    """Is the base of what people write and of files that may come from anywhere: immutable, strict, no unknown keys.

    later: names of the fields that were added after version 1 was published. A field of `later` at its default is
        neither written nor hashed, so that files from before the field existed keep their hash. The default of such a
        field must never change.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    later: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        wrong = {name for name in cls.later if name not in cls.model_fields or cls.model_fields[name].is_required()}
        assert not wrong, f"{cls.__name__}.later: {', '.join(sorted(wrong))} is no field with a default"

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        unsaid = {name for name in self.later if getattr(self, name) == _default(self, name)}
        return {name: value for name, value in handler(self).items() if name not in unsaid}


def _default(config: Settings, name: str) -> object:
    return type(config).model_fields[name].get_default(call_default_factory=True)


class Data(BaseModel):
    """Is the base of what this program records: immutable, no unknown keys; a whole number may stand for a float."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Version = Annotated[int, Field(strict=True, ge=1, le=1)]  # Literal[1] would let 1.0 and true pass

Ratio = Annotated[float, Field(gt=0.0, le=1.0)]

Positive = Annotated[int, Field(ge=1)]

Weight = Annotated[float, Field(ge=0.0)]


def refuse_twice(name: str, values: tuple[object, ...]) -> None:
    """Raises ValueError where a value is given more than once; `name` is the setting that holds the values."""
    repeated = [value for index, value in enumerate(values) if value in values[:index]]
    if repeated:
        raise ValueError(f"{name} has {repeated[0]} twice; give each value once")


def refuse_changed(config: Settings, names: list[str], reason: str) -> None:
    """Raises ValueError where one of the settings `names` differs from its default; `reason` says why it must not."""
    changed = [name for name in names if getattr(config, name) != type(config).model_fields[name].default]
    if changed:
        raise ValueError(f"{', '.join(changed)}: {reason}")


Detail = dict[str, Any]  # plain JSON
