"""Holds the results of a preflight as data. Nothing here imports torch."""

from __future__ import annotations

from typing import Final, Literal

from toolkit.base.settings import Data

PREFLIGHT_FILE: Final = "preflight.json"

Question = Literal[
    "one_example", "several_examples", "repeats", "copies", "trains", "saves", "counts", "blocks", "channels"
]

NEEDED: Final[tuple[Question, ...]] = (
    "one_example",
    "several_examples",
    "repeats",
    "copies",
    "saves",
)  # the questions that need a yes for every run


class Answer(Data):
    """Holds the answer to a question about the whole model.

    reason: why the answer is "no", or what "not tried" waits for.
    change: what to change for a "yes".
    """

    question: Question
    answer: Literal["yes", "no", "not tried"]
    reason: str = ""
    change: str = ""


class PartVerdict(Data):
    """Says whether a block can be dropped, or channels that belong together can be cut.

    name: the name of the block, or of the first layer whose channels these are.
    kind: "block", or the kind of channels: "conv", "mlp", "attention", "embedding"; empty where it is not known.
    units: the number of channels or heads; None for a block and where it is not known.
    reason, change: as in `Answer`, where the part cannot go.
    """

    name: str
    can_go: bool
    kind: str = ""
    units: int | None = None
    reason: str = ""
    change: str = ""


class Preflight(Data):
    """Holds all results of a preflight.

    macs: the multiply-adds of one example; None where they cannot be counted.
    batch_size: the number of examples of the question `several_examples`.
    """

    schema_version: Literal[1] = 1
    model: str
    num_params: int
    macs: int | None
    batch_size: int
    answers: tuple[Answer, ...]
    blocks: tuple[PartVerdict, ...]
    channels: tuple[PartVerdict, ...]

    def noes(self) -> list[Answer]:
        """Returns all answers that are no."""
        return [answer for answer in self.answers if answer.answer == "no"]

    def in_the_way(self, *, trains: bool = False) -> list[Answer]:
        """Returns the noes that prevent every run, and with `trains` those that prevent a run that trains."""
        needed = (*NEEDED, "trains") if trains else NEEDED
        return [answer for answer in self.noes() if answer.question in needed]
