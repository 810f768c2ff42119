"""Checks before any work that a model can be saved."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from toolkit.base.errors import CheckpointError
from toolkit.checkpoint.difference import describe_tensors
from toolkit.checkpoint.fingerprint import find_difference, fingerprint_of, take_fingerprint
from toolkit.hooks.copies import copy_model
from toolkit.hooks.state import load_state


def check_saving(dense: nn.Module, rebuilt: nn.Module, example_inputs: Sequence[Tensor]) -> None:
    """Checks that the unmodified model can be saved and loaded.

    rebuilt: a new model of `build_model` on the CPU, which is filled with the weights of `dense`, as loading does.

    Raises:
        CheckpointError: the model cannot be saved, or its outputs differ once it is loaded.
    """
    portable = copy_model(dense).cpu()
    try:
        describe_tensors(portable)
        saved = fingerprint_of(portable, [tensor.cpu() for tensor in example_inputs])
        load_state(rebuilt, portable.state_dict())
        difference = find_difference(saved, take_fingerprint(rebuilt, saved.inputs))
    except (ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"the unmodified model could not be saved: {error}; a compressed one could not either, so nothing was begun"
        ) from error
    if difference:
        raise CheckpointError(
            "the unmodified model could not be loaded again: what build_model builds, with the trained weights, does "
            f"not compute what the trained model does ({difference}); the state_dict must hold all numbers that the "
            "model keeps"
        )
