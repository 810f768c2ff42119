"""`model.json`: everything about a saved model but its weights, as plain data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from toolkit.dropped import OutputStructure
from toolkit.errors import CheckpointError

MANIFEST_FILE = "model.json"
WEIGHTS_FILE = "model.safetensors"
_LARGEST_MANIFEST_BYTES = 16 * 2**20

Shape = Annotated[tuple[Annotated[int, Field(ge=0, lt=2**40)], ...], Field(max_length=16)]
DType = Literal[
    "float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"
]  # the types that safetensors and every torch version share
Attribute = int | float | tuple[int, ...]


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class TensorSpec(Part):
    shape: Shape
    dtype: DType

    @classmethod
    def of(cls, tensor: torch.Tensor) -> TensorSpec:
        """Raises ValidationError (a ValueError) for a type of tensor that cannot be saved."""
        return cls.model_validate({"shape": tuple(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")})


class InputSpec(TensorSpec):
    """An input of the fingerprint; `scale` is the root mean square of the example it stands for."""

    scale: Annotated[float, Field(ge=0.0)]


class OutputPrint(Part):
    """What is remembered of one output tensor, in float64; `values` are taken at even distances."""

    shape: Shape
    mean: float
    l2: float
    values: Annotated[tuple[float, ...], Field(max_length=16)]


class Fingerprint(Part):
    inputs: tuple[InputSpec, ...]
    outputs: tuple[OutputPrint, ...]


class WeightsFile(Part):
    """The name is fixed, so that a manifest cannot point anywhere else."""

    file: Literal["model.safetensors"] = "model.safetensors"
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=0)]


class Manifest(Part):
    """How to get from the unmodified model, built by `factory`, to the saved one.

    `attributes` maps a module's name to those plain attributes that compression changed; `tensors` lists every
    parameter and persistent buffer.
    """

    version: Literal[1] = 1
    factory: dict[str, JsonValue]
    removed_blocks: dict[str, OutputStructure]
    attributes: dict[str, dict[str, Attribute]]
    tensors: dict[str, TensorSpec]
    weights: WeightsFile
    fingerprint: Fingerprint
    recipe_sha256: str | None
    packages: dict[str, str]


def read_manifest(path: Path) -> Manifest:
    """Raises CheckpointError: no such file, too large, or not a manifest."""
    try:
        if path.stat().st_size > _LARGEST_MANIFEST_BYTES:
            raise CheckpointError(f"{path}: too large for a manifest; this is not a saved model of this toolkit")
        return Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error.strerror}); give the folder that holds {MANIFEST_FILE} and {WEIGHTS_FILE}"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise CheckpointError(f"{path}: damaged or not a manifest: {place}: {first['msg']}; save it again") from error
