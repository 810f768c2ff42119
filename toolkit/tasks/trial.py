"""Tries a task before any work: which inputs it gives, and how many examples its model takes per call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from toolkit.base.errors import UserError
from toolkit.hooks.tensors import equal
from toolkit.hooks.trial import described, try_model, users_code
from toolkit.hooks.unfit import refuse_unfit
from toolkit.tasks.task import Task

MOST_SMALLEST = 4  # examples; a model that needs more has a batch size written into its code

LARGER = (5, 6, 7, 8, 12, 16, 24, 32)  # batch sizes that such a model is tried with, only to name them in the message

FIXED_BATCH = (
    "a number of examples seems to be written in its code. The toolkit needs a model that takes any number: write -1, "
    "or x.shape[0], in its place"
)


def load_baseline(task: Task) -> nn.Module:
    """Returns the trained model that `task.load_baseline()` gives.

    Raises:
        UserError: the method raises, or gives no module that can be changed.
    """
    return _given_by(task.load_baseline, f"load_baseline of task {task.name!r}")


def build_model(task: Task) -> nn.Module:
    """Returns the model that `task.build_model()` builds.

    Raises:
        UserError: the method raises, or builds no module that can be changed.
    """
    return _given_by(task.build_model, f"build_model of task {task.name!r}")


def _given_by(make: Callable[[], object], what: str) -> nn.Module:
    with users_code(f"{what} fails"):
        model = make()
    if not isinstance(model, nn.Module):
        raise UserError(f"{what} gives {described(model)}; it must give a torch.nn.Module")
    refuse_unfit(model, f"what {what} gives")
    return model


def inputs_of(task: Task, batch_size: int) -> tuple[Tensor, ...]:
    """Returns the inputs that `task.example_inputs(batch_size)` gives.

    Raises:
        UserError: the method raises, gives no tuple of tensors, or gives others when it is called again.
    """
    with users_code(f"example_inputs of task {task.name!r} fails"):
        inputs, again = task.example_inputs(batch_size), task.example_inputs(batch_size)
    if not isinstance(inputs, (tuple, list)) or not inputs or not all(isinstance(part, Tensor) for part in inputs):
        raise UserError(
            f"example_inputs of task {task.name!r} gives {_parts(inputs)}; it must be a tuple of tensors, the model's "
            "inputs by position, such as (images,)"
        )
    if not all(map(equal, inputs, again)):
        raise UserError(
            f"example_inputs of task {task.name!r} gives other inputs at every call, so that no two passes could be "
            "compared; draw them once, or seed the draw"
        )
    return tuple(inputs)


def smallest_batch(model: nn.Module, inputs: Callable[[int], tuple[Tensor, ...]], what: str = "the model") -> int:
    """Returns the smallest batch size that the model takes; the model takes one more and twice as many, too.

    inputs: gives example inputs for a batch size, on the model's device.
    what: what messages call the model.

    Raises:
        UserError: the model does not run at all, or not with any number of examples.
    """
    first_error: UserError | None = None
    for size in range(1, MOST_SMALLEST + 1):
        error = _refusal(model, inputs, size, what)
        if error is None:
            _check_rest(model, inputs, size, what)
            return size
        first_error = first_error or error
    assert first_error is not None
    taken = [size for size in LARGER if _refusal(model, inputs, size, what) is None]
    if taken:
        raise UserError(
            f"{first_error}; it runs on {' and on '.join(map(str, taken[:3]))} examples: {FIXED_BATCH}"
        ) from first_error
    raise first_error


def _check_rest(model: nn.Module, inputs: Callable[[int], tuple[Tensor, ...]], size: int, what: str) -> None:
    """Checks that a model that runs on `size` examples also runs on one more and on twice as many."""
    for more in sorted({size + 1, 2 * size}):
        error = _refusal(model, inputs, more, what)
        if error is not None:
            raise UserError(f"{error}; it runs on {size}: {FIXED_BATCH}") from error


def _refusal(model: nn.Module, inputs: Callable[[int], tuple[Tensor, ...]], size: int, what: str) -> UserError | None:
    tensors = inputs(size)
    try:
        try_model(model, tensors, what)
    except UserError as error:
        return error
    return None


def _parts(inputs: Any) -> str:
    if isinstance(inputs, (tuple, list)) and inputs:
        return f"a {type(inputs).__name__} of {', '.join(map(described, inputs[:3]))}"
    return described(inputs)
