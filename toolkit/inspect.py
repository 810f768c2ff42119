"""python -m toolkit.inspect MODEL: what can be dropped and what can be cut, with its cost, as a table and as JSON.

MODEL is a task (tad-watch), a model of a zoo (timm/vit_tiny_patch16_224), or the folder of a run or saved model.
Exit codes: 0 done; 1 something unexpected; 2 something the user can fix.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from toolkit.base.command import exit_code
from toolkit.base.console import Console
from toolkit.base.errors import UserError
from toolkit.base.files import write_atomically
from toolkit.checkpoint.load import load_model
from toolkit.checkpoint.manifest import MANIFEST_FILE
from toolkit.planning.profile.overview import Overview, overview
from toolkit.record.run import RUN_FILE, load_record
from toolkit.tasks.cards import TASKS, any_model_task, make_task, own_model_tasks
from toolkit.zoo.settings import ZooModel


class InspectedModel(NamedTuple):
    """A model with what it needs to be looked at: inputs for one example, and patterns of what may not be changed."""

    model: nn.Module
    inputs: tuple[Tensor, ...]
    protected: tuple[str, ...]


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    return exit_code(lambda: _inspect(args), "interrupted")


def _inspect(args: argparse.Namespace) -> None:
    inspected = _find(args.model, _arguments(args.arguments), args.input_size)
    found = overview(inspected.model, inspected.inputs, inspected.protected)
    if args.json is not None:
        write_atomically(args.json, found.model_dump_json(indent=1) + "\n")
    _show(args.model, found, Console())


def _find(name: str, arguments: dict[str, Any], input_size: int | None) -> InspectedModel:
    if name in own_model_tasks():
        task = make_task(name)
        return InspectedModel(model=task.load_baseline(), inputs=task.example_inputs(1), protected=task.protected)
    if Path(name).is_dir():
        return _saved(Path(name))
    if "/" in name:
        task = make_task(any_model_task().name, ZooModel(name=name, arguments=arguments, input_size=input_size))
        return InspectedModel(model=task.load_baseline(), inputs=task.example_inputs(1), protected=task.protected)
    choices = ", ".join(own_model_tasks())
    raise UserError(
        f"{name!r} is no task, no zoo model and no folder; choose one of: {choices}, timm/NAME, torchvision/NAME, "
        "transformers/TYPE, or the folder of a run"
    )


def _saved(folder: Path) -> InspectedModel:
    """The compressed model of a run, with the inputs of its task."""
    if not (folder / RUN_FILE).exists():
        where = "a saved model holds no inputs to look at it with" if (folder / MANIFEST_FILE).exists() else "no run"
        raise UserError(f"{folder}: has no {RUN_FILE} ({where}); give the folder of a run, a task or a zoo model")
    recipe = load_record(folder).recipe
    if recipe.task_name not in TASKS:
        raise UserError(
            f"{folder}: was made for task {recipe.task_name!r}, which is not built in; use toolkit.overview"
        )
    task = make_task(recipe.task, recipe.model, folder)
    return InspectedModel(model=load_model(folder), inputs=task.example_inputs(1), protected=task.protected)


def _arguments(text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except json.JSONDecodeError as error:
        raise UserError(f"--arguments {text!r} is not JSON ({error}); such as '{{\"img_size\": 96}}'") from error
    if not isinstance(found, dict):
        raise UserError(f"--arguments {text!r} is not a JSON object; such as '{{\"img_size\": 96}}'")
    return found


def _show(name: str, found: Overview, console: Console) -> None:
    console.line(f"{name}: {found.macs:,} MACs, {found.num_params:,} parameters")
    rows = [
        [
            block.name,
            f"{block.macs:,}",
            f"{block.macs_share:.3f}",
            f"{block.num_params:,}",
            f"{block.latency_share:.3f}",
        ]
        for block in found.blocks
    ]
    console.table(
        f"{len(rows)} blocks that can be dropped", ["block", "MACs", "of all", "params", "latency, of all"], rows
    )
    for block_name, reason in found.not_dropped.items():
        console.line(f"not dropped: {block_name}: {reason}")
    rows = [
        [
            group.name,
            group.kind,
            str(group.units) if group.head_dim is None else f"{group.units} x {group.head_dim}",
            str(len(group.layers)),
            f"{group.num_params:,}",
            f"{group.latency_share:.3f}",
        ]
        for group in found.groups
    ]
    columns = ["channels", "kind", "units", "layers", "their params", "their latency, of all"]
    console.table(f"{len(rows)} groups of channels that can be cut", columns, rows)
    for layer, reason in found.not_cut.items():
        console.line(f"not cut: {layer}: {reason}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m toolkit.inspect", description="Show what can be dropped and cut in a model, and what it costs."
    )
    parser.add_argument(
        "model", metavar="MODEL", help="a task, a zoo model such as torchvision/resnet18, a run's folder"
    )
    parser.add_argument("--arguments", metavar="JSON", help="of a zoo model, such as '{\"img_size\": 96}'")
    parser.add_argument("--input-size", type=int, metavar="N", help="of a zoo model: side, tokens or samples")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write it there too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
