"""Compress trained PyTorch models in depth and in width. The public names, imported when first used (PEP 562)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolkit.checkpoint import load_model
    from toolkit.planner import compose
    from toolkit.planning.budget import Budget, Limit
    from toolkit.planning.recipes import plan_recipe
    from toolkit.planning.session import open_session
    from toolkit.recipe import Measure, Recipe
    from toolkit.recipe_yaml import load_recipe
    from toolkit.record import RunRecord, load_record
    from toolkit.runner import run
    from toolkit.simple_task import ClassificationTask
    from toolkit.stage_configs import Align, BlockDrop, ChannelPrune, Keep, Recover
    from toolkit.tasks import TASKS, make_task
    from toolkit.zoo.config import ZooModel

__all__ = [
    "TASKS",
    "Align",
    "BlockDrop",
    "Budget",
    "ChannelPrune",
    "ClassificationTask",
    "Keep",
    "Limit",
    "Measure",
    "Recipe",
    "Recover",
    "RunRecord",
    "ZooModel",
    "compose",
    "load_model",
    "load_recipe",
    "load_record",
    "make_task",
    "open_session",
    "plan_recipe",
    "run",
]

_MODULE_OF = {
    "TASKS": "toolkit.tasks",
    "Align": "toolkit.stage_configs",
    "BlockDrop": "toolkit.stage_configs",
    "Budget": "toolkit.planning.budget",
    "ChannelPrune": "toolkit.stage_configs",
    "ClassificationTask": "toolkit.simple_task",
    "Keep": "toolkit.stage_configs",
    "Limit": "toolkit.planning.budget",
    "Measure": "toolkit.recipe",
    "Recipe": "toolkit.recipe",
    "Recover": "toolkit.stage_configs",
    "RunRecord": "toolkit.record",
    "ZooModel": "toolkit.zoo.config",
    "compose": "toolkit.planner",
    "load_model": "toolkit.checkpoint",
    "load_recipe": "toolkit.recipe_yaml",
    "load_record": "toolkit.record",
    "make_task": "toolkit.tasks",
    "open_session": "toolkit.planning.session",
    "plan_recipe": "toolkit.planning.recipes",
    "run": "toolkit.runner",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'toolkit' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
