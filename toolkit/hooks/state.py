"""State dicts with the versions that modules keep beside their tensors."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

Versions = Mapping[str, int]


def versions_of(state: Mapping[str, Any]) -> dict[str, int]:
    """Returns the versions that a state dict knows, by module name; none where it has lost them."""
    known: Mapping[str, Mapping[str, Any]] = getattr(state, "_metadata", {})
    found = {name: table.get("version") for name, table in known.items()}
    return {name: version for name, version in found.items() if type(version) is int}


def with_versions(state: Mapping[str, Tensor], versions: Versions) -> OrderedDict[str, Tensor]:
    """Returns the state with these versions beside it, as `load_state_dict` reads them."""
    made = OrderedDict(state)
    made._metadata = OrderedDict((name, {"version": version}) for name, version in versions.items())  # type: ignore[attr-defined]
    return made


def load_state(model: nn.Module, state: Mapping[str, Tensor], versions: Versions | None = None) -> None:
    """Loads all weights of a model, with the versions given, or those that the state has, or the model's own.

    Raises:
        RuntimeError: names or shapes are not the model's.
        ValueError: a module refuses the version of its weights.
    """
    known = versions_of(state) if versions is None else dict(versions)
    try:
        model.load_state_dict(with_versions(state, versions_of(model.state_dict()) | known))
    except RuntimeError:
        if known:
            raise
        model.load_state_dict(state)  # of before there were versions, which modules complete on their own
