"""python -m toolkit.tasks.cifar10.convert FILE... --out DIR: converts published files for the tasks cifar10-resnetN.

FILE is cifar-10-binary.tar.gz of https://www.cs.toronto.edu/~kriz/cifar.html, or a resnetN-*.th of
https://github.com/akamaster/pytorch_resnet_cifar10. Exit codes: 0 done; 1 an unexpected error; 2 an error that the user
can fix.
"""

from __future__ import annotations

import argparse
import sys
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from toolkit.base.command import exit_code
from toolkit.base.errors import UserError
from toolkit.base.files import file_sha256, replacing
from toolkit.tasks.cifar10.data import (
    HOW_TO_GET_IMAGES,
    IMAGES_FILE,
    IMAGES_SHA256,
    WEIGHTS_SHA256,
    WEIGHTS_SOURCES,
    as_arrays,
    how_to_get_weights,
    weights_file,
)
from toolkit.tasks.local_data import check_arrays

TRAINING_FILES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))

TEST_FILE = "test_batch.bin"

IMAGE_BYTES = 3 * 32 * 32


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command with `argv` (None: the arguments of the process), and returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m toolkit.tasks.cifar10.convert", description=__doc__)
    parser.add_argument(
        "files", type=Path, nargs="+", metavar="FILE", help="published archive of images, or published file of weights"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        required=True,
        help="folder for the converted files: the folder cifar10 below TOOLKIT_DATA",
    )
    args = parser.parse_args(argv)
    return exit_code(lambda: _convert(args.files, args.out))


def _convert(files: Sequence[Path], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for file in files:
        depth = next((depth for depth, (name, _) in WEIGHTS_SOURCES.items() if name == file.name), None)
        if depth is not None:
            convert_weights(file, depth, out / weights_file(depth))
        elif file.name.endswith(".tar.gz"):
            convert_images(file, out / IMAGES_FILE.name)
        else:
            names = ", ".join(name for name, _ in WEIGHTS_SOURCES.values())
            raise UserError(f"{file}: not a published file; give cifar-10-binary.tar.gz or one of: {names}")


def convert_images(archive: Path, out: Path) -> None:
    """Writes the images of the binary archive as an npz file.

    Raises:
        UserError: the archive cannot be read, or its images are not the published ones.
    """
    arrays = read_archive(archive)
    check_arrays(archive, arrays, IMAGES_SHA256, HOW_TO_GET_IMAGES)
    with replacing(out) as part, open(part, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    print(f"{out}: {len(arrays['y_train'])} training and {len(arrays['y_test'])} test images")


def convert_weights(file: Path, depth: int, out: Path) -> None:
    """Writes the tensors of a published weights file as safetensors.

    Raises:
        UserError: the file is not the published one.
    """
    expected = WEIGHTS_SOURCES[depth][1]
    actual = file_sha256(file)
    if actual != expected:
        raise UserError(f"{file}: its SHA-256 is {actual}, expected {expected}; {how_to_get_weights(depth)}")
    weights = torch.load(file, map_location="cpu", weights_only=True)["state_dict"]
    tensors = {name.removeprefix("module."): tensor.contiguous() for name, tensor in weights.items()}
    check_arrays(file, as_arrays(tensors), WEIGHTS_SHA256[depth], how_to_get_weights(depth))
    with replacing(out) as part:
        save_file(tensors, part)
    print(f"{out}: {len(tensors)} tensors")


def read_archive(path: Path) -> dict[str, NDArray[Any]]:
    """Returns `x_train` and `x_test` uint8 [N, 32, 32, 3], `y_train` and `y_test` int64 [N], in the archive's order.

    Raises:
        UserError: the archive cannot be read, or one of its files is missing.
    """
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive.getmembers():
                content: IO[bytes] | None = archive.extractfile(member)
                if content is not None:
                    files[Path(member.name).name] = content.read()
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        reason = (str(error).splitlines() or ["no reason given"])[0]
        raise UserError(f"{path}: cannot be read as an archive ({reason}); {HOW_TO_GET_IMAGES}") from error
    missing = [name for name in (*TRAINING_FILES, TEST_FILE) if name not in files]
    if missing:
        raise UserError(f"{path}: has no {', '.join(missing)}; {HOW_TO_GET_IMAGES}")
    train, train_labels = _images(b"".join(files[name] for name in TRAINING_FILES))
    test, test_labels = _images(files[TEST_FILE])
    return {"x_train": train, "y_train": train_labels, "x_test": test, "y_test": test_labels}


def _images(records: bytes) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Returns images and labels; a record is a byte with the label, then the red, the green and the blue plane."""
    whole = len(records) - len(records) % (1 + IMAGE_BYTES)
    table = np.frombuffer(records[:whole], dtype=np.uint8).reshape(-1, 1 + IMAGE_BYTES)
    planes = table[:, 1:].reshape(-1, 3, 32, 32)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), table[:, 0].astype(np.int64)


if __name__ == "__main__":
    sys.exit(main())
