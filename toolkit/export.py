"""python -m toolkit.export DIR --format onnx: writes a compressed model for other programs, and compares the two.

Exit codes: 0 done; 1 an unexpected error (with a traceback); 2 an error that the user can fix; 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from toolkit.base.command import exit_code, not_negative, positive, tolerance
from toolkit.base.console import Console
from toolkit.checkpoint.factory import check_made_for, example_inputs_of
from toolkit.checkpoint.load import load_model
from toolkit.checkpoint.manifest import MANIFEST_FILE, read_manifest
from toolkit.exporting.export import export_model
from toolkit.exporting.report import FORMATS, SUFFIX, TOLERANCE, ExportReport, ExportSettings
from toolkit.running.folder import MODEL_FOLDER
from toolkit.tasks.task_file import add_task_file_argument, given_task_file

REPEATS = 20

PARITY_NOTE = (
    "Compared with the model in PyTorch, on the CPU and the same inputs, after reading the file back. "
    "Scale: the largest absolute number in the model's output."
)

LATENCY_NOTE = (
    "Latency: median per call, timed in turns with the model in PyTorch; a ratio below 1 is faster. "
    "On a busy machine it says little: time it on an idle one."
)

PICKLE_NOTE = (
    "torch.export.load reads it. This file holds no pickle, but that function unpickles what another file brings: "
    "load only files that you trust."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Writes a compressed model for other programs as `argv` says (None: the process's), and returns the exit code."""
    args = (parser := _parser()).parse_args(argv)
    if args.opset is not None and args.format != "onnx":
        parser.error("argument --opset: is for --format onnx only; leave it out")
    settings = ExportSettings(
        format=args.format,
        batch_size=args.batch_size,
        static_batch=args.static_batch,
        opset=args.opset,
        tolerance=args.tolerance,
        threads=args.threads,
        latency_repeats=args.repeats,
        constant_options=args.constant_options,
    )
    return exit_code(lambda: _export(args, settings), "interrupted; nothing was kept")


def _export(args: argparse.Namespace, settings: ExportSettings) -> None:
    folder = directory = Path(args.directory)
    if not (folder / MANIFEST_FILE).exists() and (folder / MODEL_FOLDER / MANIFEST_FILE).exists():
        folder = folder / MODEL_FOLDER
    path = args.out or directory / f"exported{SUFFIX[settings.format]}"
    manifest = read_manifest(folder / MANIFEST_FILE)
    file = given_task_file(args)
    if file is None:
        inputs_of = example_inputs_of(manifest, folder / MANIFEST_FILE)
        model = load_model(folder)
    else:
        task = file.make()
        check_made_for(manifest, task.name, folder / MANIFEST_FILE)
        inputs_of, model = task.example_inputs, load_model(folder, task.build_model())
    report = export_model(model, inputs_of, path, settings, weights_sha256=manifest.weights.sha256)
    show_report(report, path, Console())


def show_report(report: ExportReport, path: Path, console: Console) -> None:
    """Shows which file was made, how far its outputs are from the model's, and how fast it is."""
    if report.fixed_because is not None:
        console.line(f"The batch size is fixed at {report.batch_size}. Any batch size was not possible:")
        console.line(f"  {report.fixed_because}")
    parity = [
        [entry.output, str(entry.batch_size), f"{entry.difference:.2e}", f"{entry.scale:.3g}", f"{entry.relative:.2e}"]
        for entry in report.parity
    ]
    columns = ["output", "batch", "largest difference", "scale", "difference / scale"]
    title = f"parity: all below the tolerance of {report.settings.tolerance:g} of the output's scale"
    console.table(title, columns, parity)
    console.line(PARITY_NOTE)
    if report.latency:
        columns = ["batch", "PyTorch", "exported", "ratio", "threads", "samples"]
        rows = [
            [
                str(entry.batch_size),
                f"{entry.eager_median_s * 1000:.3f} ms",
                f"{entry.median_s * 1000:.3f} ms",
                f"{entry.ratio:.3f}",
                str(entry.threads),
                str(len(entry.samples_s)),
            ]
            for entry in report.latency
        ]
        console.line()
        console.table("latency on the CPU", columns, rows)
        console.line(LATENCY_NOTE)
    console.line()
    batch = "any batch size" if report.batch_size is None else f"batch size {report.batch_size}"
    opset = "" if report.opset is None else f", opset {report.opset}"
    console.line(f"exported model: {path}    ({report.settings.format}{opset}, {batch})")
    console.line(f"its record:     {path}.json")
    if report.settings.format == "torch_export":
        console.line(PICKLE_NOTE)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m toolkit.export",
        description="Write a compressed model as ONNX or as a torch.export program. The file appears only after it was "
        "read back and its outputs agreed with the model's.",
    )
    folder = "folder of a run, such as runs/smoke, or of a saved model"
    parser.add_argument("directory", type=Path, metavar="DIR", help=folder)
    add_task_file_argument(parser)
    parser.add_argument("--format", choices=FORMATS, required=True, help="format of the file; must be given")
    parser.add_argument("--out", type=Path, metavar="FILE", help="file to write (default: DIR/exported.onnx or .pt2)")
    parser.add_argument(
        "--batch-size",
        type=positive,
        metavar="N",
        help="compare the file with the model at 1 and at N examples (default: 2); a file of fixed batch size takes N "
        "examples (default: 1)",
    )
    parser.add_argument(
        "--static-batch",
        action="store_true",
        help="write a file of fixed batch size (default: any batch size, or a fixed one where that is not possible)",
    )
    parser.add_argument("--opset", type=positive, metavar="K", help="ONNX opset to write (default: torch's default)")
    parser.add_argument(
        "--tolerance",
        type=tolerance,
        metavar="T",
        default=TOLERANCE,
        help="largest difference allowed, as a share of an output's largest absolute number (default: %(default)s)",
    )
    parser.add_argument("--threads", type=positive, metavar="K", help="CPU threads to compute with (default: torch's)")
    parser.add_argument(
        "--repeats",
        type=not_negative,
        metavar="R",
        default=REPEATS,
        help="latency samples per batch size; 0 measures no latency (default: %(default)s)",
    )
    gates = "let each layer with a gate always take its most frequent option (default: refuse models with gates)"
    parser.add_argument("--constant-options", action="store_true", help=gates)
    return parser


if __name__ == "__main__":
    sys.exit(main())
