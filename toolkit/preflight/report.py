"""What a preflight found, as data. Nothing here imports torch."""

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
)  # by every run


class Answer(Data):
    """The answer to a question about the whole model.

    reason: why it is "no", or what "not tried" waits for.
    change: what would have to change for a "yes".
    """

    question: Question
    answer: Literal["yes", "no", "not tried"]
    reason: str = ""
    change: str = ""


class PartVerdict(Data):
    """A block, or channels that are cut together, by the name of the module or of the first layer.

    kind: "block", or the kind of channels: "conv", "mlp", "attention", "embedding"; empty where it is not known.
    units: how many channels or heads there are; None for a block and where it is not known.
    reason, change: as in `Answer`, where the part cannot go.
    """

    name: str
    can_go: bool
    kind: str = ""
    units: int | None = None
    reason: str = ""
    change: str = ""


class Preflight(Data):
    """All that was found. `macs` are multiply-adds of one example; None where they cannot be counted.

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
        return [answer for answer in self.answers if answer.answer == "no"]

    def in_the_way(self, *, trains: bool = False) -> list[Answer]:
        """Returns the answers that keep every run from being made, and those of a run that trains."""
        needed = (*NEEDED, "trains") if trains else NEEDED
        return [answer for answer in self.noes() if answer.question in needed]
