"""Holds the manifest `model.json`: everything about a saved model but its weights, as plain data."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, NoReturn

import torch
from pydantic import Field, JsonValue, ValidationError

from toolkit.base.errors import CheckpointError
from toolkit.base.settings import Settings
from toolkit.stand_ins.output import OutputStructure
from toolkit.stand_ins.registry import AnyArguments

MANIFEST_FILE = "model.json"

WEIGHTS_FILE = "model.safetensors"

_LARGEST_MANIFEST_BYTES = 4 * 2**20

_MOST_PARTS = 200_000  # keys, values and brackets, each of which takes far more memory than its bytes in the file

Shape = Annotated[tuple[Annotated[int, Field(ge=0, lt=2**40)], ...], Field(max_length=16)]

DType = Literal[
    "float64",
    "float32",
    "float16",
    "bfloat16",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint8",
    "bool",
    "complex64",  # written as real and imaginary parts, in a last dimension of 2
    "complex128",
]  # the types that safetensors and every torch version share

COMPLEX: Final = {"complex64": "float32", "complex128": "float64"}  # complex type -> type of its written parts

Attribute = int | float | tuple[int, ...]


class TensorSpec(Settings):
    """Describes a tensor by its shape and number type."""

    shape: Shape
    dtype: DType

    @classmethod
    def of(cls, tensor: torch.Tensor) -> TensorSpec:
        """Returns the shape and type of a tensor.

        Raises:
            ValidationError: tensors of this type cannot be saved; it is a ValueError.
        """
        return cls.model_validate({"shape": tuple(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")})

    @property
    def written(self) -> TensorSpec:
        """Returns the shape and type with which a file of weights holds the tensor."""
        if self.dtype not in COMPLEX:
            return self
        return TensorSpec.model_validate({"shape": (*self.shape, 2), "dtype": COMPLEX[self.dtype]})


class InputSpec(TensorSpec):
    """Describes an input of the fingerprint.

    scale: the root mean square of the example that the input stands for; 1 for whole numbers.
    data: the values of the example (see `toolkit.checkpoint.examples`); None where made-up numbers suffice.
    """

    later: ClassVar[frozenset[str]] = frozenset({"data"})

    scale: Annotated[float, Field(ge=0.0)]
    data: Annotated[str, Field(max_length=2**20)] | None = None


class OutputPrint(Settings):
    """Holds what is remembered of one output tensor, in float64.

    l2: the Euclidean norm of all elements.
    values: up to 16 elements at even distances.
    """

    shape: Shape
    mean: float
    l2: float
    values: Annotated[tuple[float, ...], Field(max_length=16)]


class Fingerprint(Settings):
    """Holds what a model computes on fixed inputs."""

    inputs: tuple[InputSpec, ...]
    outputs: tuple[OutputPrint, ...]


class WeightsFile(Settings):
    """Describes the file of weights; its name is fixed, so that a manifest cannot point to another file."""

    file: Literal["model.safetensors"] = "model.safetensors"
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=0)]


class Manifest(Settings):
    """Says how to get from the unmodified model to the saved one.

    factory: how the unmodified model is built: the task that builds it, or the zoo model with its arguments (see
        `toolkit.checkpoint.factory`).
    removed_blocks: the structure of the output of each removed block, by the block's name.
    stand_ins: type and arguments of each stand-in, by the name of the block or layer that it replaces.
    attributes: the plain attributes that compression changed, by the name of the module.
    tensors: every parameter and persistent buffer, and the `buffers`, by name.
    buffers: names of the buffers that a state dict leaves out and that became smaller.
    folded: names of the tensors that the unmodified model computes in every pass and the saved one keeps as parameters.
    versions: the versions of the modules' state dicts; None in manifests from before they were kept.
    recipe_sha256: the hash of the recipe that made the model; None if no recipe made it.
    packages: the versions of the installed packages.
    """

    later: ClassVar[frozenset[str]] = frozenset({"stand_ins", "buffers", "folded", "versions"})

    version: Literal[1] = 1
    factory: dict[str, JsonValue]
    removed_blocks: dict[str, OutputStructure]
    stand_ins: dict[str, AnyArguments] = Field(default_factory=dict)
    attributes: dict[str, dict[str, Attribute]]
    tensors: dict[str, TensorSpec]
    buffers: tuple[str, ...] = ()
    folded: tuple[str, ...] = ()
    versions: dict[str, int] | None = None
    weights: WeightsFile
    fingerprint: Fingerprint
    recipe_sha256: str | None
    packages: dict[str, str]


def read_manifest(path: Path) -> Manifest:
    """Returns the manifest in a file.

    Raises:
        CheckpointError: the file is missing, too large, or not a manifest.
    """
    try:
        if size_of_file(path) > _LARGEST_MANIFEST_BYTES:
            raise CheckpointError(f"{path}: too large for a manifest; this is not a saved model of this toolkit")
        content = path.read_bytes()
        if sum(map(content.count, (b",", b"[", b"{"))) > _MOST_PARTS:
            raise CheckpointError(f"{path}: damaged or not a manifest: it has more than {_MOST_PARTS} parts")
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error.strerror}); give the folder that holds {MANIFEST_FILE} and {WEIGHTS_FILE}"
        ) from error
    try:
        json.loads(content, object_pairs_hook=_unique, parse_constant=_refuse_constant)
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        first_error = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first_error["loc"]) or "the file"
        fault = f"{place}: {first_error['msg']}"
    except (ValueError, RecursionError) as error:
        fault = str(error)
    raise CheckpointError(f"{path}: damaged or not a manifest: {printable(fault)}; save it again")


def size_of_file(path: Path) -> int:
    """Returns the size of a plain file in bytes; links and pipes are refused, as they may lead anywhere or never end.

    Raises:
        CheckpointError: the path is not a plain file.
        OSError: the path does not exist.
    """
    status = os.lstat(path)
    if not stat.S_ISREG(status.st_mode):
        raise CheckpointError(f"{path}: not a plain file (a link, a folder or a device); copy the whole folder again")
    return status.st_size


def printable(text: str, length: int = 400) -> str:
    """Returns text from an untrusted file as a message may show it: cut to `length`, without control characters."""
    shown = "".join(part if part.isprintable() else ascii(part)[1:-1] for part in text[:length])
    return shown + ("..." if len(text) > length else "")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for key, value in pairs:
        if key in content:
            raise ValueError(f"the key {key!r} is given twice")
        content[key] = value
    return content


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a finite number")
