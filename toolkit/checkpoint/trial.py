"""Whether a model can be saved, found before there is anything to save."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from toolkit.base.errors import CheckpointError
from toolkit.checkpoint.difference import describe_tensors
from toolkit.checkpoint.fingerprint import find_difference, fingerprint_of, take_fingerprint
from toolkit.hooks.copies import copy_model
from toolkit.hooks.state import load_state


def check_saving(dense: nn.Module, rebuilt: nn.Module, example_inputs: Sequence[Tensor]) -> None:
    """Checks that the unmodified model could be saved and loaded into `rebuilt`, a new one of its kind.

    rebuilt: is filled with the weights of `dense`, as `load_model` would do; on the CPU.

    Raises:
        CheckpointError: the model cannot be saved, or computes something else when it is loaded.
    """
    portable = copy_model(dense).cpu()
    try:
        describe_tensors(portable)
        saved = fingerprint_of(portable, [tensor.cpu() for tensor in example_inputs])
        load_state(rebuilt, portable.state_dict())
        difference = find_difference(saved, take_fingerprint(rebuilt, saved.inputs))
    except (ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"the unmodified model could not be saved: {error}; so no compressed one could, and nothing was begun"
        ) from error
    if difference:
        raise CheckpointError(
            "the unmodified model could not be loaded again: what build_model builds, with the trained weights, does "
            f"not compute what the trained model does ({difference}). Does it keep numbers that its state_dict lacks?"
        )
