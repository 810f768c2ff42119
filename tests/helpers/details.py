"""Stages whose details are looked at as the plain JSON that records hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn


def as_json(apply: Callable[..., tuple[nn.Module, Any]]) -> Callable[..., tuple[nn.Module, dict[str, Any]]]:
    """Returns the stage with its detail as the record of a run would hold it."""

    def applied(*args: Any, **kwargs: Any) -> tuple[nn.Module, dict[str, Any]]:
        model, detail = apply(*args, **kwargs)
        return model, detail.model_dump(mode="json", exclude_unset=True)

    return applied
