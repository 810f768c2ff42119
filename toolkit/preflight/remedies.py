"""What would have to change where an answer is no, or a part is refused. Nothing here imports torch."""

from __future__ import annotations

from typing import Final

from toolkit.preflight.report import Question

REMEDIES: Final[dict[Question, str]] = {
    "one_example": "make the model run on what the task's example_inputs gives, and give finite numbers in a tensor",
    "several_examples": "let the number of examples come from the input: a batch size that is written into the code, "
    "as in reshape(1, ...), keeps the model from running on more",
    "repeats": "switch off in eval mode whatever is random, such as F.dropout without training=self.training, and "
    "whatever is kept from one call to the next; no cut could be proved otherwise",
    "copies": "keep nothing on the module that cannot be copied: a tensor of a forward pass, a lock, an open file",
    "trains": "let the model take what the task's train_batches gives in training mode, and give what the task's loss "
    "takes; cutting and repair do without training",
    "saves": "let build_model build the same modules and parameters as the trained model has",
    "counts": "as it says; all ratios and targets of a run are in multiply-adds",
    "blocks": "make the model run with gradients in eval mode",
    "channels": "keep shapes independent of values: the search changes numbers inside the model, after which routing "
    "by value (experts, early exits) takes other rows",
}

NOTHING: Final = "nothing; that is as it should be"

UNKNOWN: Final = "no remedy is known; it keeps its width and costs nothing more than that"

# Words in the reason, and the remedy. The first that fits is taken.
_OF_CHANNELS: Final = (
    ("is an output of the model", NOTHING),
    ("no layer reads it", "nothing; what reads it is no layer that could be narrowed with it"),
    (
        "layers that it does not call",
        "call the layer, as in self.fc(x), where the module computes with its weights, as in "
        "F.linear(x, self.fc.weight); recurrent layers and nn.MultiheadAttention do the latter and keep their widths",
    ),
    ("is protected", "take it out of the task's `protected` names"),
    (
        "reaches all of them",
        "keep channels apart where this layer's outputs go: a reshape, a shuffle or a sum over channels mixes them",
    ),
    ("is the rank of", "nothing; choose a smaller rank where the block is replaced"),
    (
        "it cannot be cut",
        "take sizes from the tensor (x.shape[-1]) or from an attribute of the module, not from a number in forward",
    ),
    (
        "it computes something else",
        "keep channels independent of how many there are: a mean or a norm over all of them, or a scale by their "
        "number, changes with the width",
    ),
    ("called", "give every use of the layer a module of its own"),
)

_OF_BLOCKS: Final = (
    ("is not run on", "nothing if it is for training alone; else give example inputs that run it"),
    ("is not called for", "nothing if it is for training alone; else give example inputs that run it"),
    ("times in one pass", "give every call a module of its own"),
    ("goes by several names", "keep it under one name"),
    ("under different names", "give every place a module of its own"),
    ("changes the shape", "nothing; blocks that change the resolution or the width of the stream have to stay"),
    (" comes in", "nothing; blocks that change the resolution or the width of the stream have to stay"),
    ("changes the type", "hand on the type that came in"),
    ("takes no tensor", "pass the stream as an argument of the block"),
    ("returns no tensor", "return the stream as a tensor, alone or in a tuple, list or mapping"),
    ("that a stand-in cannot return", "return the stream as a tensor, alone or in a tuple, list or mapping"),
    ("that a saved model cannot name", "return the stream alone, or in a tuple, list or mapping of Python's own"),
    ("returns more than its stream", "return the stream alone, or hand on with it what the block was given"),
    ("without it", "nothing, if the model is to run in that way too"),
    ("does not add its work", "nothing; only work that is added to a stream can be left out"),
    (
        "no sum of what it is given",
        "nothing where it adds nothing, as only work that is added to a stream can be left out; where it does, write "
        "the sum as x + f(x), not in place on a part of a tensor",
    ),
)


def channel_remedy(reason: str) -> str:
    return next((remedy for words, remedy in _OF_CHANNELS if words in reason), UNKNOWN)


def block_remedy(reason: str) -> str:
    return next((remedy for words, remedy in _OF_BLOCKS if words in reason), "no remedy is known; it stays")
