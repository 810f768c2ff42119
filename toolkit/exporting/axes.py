"""Holds the axes of inputs that a file leaves open: the batch, and those that the user names (`ids:1=sequence`).

Nothing here imports torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import Field

from toolkit.base.errors import ExportError
from toolkit.base.settings import Data
from toolkit.base.words import did_you_mean

BATCH = "batch"

_FORM = re.compile(r"(?P<input>[^:=\s]+):(?P<axis>[0-9]+)=(?P<name>[^:=\s]+)")

SHORTEST = 2  # of an open axis in the example inputs: torch.export takes a size of 1 for a constant


class NamedAxis(Data):
    """Names an axis of an input whose size is open.

    input: the name of the input, as the model's forward method has it.
    axis: counted from 0; axis 0 is the batch.
    name: axes of one name have one size.
    """

    input: str
    axis: Annotated[int, Field(ge=1)]
    name: str


def named_axis(text: str) -> NamedAxis | None:
    """Returns the axis that INPUT:AXIS=NAME names; None for the batch, which is open and has its name already.

    Raises:
        ExportError: the text is of another form, or gives the batch or another axis a name that it cannot have.
    """
    found = _FORM.fullmatch(text)
    if found is None:
        raise ExportError(f"--dynamic {text}: must be INPUT:AXIS=NAME, such as input_ids:1=sequence")
    axis, name = int(found["axis"]), found["name"]
    if not name.isidentifier():
        raise ExportError(f"--dynamic {text}: {name!r} cannot be a name; use letters, digits and _, such as sequence")
    if (axis == 0) != (name == BATCH):
        raise ExportError(
            f"--dynamic {text}: axis 0 of every input is the batch, is called {BATCH!r} and is open by itself; name "
            "another axis, or give this one another name"
        )
    return None if axis == 0 else NamedAxis(input=found["input"], axis=axis, name=name)


def check_axes(axes: Sequence[NamedAxis], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Checks named axes against the inputs that they are of.

    shapes: the shape of each example input, by its name.

    Raises:
        ExportError: an input or an axis does not exist, an axis has two names, or axes of one name differ in size.
    """
    names: dict[tuple[str, int], str] = {}
    sizes: dict[str, tuple[int, str]] = {}
    for axis in axes:
        place = f"--dynamic {axis.input}:{axis.axis}={axis.name}"
        if axis.input not in shapes:
            raise ExportError(
                f"{place}: the model has no input {axis.input!r}; {did_you_mean(axis.input, shapes)}its inputs are: "
                f"{', '.join(f'{name} {list(shape)}' for name, shape in shapes.items())}"
            )
        shape = shapes[axis.input]
        if axis.axis >= len(shape):
            raise ExportError(
                f"{place}: {axis.input} has the shape {list(shape)}, so its axes are 0 (the batch) to {len(shape) - 1}"
            )
        if names.setdefault((axis.input, axis.axis), axis.name) != axis.name:
            raise ExportError(f"{place}: that axis is called {names[axis.input, axis.axis]!r} already; name it once")
        size = shape[axis.axis]
        if size < SHORTEST:
            raise ExportError(f"{place}: that axis has size {size} in the example inputs; it must be at least 2 there")
        first = sizes.setdefault(axis.name, (size, f"{axis.input}:{axis.axis}"))
        if first[0] != size:
            raise ExportError(
                f"{place}: that axis has size {size}, but {first[1]}, of the same name, has {first[0]}; axes of "
                "different sizes need different names"
            )


def other_sizes(size: int) -> list[int]:
    """Returns further sizes at which a file with an open axis of this size is tried; the first that the model takes."""
    tried = (size - size // 4, size // 2, 2 * size, size - 1, size + 1)
    return list(dict.fromkeys(other for other in tried if other >= SHORTEST and other != size))
