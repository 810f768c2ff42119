"""Runs the user's model or other code of the user, and turns whatever goes wrong into one clear sentence."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from toolkit.base.errors import StageError, UserError
from toolkit.hooks.modes import evaluating
from toolkit.hooks.tensors import tensors_in

LONGEST_MESSAGE = 300  # characters of somebody else's error

BY_POSITION = "the toolkit calls a model with its inputs by position, model(first, second, ...)"

_OWN_FOLDER = Path(__file__).parents[1]


def told(error: BaseException) -> str:
    """Returns an error in one line: its class, its message, and the last line of the user's code that it came from."""
    message = " ".join(str(error).split())
    if len(message) > LONGEST_MESSAGE:
        message = f"{message[:LONGEST_MESSAGE]} ..."
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_users(frame.filename)]
    place = f" (in {frames[-1].name}, {Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}{': ' if message else ''}{message}{place}"


def _is_users(file: str) -> bool:
    path = Path(file)
    return "site-packages" not in path.parts and not path.is_relative_to(_OWN_FOLDER) and not file.startswith("<")


@contextmanager
def users_code(what: str, hint: str = "") -> Iterator[None]:
    """Turns every exception of the code inside into a StageError that begins with `what` and ends with `hint`.

    A UserError and torch's out-of-memory error pass unchanged.
    """
    try:
        yield
    except (UserError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # the user's code may raise anything
        raise StageError(f"{what}: {told(error)}{hint}") from error


def described(value: Any) -> str:
    """Returns a value in words: shape and type of a tensor, number of parts or keys of a container, else its class."""
    kind = type(value).__name__
    article = "an" if kind[0] in "aeiouAEIO" else "a"
    if isinstance(value, Tensor):
        return f"a tensor of shape {list(value.shape)} and type {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, (Mapping, tuple, list)) and not value:
        return f"an empty {kind}"
    if isinstance(value, Mapping):
        return f"{article} {kind} with the keys {', '.join(map(str, list(value)[:5]))}"
    if isinstance(value, (tuple, list)):
        return f"{article} {kind} of {len(value)} parts"
    return "None" if value is None else f"{article} {kind}"


def try_model(model: nn.Module, inputs: Sequence[Tensor], what: str = "the model") -> Any:
    """Returns the outputs of the model in eval mode, without gradients.

    what: the name of the model in messages.

    Raises:
        UserError: the model raises an error, or returns no tensor.
    """
    shapes = ", ".join(str(list(part.shape)) for part in inputs)
    with evaluating(model), torch.no_grad():
        try:
            outputs = model(*inputs)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            raise UserError(
                f"{what} does not run on {len(inputs[0])} example{'' if len(inputs[0]) == 1 else 's'} "
                f"({shapes}): {told(error)}{_hint(error) or _hint_of_types(error, model, inputs)}"
            ) from error
    if not tensors_in(outputs):
        raise UserError(
            f"{what} returns {described(outputs)}, in which there is no tensor; its forward must return a tensor, or a "
            "tuple, list, dictionary or dataclass that holds one"
        )
    return outputs


def _hint_of_types(error: Exception, model: nn.Module, inputs: Sequence[Tensor]) -> str:
    """Returns what to do about inputs of another number type than the weights, if the error is of types."""
    types = [part.dtype for part in model.parameters() if part.is_floating_point()]
    others = [part.dtype for part in inputs if types and part.dtype not in types]
    if not others or not isinstance(error, RuntimeError) or "type" not in str(error):
        return ""
    given, wanted = (str(kind).removeprefix("torch.") for kind in (others[0], types[0]))
    return f"; inputs are {given} and the model's weights {wanted}: give inputs.to(torch.{wanted})"


def _hint(error: Exception) -> str:
    message = str(error)
    if isinstance(error, NotImplementedError) and "forward" in message:
        return "; the module has no forward of its own"
    arguments = ("missing", "takes", "keyword-only", "unexpected keyword", "multiple values")
    if isinstance(error, TypeError) and "argument" in message and any(word in message for word in arguments):
        return f"; {BY_POSITION}: if its forward is called otherwise, wrap the model in a module that does so"
    return ""
