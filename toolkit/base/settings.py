"""States the two bases of pydantic models, what is read from recipes and what is recorded, and types of numbers."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """Base of what people write, and of files that may come from anywhere: immutable, strict, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Data(BaseModel):
    """Base of what this program records: immutable, unknown keys refused; a whole number may stand for a float."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Version = Annotated[int, Field(strict=True, ge=1, le=1)]  # Literal[1] would let 1.0 and true pass

Ratio = Annotated[float, Field(gt=0.0, le=1.0)]

Positive = Annotated[int, Field(ge=1)]

Weight = Annotated[float, Field(ge=0.0)]


def refuse_twice(name: str, values: tuple[object, ...]) -> None:
    """Raises: ValueError: a value is given more than once."""
    twice = [value for index, value in enumerate(values) if value in values[:index]]
    if twice:
        raise ValueError(f"{name} has {twice[0]} twice")


def refuse_changed(config: Settings, names: list[str], reason: str) -> None:
    """Raises: ValueError: a setting that would have no use differs from its default."""
    changed = [name for name in names if getattr(config, name) != type(config).model_fields[name].default]
    if changed:
        raise ValueError(f"{', '.join(changed)}: {reason}")


Detail = dict[str, Any]  # plain JSON
