"""python -m toolkit.export DIR --format onnx: writes a compressed model for other programs, and compares the two.

Exit codes: 0 done; 1 an unexpected error (with a traceback); 2 an error that the user can fix; 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import toolkit
from toolkit.base.command import exit_code, not_negative, positive, tolerance
from toolkit.base.console import Console
from toolkit.exporting.axes import named_axis
from toolkit.exporting.formats.registry import FILE_FORMATS, path_of
from toolkit.exporting.report import ExportSettings
from toolkit.exporting.words import show_report
from toolkit.tasks.task_file import add_task_file_argument, given_task_file

REPEATS = 20


def main(argv: Sequence[str] | None = None) -> int:
    """Writes a compressed model for other programs as `argv` says (None: the process's), and returns the exit code."""
    args = _parser().parse_args(argv)
    return exit_code(lambda: _export(args), "interrupted; nothing was kept")


def _export(args: argparse.Namespace) -> None:
    settings = _settings(args)
    file = given_task_file(args)
    path = args.out or path_of(args.directory, settings)
    task = None if file is None else file.make()
    show_report(toolkit.export_run(args.directory, settings, task=task, path=path), path, Console())


def _settings(args: argparse.Namespace) -> ExportSettings:
    times = "latency_repeats" in FILE_FORMATS[args.format].takes
    return ExportSettings(
        format=args.format,
        batch_size=args.batch_size,
        static_batch=args.static_batch,
        dynamic=tuple(axis for text in args.dynamic if (axis := named_axis(text)) is not None),
        opset=args.opset,
        tolerance=args.tolerance,
        threads=args.threads,
        latency_repeats=(REPEATS if times else 0) if args.repeats is None else args.repeats,
        against_dense=args.against_dense,
        constant_options=args.constant_options,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m toolkit.export",
        description="Write a compressed model for use without this toolkit. What is written appears only after it was "
        "read back and its outputs agreed with the model's.",
    )
    folder = "folder of a run, such as runs/smoke, or of a saved model"
    parser.add_argument("directory", type=Path, metavar="DIR", help=folder)
    add_task_file_argument(parser)
    formats = "; ".join(f"{each.name}: {each.summary}" for each in FILE_FORMATS.values())
    parser.add_argument("--format", choices=list(FILE_FORMATS), required=True, help=f"must be given. {formats}")
    endings = ", ".join(f"exported{each.suffix}" for each in FILE_FORMATS.values())
    parser.add_argument("--out", type=Path, metavar="PATH", help=f"what to write (default: in DIR, one of {endings})")
    parser.add_argument(
        "--batch-size",
        type=positive,
        metavar="N",
        help="compare the file with the model at 1 and at N examples (default: 2); a file of fixed batch size takes N "
        "examples (default: 1)",
    )
    _add_shape_arguments(parser)
    parser.add_argument("--opset", type=positive, metavar="K", help="ONNX opset to write (default: torch's default)")
    parser.add_argument(
        "--tolerance",
        type=tolerance,
        metavar="T",
        help="largest difference allowed, as a share of an output's largest absolute number "
        f"(default: {', '.join(f'{each.tolerance:g} for {each.name}' for each in FILE_FORMATS.values())})",
    )
    parser.add_argument("--threads", type=positive, metavar="K", help="CPU threads to compute with (default: torch's)")
    parser.add_argument(
        "--repeats",
        type=not_negative,
        metavar="R",
        help=f"latency samples per batch size; 0 measures no latency (default: {REPEATS})",
    )
    against = "write the unmodified model in the same format for a moment, and time the two files in turns"
    parser.add_argument("--against-dense", action="store_true", help=against)
    gates = "let each layer with a gate always take its most frequent option (default: refuse models with gates)"
    parser.add_argument("--constant-options", action="store_true", help=gates)
    return parser


def _add_shape_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--static-batch",
        action="store_true",
        help="write a file of fixed batch size (default: any batch size, or a fixed one where that is not possible)",
    )
    parser.add_argument(
        "--dynamic",
        nargs="+",
        action="extend",
        default=[],
        metavar="INPUT:AXIS=NAME",
        help="leave the size of further axes open, such as input_ids:1=sequence attention_mask:1=sequence; axes of one "
        "name have one size",
    )


if __name__ == "__main__":
    sys.exit(main())
