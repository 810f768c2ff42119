"""Puts the questions of a preflight to a model. Each is tried for real, and what is raised becomes the reason."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from toolkit.base.errors import UserError
from toolkit.base.raised import with_place
from toolkit.blocks.find import find_blocks
from toolkit.blocks.why_not import why_not_blocks
from toolkit.channels.find import find_groups
from toolkit.checkpoint.load import load_model
from toolkit.checkpoint.save import save_model
from toolkit.hooks.modes import evaluating, without_fast_path
from toolkit.hooks.tensors import tensors_in
from toolkit.measure.macs import count_macs
from toolkit.preflight.remedies import REMEDIES, block_remedy, channel_remedy
from toolkit.preflight.report import Answer, PartVerdict, Preflight, Question
from toolkit.preflight.words import QUESTIONS
from toolkit.stages.context import to_device
from toolkit.tasks.task import Batch, Task

SEVERAL = 2

PARTS: Final[tuple[Question, ...]] = ("blocks", "channels")

CLOSE = 1e-4  # of the largest number: how far a saved model's outputs may be from the model's


def preflight_of(
    task: Task,
    model: nn.Module | None = None,
    *,
    name: str | None = None,
    parts: Collection[Question] = PARTS,
) -> Preflight:
    """Tries out what can be done with a task's model, in seconds. The model is left as it was.

    model: the one to look at; None is the task's trained, unmodified one.
    name: what it is called in the report; None is the task's name.
    parts: which of blocks and channels are looked for.

    Raises:
        UserError: the task gives no model.
    """
    if model is None:
        model = task.load_baseline()
    look = _Look(task, model)
    with torch.random.fork_rng(devices=[]):
        look.whole()
        blocks = look.blocks() if "blocks" in parts or "channels" in parts else ()
        channels = look.channels([part.name for part in blocks if part.can_go]) if "channels" in parts else ()
    return Preflight(
        model=name or task.name,
        num_params=sum(parameter.numel() for parameter in model.parameters()),
        macs=look.macs,
        batch_size=SEVERAL,
        answers=tuple(one for one in look.answers.values() if one.question not in PARTS or one.question in parts),
        blocks=blocks if "blocks" in parts else (),
        channels=channels,
    )


class _RefusedError(Exception):
    """The answer is no; the message is the reason."""


@dataclass
class _Look:
    """One preflight in progress. `copy` is what is tried out where the model could be changed by it."""

    task: Task
    model: nn.Module
    answers: dict[Question, Answer] = field(default_factory=dict)
    macs: int | None = None
    copy: nn.Module | None = None

    def whole(self) -> None:
        """The questions about the model as a whole, in the order in which they are told."""
        self.ask("one_example", self._runs_once)
        self.ask("several_examples", self._runs_on_several, after=("one_example",))
        self.ask("repeats", self._repeats, after=("one_example",))
        self.ask("copies", self._copies, after=("one_example",))
        self.ask("trains", self._trains, after=("copies",))
        self.ask("saves", self._saves, after=("copies", "repeats"))
        self.ask("counts", self._counts, after=("one_example",))

    def ask(self, question: Question, work: Callable[[], None], after: tuple[Question, ...] = ()) -> None:
        """Notes the answer. `after`: questions that must have a yes before this one can be tried."""
        for earlier in after:
            if self.answers[earlier].answer != "yes":
                reason = f"it waits for a yes to: {QUESTIONS[earlier].format(batch_size=SEVERAL)}"
                self.answers[question] = Answer(question=question, answer="not tried", reason=reason)
                return
        change = REMEDIES.get(question, "")
        try:
            work()
        except (_RefusedError, UserError) as error:
            change = "" if question in PARTS else change  # the parts say it, each for itself
            self.answers[question] = Answer(question=question, answer="no", reason=str(error), change=change)
        except Exception as error:  # whatever the user's code raises
            self.answers[question] = Answer(question=question, answer="no", reason=with_place(error), change=change)
        else:
            self.answers[question] = Answer(question=question, answer="yes")

    def blocks(self) -> tuple[PartVerdict, ...]:
        found: list[PartVerdict] = []

        def work() -> None:
            model, inputs = self._to_try(), self._inputs(1)
            names = find_blocks(model, inputs)
            found.extend(PartVerdict(name=name, can_go=True, kind="block") for name in names)
            for name, reason in why_not_blocks(model, inputs, names).items():
                found.append(_refused(name, reason, block_remedy(reason)))
            if not names:
                raise _RefusedError(
                    "no module adds its work to a stream that leads around it (x + f(x)) and keeps the stream's shape"
                )

        self.ask("blocks", work, after=("one_example", "copies"))
        return tuple(found)

    def channels(self, blocks: list[str]) -> tuple[PartVerdict, ...]:
        found: list[PartVerdict] = []

        def work() -> None:
            structure = find_groups(self._to_try(), self._inputs(1), blocks, self.task.protected)
            for group in structure.groups:
                found.append(PartVerdict(name=group.name, can_go=True, kind=group.kind, units=group.num_units))
            for name, reason in structure.refused.items():
                found.append(_refused(name, _sentence(name, reason), channel_remedy(reason)))
            if not structure.groups:
                raise _RefusedError("no layer has channels of its own that could go without changing another's")

        self.ask("channels", work, after=("one_example", "repeats", "copies"))
        return tuple(found)

    def _inputs(self, size: int) -> tuple[Tensor, ...]:
        inputs = self.task.example_inputs(size)
        if not isinstance(inputs, tuple) or not inputs or not all(isinstance(part, Tensor) for part in inputs):
            raise _RefusedError(f"the task's example_inputs({size}) must give a tuple of tensors")
        wrong = [tuple(part.shape) for part in inputs if part.ndim == 0 or len(part) != size]
        if wrong:
            raise _RefusedError(f"the task's example_inputs({size}) gives {wrong[0]} instead of {size} examples first")
        device = next((part.device for part in self.model.parameters()), torch.device("cpu"))
        return tuple(part.to(device) for part in inputs)

    def _run(self, model: nn.Module, size: int) -> list[Tensor]:
        inputs = self._inputs(size)
        with evaluating(model), without_fast_path(), torch.no_grad():
            outputs = [part.clone() for part in tensors_in(model(*(part.clone() for part in inputs)))]
        if not outputs:
            raise _RefusedError("its output holds no tensor")
        if not all(bool(part.isfinite().all()) for part in outputs):
            raise _RefusedError("its output holds numbers that are not finite")
        return outputs

    def _runs_once(self) -> None:
        self._run(self.model, 1)

    def _runs_on_several(self) -> None:
        self._run(self.model, SEVERAL)

    def _repeats(self) -> None:
        _check_same(self._run(self.model, 1), self._run(self.model, 1), "the second time", close=0.0)

    def _copies(self) -> None:
        made = copy.deepcopy(self.model)
        _check_same(self._run(self.model, 1), self._run(made, 1), "by the copy", close=CLOSE)
        self.copy = made

    def _to_try(self) -> nn.Module:
        assert self.copy is not None
        return self.copy

    def _trains(self) -> None:
        model = copy.deepcopy(self._to_try()).train().requires_grad_(True)
        device = next((part.device for part in model.parameters()), torch.device("cpu"))
        batch: Batch = next(iter(self.task.train_batches(SEVERAL, 0)))
        with torch.enable_grad():
            batch = to_device(batch, device)
            outputs = model(*batch.inputs)
            loss = self.task.loss(outputs, batch.targets)
            if loss.ndim or not bool(loss.isfinite()):
                raise _RefusedError(f"the loss of the task must be one finite number, and is {loss.tolist()}")
            if not loss.requires_grad:
                raise _RefusedError("no gradient leads from the loss to a parameter")
            loss.backward()  # type: ignore[no-untyped-call]
        if not any(parameter.grad is not None for parameter in model.parameters()):
            raise _RefusedError("no gradient leads from the loss to a parameter")

    def _saves(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "model"
            try:
                save_model(
                    place,
                    self._to_try(),
                    self.task.load_baseline(),
                    factory={"task": self.task.name},
                    example_inputs=self._inputs(1),
                    recipe_sha256=None,
                )
                loaded = load_model(place, self.task.build_model())
            except UserError as error:  # the folder is gone when this is read
                raise _RefusedError(str(error).replace(f"{place}/", "").replace(f"{place}: ", "")) from error
        device = next((part.device for part in self.model.parameters()), torch.device("cpu"))
        _check_same(self._run(self.model, 1), self._run(loaded.to(device), 1), "by the loaded model", close=CLOSE)

    def _counts(self) -> None:
        self.macs = count_macs(self.model, self._inputs(1)).total


def _check_same(first: list[Tensor], second: list[Tensor], whose: str, close: float) -> None:
    if [part.shape for part in first] != [part.shape for part in second]:
        raise _RefusedError(f"the outputs have other shapes {whose}: {[tuple(part.shape) for part in second]}")
    for one, other in zip(first, second, strict=True):
        if one.numel() == 0 or torch.equal(one, other):
            continue
        off = float((one.double() - other.double()).abs().max())
        if off > close * float(one.double().abs().max()):
            raise _RefusedError(f"the outputs are others {whose}: off by up to {off:.3g}")


def _sentence(name: str, reason: str) -> str:
    """Returns the reason so that it can be read behind a list of names that share it."""
    told = reason.removeprefix(f"{name} ")
    return f"it {told}" if told.startswith(("is ", "computes ")) else told


def _refused(name: str, reason: str, change: str) -> PartVerdict:
    return PartVerdict(name=name, can_go=False, reason=reason, change=change)
