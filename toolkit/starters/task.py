"""Holds the starter `task`: a Python file that makes a task of a small made-up net, and a recipe for it."""

from __future__ import annotations

from toolkit.starters.starter import Starter

TASK = Starter(
    name="task",
    summary="a Python file that makes a task of your model and your data, and a recipe for it",
    files=("my_task.py", "recipe.yaml"),
    next=(
        "dwt inspect --check --task FOLDER/my_task.py",
        "dwt apply FOLDER/recipe.yaml --task FOLDER/my_task.py --check",
        "dwt apply FOLDER/recipe.yaml --task FOLDER/my_task.py",
    ),
)
