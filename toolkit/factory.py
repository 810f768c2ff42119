"""Build the unmodified architecture that a manifest names. Only registered names; a manifest never imports code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from toolkit.tasks import TASKS, make_task


def build_model(factory: Mapping[str, Any]) -> nn.Module:
    """The architecture with untrained weights; `factory` is `{"task": name}`.

    Raises:
        ValueError: the factory names nothing that can be built.
    """
    name = factory.get("task")
    if set(factory) != {"task"} or not isinstance(name, str) or name not in TASKS:
        raise ValueError(
            f"the factory {dict(factory)} is not known (there is {{'task': one of {', '.join(TASKS)}}}); "
            "pass the unmodified model yourself: load_model(directory, model)"
        )
    model: nn.Module = make_task(name).build_model()
    return model
