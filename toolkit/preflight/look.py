"""Asks the questions of a preflight: each is tried for real, and an error becomes the reason for a no."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from toolkit.base.errors import UserError
from toolkit.base.raised import with_place
from toolkit.checkpoint.load import load_model
from toolkit.checkpoint.save import save_model
from toolkit.hooks.copies import copy_model
from toolkit.hooks.modes import all_trained, device_of, evaluating, without_fast_path
from toolkit.hooks.paths import Path as Pass
from toolkit.hooks.repeats import why_not_repeatable
from toolkit.hooks.routes import MOST_ALONE
from toolkit.hooks.tensors import tensors_in
from toolkit.hooks.trial import users_code
from toolkit.measure.macs import count_macs
from toolkit.preflight.difference import difference
from toolkit.preflight.parts import block_verdicts, channel_verdicts
from toolkit.preflight.remedies import REMEDIES
from toolkit.preflight.report import Answer, PartVerdict, Preflight, Question
from toolkit.preflight.words import QUESTIONS
from toolkit.stages.context import to_device
from toolkit.tasks.folded import folded_task
from toolkit.tasks.task import Batch, Task
from toolkit.tasks.trial import inputs_of, load_baseline, smallest_batch
from toolkit.tasks.ways import paths_of
from toolkit.training.step import training_step

SEVERAL = 2  # examples of the question `several_examples`

TRIED_STEPS = 2  # of training: a graph that is kept from pass to pass shows in the second

PARTS: Final[tuple[Question, ...]] = ("blocks", "channels")

CLOSE = 1e-4  # share of the largest output by which a saved model's outputs may differ from the model's


def preflight_of(
    task: Task,
    model: nn.Module | None = None,
    *,
    name: str | None = None,
    parts: Collection[Question] = PARTS,
) -> Preflight:
    """Tries out in seconds what can be done with a task's model, which is left as it was.

    model: the model to try; None is the task's trained, unmodified one.
    name: the name of the model in the report; None is the task's name.
    parts: the parts to search for, blocks, channels or both.

    Raises:
        UserError: the task gives no model.
    """
    if model is None:
        task, _ = folded_task(task)  # as every run does
        model = load_baseline(task)
    look = _Look(task, model)
    with torch.random.fork_rng(devices=[]):
        look.whole()
        blocks = look.blocks() if "blocks" in parts or "channels" in parts else ()
        channels = look.channels([part.name for part in blocks if part.can_go]) if "channels" in parts else ()
    left_out = set(PARTS) - set(parts)
    return Preflight(
        model=name or task.name,
        num_params=sum(parameter.numel() for parameter in model.parameters()),
        macs=look.macs,
        batch_size=SEVERAL,
        answers=tuple(answer for answer in look.answers.values() if answer.question not in left_out),
        blocks=blocks if "blocks" in parts else (),
        channels=channels,
    )


class _RefusedError(Exception):
    """Says that an answer is no; the message is the reason."""


@dataclass
class _Look:
    """Is one preflight in progress.

    macs: the multiply-adds of one example; None while they are not known.
    copy: a copy of the model, for trials that could change it; None while there is none.
    least: the smallest number of examples that the model takes per call.
    """

    task: Task
    model: nn.Module
    answers: dict[Question, Answer] = field(default_factory=dict)
    macs: int | None = None
    copy: nn.Module | None = None
    least: int = 1

    def whole(self) -> None:
        """Asks the questions about the model as a whole, in the order of the report."""
        self.ask("one_example", self._runs_once)
        self.ask("several_examples", self._runs_on_several, after=("one_example",))
        self.ask("repeats", self._repeats, after=("one_example",))
        self.ask("copies", self._copies, after=("one_example",))
        self.ask("trains", self._trains, after=("copies",))
        self.ask("saves", self._saves, after=("copies", "repeats"))
        self.ask("counts", self._counts, after=("one_example",))

    def ask(self, question: Question, work: Callable[[], None], after: tuple[Question, ...] = ()) -> None:
        """Tries `work` and notes the answer, where an error means no; questions of `after` must have a yes before."""
        for earlier in after:
            if self.answers[earlier].answer != "yes":
                reason = f"it waits for a yes to: {QUESTIONS[earlier].format(batch_size=SEVERAL)}"
                self.answers[question] = Answer(question=question, answer="not tried", reason=reason)
                return
        change = REMEDIES.get(question, "")
        try:
            work()
        except (_RefusedError, UserError) as error:
            change = "" if question in PARTS else change  # each part has its own remedy
            self.answers[question] = Answer(question=question, answer="no", reason=str(error), change=change)
        except torch.OutOfMemoryError:  # the run itself will say at which batch size memory is full
            self.answers[question] = Answer(question=question, answer="not tried", reason="memory is full")
        except Exception as error:  # the user's code may raise anything
            self.answers[question] = Answer(question=question, answer="no", reason=with_place(error), change=change)
        else:
            self.answers[question] = Answer(question=question, answer="yes")

    def blocks(self) -> tuple[PartVerdict, ...]:
        """Asks whether blocks can be dropped, and returns a verdict on each module that looks like a block."""
        verdicts: list[PartVerdict] = []

        def work() -> None:
            model = self._to_try()
            verdicts.extend(block_verdicts(model, *self._given_to(model)))
            if not any(verdict.can_go for verdict in verdicts):
                raise _RefusedError(
                    "no module adds its output to a stream that leads around it (x + f(x)) and keeps the stream's shape"
                )

        self.ask("blocks", work, after=("one_example", "copies"))
        return tuple(verdicts)

    def channels(self, blocks: list[str]) -> tuple[PartVerdict, ...]:
        """Asks whether channels can be cut, and returns a verdict on each group; `blocks` are those that can go."""
        verdicts: list[PartVerdict] = []

        def work() -> None:
            model = self._to_try()
            verdicts.extend(channel_verdicts(model, *self._given_to(model), blocks, self.task.protected))
            if not any(verdict.can_go for verdict in verdicts):
                raise _RefusedError("no layer has channels of its own that could go without changing another's")

        self.ask("channels", work, after=("one_example", "repeats", "copies"))
        return tuple(verdicts)

    def _given_to(self, model: nn.Module) -> tuple[tuple[Tensor, ...], tuple[Pass, ...], tuple[Tensor, ...]]:
        """Returns the inputs of drops and cuts, the other ways to run the model, and inputs of several examples."""
        others = paths_of(self.task, model, device_of(model)).taken[1:]
        return self._inputs(self.least), others, self._inputs(MOST_ALONE * self.least)

    def _inputs(self, size: int) -> tuple[Tensor, ...]:
        inputs = inputs_of(self.task, size)
        wrong = [tuple(part.shape) for part in inputs if part.ndim == 0 or len(part) != size]
        if wrong:
            raise _RefusedError(f"example_inputs({size}) gives shape {wrong[0]}; its first size must be {size}")
        return tuple(part.to(device_of(self.model)) for part in inputs)

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
        try:
            self._run(self.model, 1)
        except Exception:  # the user's code may raise anything
            self.least = smallest_batch(self.model, self._inputs)
            self._run(self.model, self.least)

    def _runs_on_several(self) -> None:
        self._run(self.model, max(SEVERAL, self.least + 1))

    def _now(self, model: nn.Module) -> list[Tensor]:
        return self._run(model, self.least)

    def _refuse(self, fault: str | None) -> None:
        if fault is not None:
            raise _RefusedError(fault)

    def _repeats(self) -> None:
        self._refuse(why_not_repeatable(self.model, Pass(self._inputs(self.least))))

    def _copies(self) -> None:
        model_copy = copy_model(self.model)
        self._refuse(difference(self._now(self.model), self._now(model_copy), "by the copy", CLOSE))
        self.copy = model_copy

    def _to_try(self) -> nn.Module:
        assert self.copy is not None
        return self.copy

    def _trains(self) -> None:
        model = all_trained(copy_model(self._to_try()))
        with users_code("the training batches cannot be made"):
            batches = list(itertools.islice(self.task.train_batches(SEVERAL, 0), TRIED_STEPS))
        still = torch.optim.AdamW(model.parameters(), lr=0.0)  # the kind of the stages: it takes no sparse gradients
        for batch in batches:
            with torch.enable_grad():
                training_step(model, to_device(batch, device_of(model)), self._loss, still, 1.0)

    def _loss(self, student: nn.Module, batch: Batch) -> Tensor:
        return self.task.loss(student(*batch.inputs), batch.targets)

    def _saves(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            saved_folder = Path(folder) / "model"
            try:
                save_model(
                    saved_folder,
                    self._to_try(),
                    self.task.load_baseline(),
                    factory={"task": self.task.name},
                    example_inputs=self._inputs(self.least),
                    recipe_sha256=None,
                )
                loaded = load_model(saved_folder, self.task.build_model())
            except UserError as error:  # the message must not name the folder, which is deleted
                raise _RefusedError(
                    str(error).replace(f"{saved_folder}/", "").replace(f"{saved_folder}: ", "")
                ) from error
        outputs = self._now(loaded.to(device_of(self.model)))
        self._refuse(difference(self._now(self.model), outputs, "by the loaded model", CLOSE))

    def _counts(self) -> None:
        counted = count_macs(self.model, self._inputs(self.least), self.least)
        self._refuse(counted.why_partial if counted.is_partial else None)
        self.macs = counted.total
