"""Holds the arguments of the command line that name a model. Nothing here imports torch."""

from __future__ import annotations

import argparse
import json
from typing import Any

from toolkit.base.errors import UserError
from toolkit.tasks.task_file import add_task_file_argument


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that name a model, with its task."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        nargs="?",
        help="name of a built-in task, such as tad-watch, a zoo model, such as torchvision/resnet18, a run's folder, "
        "or a recipe (FILE.yaml), whose task is taken",
    )
    add_task_file_argument(parser)
    parser.add_argument(
        "--arguments",
        metavar="JSON",
        help="arguments of a zoo model's factory, such as '{\"img_size\": 96}' (default: none)",
    )
    parser.add_argument(
        "--input-size",
        type=int,
        metavar="N",
        help="side of a zoo model's images or clips in pixels, or number of tokens or samples (default: the model's)",
    )


def zoo_arguments(text: str | None) -> dict[str, Any]:
    """Returns the arguments of a zoo model that `--arguments` gives as JSON.

    Raises:
        UserError: the text is no JSON object.
    """
    try:
        arguments = json.loads(text or "{}")
    except json.JSONDecodeError as error:
        raise UserError(
            f"--arguments {text!r} is not JSON ({error}); give an object such as '{{\"img_size\": 96}}'"
        ) from error
    if not isinstance(arguments, dict):
        raise UserError(f"--arguments {text!r} is not a JSON object; give one such as '{{\"img_size\": 96}}'")
    return arguments
