"""`model.json`: everything about a saved model but its weights, as plain data."""

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

_MOST_PARTS = 200_000  # keys, values and brackets: each takes far more memory than its bytes

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

COMPLEX: Final = {"complex64": "float32", "complex128": "float64"}  # and what the parts are written as

Attribute = int | float | tuple[int, ...]


class TensorSpec(Settings):
    shape: Shape
    dtype: DType

    @classmethod
    def of(cls, tensor: torch.Tensor) -> TensorSpec:
        """Raises ValidationError (a ValueError) for a type of tensor that cannot be saved."""
        return cls.model_validate({"shape": tuple(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")})

    @property
    def written(self) -> TensorSpec:
        """As which tensor a file of weights holds it."""
        if self.dtype not in COMPLEX:
            return self
        return TensorSpec.model_validate({"shape": (*self.shape, 2), "dtype": COMPLEX[self.dtype]})


class InputSpec(TensorSpec):
    """An input of the fingerprint.

    scale: the root mean square of the example that the input stands for; 1 for whole numbers.
    data: the values of the example (see `toolkit.checkpoint.examples`); None where made-up numbers do.
    """

    later: ClassVar[frozenset[str]] = frozenset({"data"})

    scale: Annotated[float, Field(ge=0.0)]
    data: Annotated[str, Field(max_length=2**20)] | None = None


class OutputPrint(Settings):
    """What is remembered of one output tensor, in float64; `values` are taken at even distances."""

    shape: Shape
    mean: float
    l2: float
    values: Annotated[tuple[float, ...], Field(max_length=16)]


class Fingerprint(Settings):
    inputs: tuple[InputSpec, ...]
    outputs: tuple[OutputPrint, ...]


class WeightsFile(Settings):
    """The name is fixed, so that a manifest cannot point anywhere else."""

    file: Literal["model.safetensors"] = "model.safetensors"
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=0)]


class Manifest(Settings):
    """How to get from the unmodified model, built by `factory`, to the saved one.

    `removed_blocks` maps the name of a block that is gone to the structure of its output; `stand_ins` maps the name of
    a block in whose place a stand-in works to the type and arguments of the stand-in.
    `attributes` maps a module's name to those plain attributes that compression changed; `tensors` lists every
    parameter and persistent buffer, and those other buffers that became smaller, which are `buffers`.
    `folded` names tensors that the unmodified model computes at every pass and the saved one keeps as parameters.
    `versions` are those of the modules' state dicts; None in manifests of before they were kept.
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
    """Raises CheckpointError: no such file, too large, or not a manifest."""
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
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        fault = f"{place}: {first['msg']}"
    except (ValueError, RecursionError) as error:
        fault = str(error)
    raise CheckpointError(f"{path}: damaged or not a manifest: {printable(fault)}; save it again")


def size_of_file(path: Path) -> int:
    """In bytes. A link could lead anywhere, and a pipe would never end.

    Raises:
        CheckpointError: something else than a plain file.
        OSError: there is nothing.
    """
    found = os.lstat(path)
    if not stat.S_ISREG(found.st_mode):
        raise CheckpointError(f"{path}: not a plain file (a link, a folder or a device); copy the whole folder again")
    return found.st_size


def printable(text: str, length: int = 400) -> str:
    """What was read from a file of anybody's, for a message: short, on one line, without control characters."""
    shown = "".join(part if part.isprintable() else ascii(part)[1:-1] for part in text[:length])
    return shown + ("..." if len(text) > length else "")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} is given twice")
        found[key] = value
    return found


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a number that can be meant here")
