"""Says what to change where an answer is no or a part is refused. Nothing here imports torch."""

from __future__ import annotations

from typing import Final

from toolkit.preflight.report import Question

REMEDIES: Final[dict[Question, str]] = {
    "one_example": "make the model run on what the task's example_inputs gives, and return finite numbers in a tensor",
    "several_examples": "take the number of examples from the input: a batch size that is written into the code, as in "
    "reshape(1, ...), keeps the model from running on more",
    "repeats": "switch off in eval mode what is random, such as F.dropout without training=self.training, and what is "
    "kept from one call to the next; no cut could be proved otherwise",
    "copies": "keep nothing on the module that cannot be copied: a tensor of a forward pass, a lock, an open file",
    "trains": "make the model take what the task's train_batches gives in training mode, return what the task's loss "
    "takes, and detach what it keeps from pass to pass; cutting and repair need no training",
    "saves": "make build_model build the modules and parameters of the trained model",
    "counts": "write the named operators with matrix products or convolutions; all ratios and targets of a run are in "
    "multiply-adds",
    "blocks": "make the model run with gradients in eval mode",
    "channels": "make shapes independent of values: the search changes numbers inside the model, after which routing "
    "by value (experts, early exits) takes other rows",
}

NOTHING: Final = "nothing; an output of the model has to keep its width"

UNKNOWN: Final = "no remedy is known; the layer only keeps its width"

ROUTED: Final = ("the values of", "nothing; what values choose stays as it is, because fixed inputs prove no cut of it")

# (words in the reason, remedy): the first pair whose words occur in the reason is taken.
_OF_CHANNELS: Final = (
    ROUTED,
    ("is an output of the model", NOTHING),
    ("no layer reads it", "nothing; no layer that reads it could be narrowed with it"),
    (
        "layers that it does not call",
        "call the layer, as in self.fc(x), instead of computing with its weights, as in F.linear(x, self.fc.weight); "
        "recurrent layers and nn.MultiheadAttention compute with weights, and keep their widths",
    ),
    ("is protected", "remove it from the task's `protected` names"),
    (
        "reaches all of them",
        "keep channels apart behind this layer: a reshape, a shuffle or a sum over channels mixes them",
    ),
    ("is the rank of", "nothing; choose a smaller rank where the block is replaced"),
    (
        "it cannot be cut",
        "take sizes from the tensor at hand (x.shape[-1], or -1 in a reshape) or from an attribute of the module, not "
        "from a number in forward or from another tensor; what is added to an input of the model has to keep its width",
    ),
    (
        "it computes something else",
        "make channels independent of their number: a mean or a norm over all of them, or a scale by their number, "
        "changes with the width",
    ),
    ("is a dynamic layer", "cut channels in front of the stage va_red"),
    ("called", "use a separate module for every call of the layer"),
)

_OF_BLOCKS: Final = (
    ROUTED,
    ("is not run on", "nothing if it is only for training; otherwise give example inputs that run it"),
    ("is not called for", "nothing if it is only for training; otherwise give example inputs that run it"),
    ("times in one pass", "use a separate module for every call"),
    ("goes by several names", "register it under one name"),
    ("under different names", "use a separate module in every place"),
    ("changes the shape", "nothing; blocks that change the resolution or the width of the stream have to stay"),
    (" comes in", "nothing; blocks that change the resolution or the width of the stream have to stay"),
    ("changes the type", "return the number type of the input"),
    ("takes no tensor", "pass the stream as an argument of the block"),
    ("returns no tensor", "return the stream as a tensor, alone or in a tuple, list or mapping"),
    ("that a stand-in cannot return", "return the stream as a tensor, alone or in a tuple, list or mapping"),
    ("that a saved model cannot name", "return the stream alone, or in a tuple, list or mapping of Python's own"),
    ("returns more than its stream", "return the stream alone, or beside it only what the block was given"),
    ("without it", "nothing, if the model must run in that way too"),
    ("does not add its work", "nothing; only work that is added to a stream can be left out"),
    (
        "no sum of what it is given",
        "nothing if it adds nothing to a stream, as only added work can be left out; otherwise write the sum as "
        "x + f(x), not in place on a part of a tensor",
    ),
)


def channel_remedy(reason: str) -> str:
    """Returns what to change so that a layer's channels can be cut, by the reason against it."""
    return next((remedy for words, remedy in _OF_CHANNELS if words in reason), UNKNOWN)


def block_remedy(reason: str) -> str:
    """Returns what to change so that a block can be dropped, by the reason against it."""
    return next((remedy for words, remedy in _OF_BLOCKS if words in reason), "no remedy is known; the block stays")
