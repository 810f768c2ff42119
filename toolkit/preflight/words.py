"""Puts a preflight into a table and sentences. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from toolkit.base.console import Console
from toolkit.preflight.report import Answer, PartVerdict, Preflight, Question

MOST_NAMES = 6  # names of modules in one sentence

QUESTIONS: Final[dict[Question, str]] = {
    "one_example": "Does it run on one example?",
    "several_examples": "Does it run on {batch_size} examples at once?",
    "repeats": "Does it compute the same when it is run again?",
    "copies": "Can it be copied?",
    "trains": "Can it be trained: a loss, and a gradient from it?",
    "saves": "Can it be saved, and loaded again to the same outputs?",
    "counts": "Can its multiply-adds be counted?",
    "blocks": "Can whole blocks be dropped (depth)?",
    "channels": "Can layers be made narrower (width)?",
}

KINDS: Final = {
    "conv": "channels of convolutions",
    "mlp": "hidden units of MLPs",
    "attention": "attention heads",
    "embedding": "channels of the stream that all blocks share",
}


def show_preflight(preflight: Preflight, console: Console) -> None:
    """Prints the table of questions, the reasons for every no, and the parts that can go and those that cannot."""
    size = (
        "multiply-adds not counted" if preflight.macs is None else f"{preflight.macs:,} multiply-adds for one example"
    )
    console.line(f"{preflight.model}: {preflight.num_params:,} parameters, {size}")
    rows = [
        [QUESTIONS[answer.question].format(batch_size=preflight.batch_size), _short(answer, preflight)]
        for answer in preflight.answers
    ]
    console.table("", ["question", "answer"], rows)
    for answer in preflight.answers:
        if answer.reason:
            console.line()
            console.line(f"{QUESTIONS[answer.question].format(batch_size=preflight.batch_size)} {answer.answer}:")
            console.line(f"  {answer.reason}")
        if answer.change:
            console.line(f"  To change: {answer.change}")
    for title, parts in (
        ("blocks that can be dropped", preflight.blocks),
        ("channels that can be cut", preflight.channels),
    ):
        for line in _parts(title, parts):
            console.line(line)


def one_line_of(preflight: Preflight) -> str:
    """Returns all answers in one line, as a run prints them."""
    answers = [f"{answer.question.replace('_', ' ')}: {_short(answer, preflight)}" for answer in preflight.answers]
    return f"preflight: {', '.join(answers)}"


def refusal_of(answers: Iterable[Answer], batch_size: int) -> str:
    """Returns the sentences with which a run is refused before any work."""
    return "\n".join(
        f"{QUESTIONS[answer.question].format(batch_size=batch_size)} No: {answer.reason}. To change: {answer.change}"
        for answer in answers
    )


def _short(answer: Answer, preflight: Preflight) -> str:
    parts = {"blocks": preflight.blocks, "channels": preflight.channels}.get(answer.question)
    if parts is None or answer.answer != "yes":
        return answer.answer
    count = sum(part.can_go for part in parts)
    noun = "block" if answer.question == "blocks" else "group"
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _parts(title: str, parts: tuple[PartVerdict, ...]) -> Iterator[str]:
    if any(part.can_go for part in parts):
        yield ""
        yield f"{title}:"
        for kind in dict.fromkeys(part.kind for part in parts if part.can_go):
            of_kind = [part for part in parts if part.can_go and part.kind == kind]
            names = [part.name if part.units is None else f"{part.name} ({part.units})" for part in of_kind]
            yield f"  {KINDS[kind]}: {_listed(names)}" if kind in KINDS else f"  {_listed(names)}"
    refused: dict[tuple[str, str], list[str]] = {}
    for part in parts:
        if not part.can_go:
            refused.setdefault((part.reason, part.change), []).append(part.name)
    if refused:
        yield ""
        yield f"not among the {title}:"
    for (reason, change), names in refused.items():
        yield f"  {_listed(names)}: {reason}"
        yield f"    To change: {change}"


def _listed(names: list[str]) -> str:
    more = len(names) - MOST_NAMES
    return ", ".join(names) if more <= 1 else f"{', '.join(names[:MOST_NAMES])} and {more} more"


def in_a_list(name: str, reason: str) -> str:
    """Returns the reason without the name, so that it can follow a list of names that share it."""
    rest = reason.removeprefix(f"{name} ")
    return f"it {rest}" if rest.startswith(("is ", "computes ")) else rest
