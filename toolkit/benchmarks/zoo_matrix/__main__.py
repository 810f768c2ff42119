"""python -m toolkit.benchmarks.zoo_matrix MATRIX --out DIR: cuts, reloads and exports every model in every order.

Each model is cut in one process and loaded again in another one. The same command goes on after an interruption;
--again repeats the cells that failed. Exit codes: 0 all cells were tried; 2 something the user can fix.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from toolkit.base.command import exit_code
from toolkit.base.console import Console
from toolkit.base.errors import UserError
from toolkit.benchmarks.zoo_matrix.cell import Cell, load_cell
from toolkit.benchmarks.zoo_matrix.compress import compress_cell
from toolkit.benchmarks.zoo_matrix.settings import ORDERS, Matrix, folder_of, read_matrix
from toolkit.benchmarks.zoo_matrix.table import write_zoo_table
from toolkit.benchmarks.zoo_matrix.verify import verify_cell
from toolkit.zoo.settings import ZooModel

STEPS = ("cut", "verify")


def main(argv: Sequence[str] | None = None) -> int:
    """Cuts, reloads and exports every model of the matrix, and returns the exit code."""
    args = _parser().parse_args(argv)
    return exit_code(lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    matrix = read_matrix(args.matrix)
    if args.step is not None:
        _step(matrix, _model(matrix, args.only), args.out, args.step)
    else:
        _drive(matrix, args)


def _drive(matrix: Matrix, args: argparse.Namespace) -> None:
    console = Console()
    chosen = [model for model in matrix.models if args.only in (None, model.name)]
    if not chosen:
        names = ", ".join(model.name for model in matrix.models)
        raise UserError(f"--only {args.only}: is not a model of {args.matrix}; choose one of: {names}")
    for number, model in enumerate(chosen, 1):
        console.line(f"[{number}/{len(chosen)}] {model.name}")
        if args.again:
            _forget_failures(args.out / folder_of(model))
        for step in STEPS:
            _run_step(args, model, step)
        for cell in _cells(args.out, model):
            console.line(f"  {cell.order}: {cell.fault or f'passes at {cell.macs_ratio:.3f}'} ({cell.seconds:.0f} s)")
        tried = [cell for each in matrix.models for cell in _cells(args.out, each)]
        write_zoo_table(args.out, tried, matrix.macs_ratio)
    console.line(f"table: {args.out / 'table.md'}")


def _run_step(args: argparse.Namespace, model: ZooModel, step: str) -> None:
    """Runs one step in its own process. If the process dies, cells that it has not written are recorded as failed."""
    command = [sys.executable, "-m", "toolkit.benchmarks.zoo_matrix", str(args.matrix), "--out", str(args.out)]
    try:
        done = subprocess.run(
            [*command, "--only", model.name, "--step", step],
            capture_output=True,
            text=True,
            timeout=args.timeout_s,
            check=False,
        )
        fault = f"the process ended with {done.returncode}: {done.stderr.strip()[-300:]}" if done.returncode else ""
    except subprocess.TimeoutExpired:
        fault = f"the process took more than {args.timeout_s} s"
    for order in ORDERS:
        folder = args.out / folder_of(model) / order
        cell = load_cell(folder)
        if cell is None:
            Cell(model=model.name, order=order, reason=f"{step}: {fault}").save(folder)
        elif fault and step == "verify" and cell.reload_error is None and not cell.reason:
            cell.model_copy(update={"reason": f"{step}: {fault}"}).save(folder)


def _step(matrix: Matrix, model: ZooModel, out: Path, step: str) -> None:
    for order in ORDERS:
        folder = out / folder_of(model) / order
        cell = load_cell(folder)
        if step == "cut" and cell is None:
            compress_cell(matrix, model, order, folder).save(folder)
        elif step == "verify" and cell is not None and not cell.reason and cell.reload_error is None:
            verify_cell(cell, model, folder).save(folder)


def _model(matrix: Matrix, name: str) -> ZooModel:
    return next(model for model in matrix.models if model.name == name)


def _cells(out: Path, model: ZooModel) -> list[Cell]:
    cells = [load_cell(out / folder_of(model) / order) for order in ORDERS]
    return [cell for cell in cells if cell is not None]


def _forget_failures(folder: Path) -> None:
    for order in ORDERS:
        cell = load_cell(folder / order)
        if cell is not None and not cell.passes:
            (folder / order / "cell.json").unlink()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m toolkit.benchmarks.zoo_matrix",
        description="Cut models of public zoos in every order and check the result.",
    )
    parser.add_argument("matrix", type=Path, metavar="MATRIX", help="a YAML file such as recipes/matrix/zoo.yaml")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", required=True, help="folder that all cells and the table are written to"
    )
    parser.add_argument("--only", metavar="NAME", help="run this model alone, such as torchvision/resnet18")
    parser.add_argument("--again", action="store_true", help="run cells that failed before again")
    parser.add_argument(
        "--timeout-s",
        type=int,
        default=1200,
        metavar="S",
        help="seconds that cutting or checking one model may take (default: %(default)s)",
    )
    parser.add_argument(
        "--step", choices=STEPS, help="run only this step of the model --only; the command uses it itself"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
