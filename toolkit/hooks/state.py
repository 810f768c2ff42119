"""Loads state dicts together with the version numbers that modules keep beside their tensors."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

Versions = Mapping[str, int]


def versions_of(state: Mapping[str, Any]) -> dict[str, int]:
    """Returns the version numbers in a state dict by module name, without those that were lost or never written."""
    tables: Mapping[str, Mapping[str, Any]] = getattr(state, "_metadata", {})
    versions = {name: table.get("version") for name, table in tables.items()}
    return {name: version for name, version in versions.items() if type(version) is int}


def with_versions(state: Mapping[str, Tensor], versions: Versions) -> OrderedDict[str, Tensor]:
    """Returns the state with these version numbers attached in the way that `load_state_dict` reads them."""
    versioned = OrderedDict(state)
    versioned._metadata = OrderedDict((name, {"version": version}) for name, version in versions.items())  # type: ignore[attr-defined]
    return versioned


def load_state(model: nn.Module, state: Mapping[str, Tensor], versions: Versions | None = None) -> None:
    """Loads all weights of a model; versions are those given, else those of the state, else the model's own.

    Raises:
        RuntimeError: names or shapes differ from those of the model.
        ValueError: a module does not accept the version of its weights.
    """
    given = versions_of(state) if versions is None else dict(versions)
    try:
        model.load_state_dict(with_versions(state, versions_of(model.state_dict()) | given))
    except RuntimeError:
        if given:
            raise
        model.load_state_dict(state)  # a state without versions: modules then add what older states lack
