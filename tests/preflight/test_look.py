"""The preflight: every question is tried for real, and a no has its reason and what would have to change."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.any_task import AnyTask, images, token_ids
from tests.helpers.tiny_task import TinyTask
from toolkit import run
from toolkit.base.console import Console
from toolkit.base.errors import UserError
from toolkit.base.files import content_sha256
from toolkit.blocks.find import look_for_blocks
from toolkit.preflight import look
from toolkit.preflight.look import preflight_of
from toolkit.preflight.report import Answer, Preflight, Question
from toolkit.preflight.words import QUESTIONS, show_preflight
from toolkit.recipe.recipe import Measure, Recipe
from toolkit.stages.block_drop.settings import BlockDrop
from toolkit.stages.channel_prune.settings import ChannelPrune, Keep
from toolkit.stages.recover.settings import Recover


def signals(size: int) -> tuple[Tensor, ...]:
    return (torch.linspace(-1, 1, size * 8).reshape(size, 8),)


class Plain(nn.Module):
    """x + f(x), twice, and a head; the situations below change one thing of it."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 8))
        self.two = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 8))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Any:
        x = x + self.one(x)
        return self.head(x + self.two(x))


class OfOneExample(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.reshape(1, 8))


class OfTwoExamples(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.reshape(2, 8))


class Noisy(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.rand(())


class Remembering(Plain):
    """Every call adds to what it gives."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x) + self.calls


class WithALock(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


class OtherCopies(Plain):
    """A copy is another model."""

    def __deepcopy__(self, memo: Any) -> nn.Module:
        return Plain()


class WithoutTensor(Plain):
    def forward(self, x: Tensor) -> float:
        return float(super().forward(x).sum())


class NotFinite(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / 0.0


class WantsTargets(Plain):
    def forward(self, x: Tensor, targets: Tensor | None = None) -> Tensor:
        if self.training and targets is None:
            raise ValueError("In training mode, targets should be passed")
        return super().forward(x)


class Detached(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).detach()


# what is asked, the answer "no" and words of its reason and of its remedy
SITUATIONS: dict[str, tuple[Callable[[], nn.Module], Question, str, str]] = {
    "a batch size of 1 in the code": (OfOneExample, "several_examples", "shape '[1, 8]' is invalid", "reshape(1, ...)"),
    "a batch size of 2 in the code": (OfTwoExamples, "one_example", "shape '[2, 8]' is invalid", "example_inputs"),
    "dropout in eval mode": (Noisy, "repeats", "draws random numbers", "F.dropout without training"),
    "a counter in the output": (
        Remembering,
        "repeats",
        "keeps something from pass",
        "from one call to the next",
    ),
    "a lock": (WithALock, "copies", "cannot pickle '_thread.lock'", "a lock"),
    "a copy of its own making": (OtherCopies, "copies", "by the copy", "keep nothing"),
    "no tensor in the output": (
        WithoutTensor,
        "one_example",
        "in which there is no tensor",
        "return finite numbers in a tensor",
    ),
    "infinite numbers": (NotFinite, "one_example", "not finite", "return finite numbers"),
    "targets in training mode": (
        WantsTargets,
        "trains",
        "should be passed (in forward, test_look.py:",
        "train_batches",
    ),
    "outputs without gradient": (Detached, "trains", "does not depend on any parameter", "in training mode"),
}


def asked(found: Preflight, question: Question) -> Answer:
    return next(answer for answer in found.answers if answer.question == question)


def printed(found: Preflight) -> str:
    stream = io.StringIO()
    show_preflight(found, Console(stream))
    return stream.getvalue()


@pytest.mark.parametrize("situation", SITUATIONS)
def test_one_thing_is_in_the_way(situation: str) -> None:
    build, question, reason, remedy = SITUATIONS[situation]

    class Situation(AnyTask):
        def train_batches(self, *_: Any) -> Any:
            yield from iter([next(AnyTask(Plain, signals).train_batches(2, 0))])

    found = preflight_of(Situation(build, signals))
    assert found.noes()[0].question == question
    answer = asked(found, question)
    assert reason in answer.reason and remedy in answer.change
    text = printed(found)
    assert f"{QUESTIONS[question].format(batch_size=2)} no:" in text and f"To change: {answer.change}" in text
    assert "Traceback" not in text and str(Path.cwd()) not in text


def test_nothing_is_in_the_way(tiny_task: TinyTask) -> None:
    model = tiny_task.load_baseline()
    before = content_sha256([value.tolist() for value in model.state_dict().values()])
    modes = [module.training for module in model.modules()]
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    found = preflight_of(tiny_task, model)
    assert torch.equal(torch.rand(1), expected), "the caller's random numbers are others"
    assert {answer.answer for answer in found.answers} == {"yes"} and not found.in_the_way(trains=True)
    assert [part.name for part in found.blocks if part.can_go] == [f"blocks.{place}" for place in range(4)]
    assert {part.kind for part in found.channels if part.can_go} >= {"mlp", "attention"}
    protected = [part for part in found.channels if "protected" in part.reason]
    assert [part.name for part in protected] == ["embed"] and "`protected`" in protected[0].change
    assert content_sha256([value.tolist() for value in model.state_dict().values()]) == before
    assert [module.training for module in model.modules()] == modes
    assert all(not vars(module).get("residual_block_end") for module in model.modules())
    assert Preflight.model_validate_json(found.model_dump_json()) == found


def test_weights_that_build_model_does_not_build_cannot_be_loaded_again() -> None:
    class Grown(AnyTask):
        def load_baseline(self) -> nn.Module:
            model = super().load_baseline()
            model.late = nn.Linear(2, 2)
            return model

    answer = asked(preflight_of(Grown(Plain, signals)), "saves")
    assert answer.answer == "no" and "late" in answer.reason and "/tmp" not in answer.reason
    assert "build_model build the modules" in answer.change


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        (lambda size: torch.zeros(size, 8), "must be a tuple of tensors"),
        (lambda size: (), "must be a tuple of tensors"),
        (lambda size: (torch.zeros(3, 8),), "gives shape (3, 8); its first size must be 1"),
        (lambda size: (torch.tensor(1.0),), "gives shape (); its first size must be 1"),
    ],
)
def test_example_inputs_that_are_none(inputs: Callable[[int], Any], reason: str) -> None:
    task = AnyTask(Plain, signals)
    task.example_inputs = inputs
    found = preflight_of(task)
    assert reason in asked(found, "one_example").reason
    assert {answer.answer for answer in found.answers} == {"no", "not tried"}
    assert "it waits for a yes to: Does it run on one example?" in printed(found)


def test_a_model_that_cannot_be_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def uncounted(*_: object) -> None:
        raise UserError("the multiply-adds of this model cannot be counted: aten::strange (1 calls)")

    monkeypatch.setattr(look, "count_macs", uncounted)
    found = preflight_of(AnyTask(Plain, signals))
    assert found.macs is None and "aten::strange" in asked(found, "counts").reason
    assert found.in_the_way() == [], "only a target in multiply-adds needs a count"
    assert "multiply-adds not counted" in printed(found)


class Tagger(nn.Module):
    """Token ids -> a tag for every token."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.lstm = nn.Embedding(50, 8), nn.LSTM(8, 6, batch_first=True, bidirectional=True)
        self.tags = nn.Linear(12, 4)

    def forward(self, ids: Tensor) -> Tensor:
        return self.tags(self.lstm(self.embed(ids))[0])


class Experts(nn.Module):
    """Every token goes to the expert that its router says: which layers run depends on the values."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(8, 4)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8)) for _ in range(4))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        chosen, out = self.router(x).argmax(-1), torch.zeros_like(x)
        for place, expert in enumerate(self.experts):
            rows = chosen == place
            if rows.any():
                out[rows] = expert(x[rows])
        return self.head(x + out)


class Shapes(nn.Module):
    """Modules that are no blocks, each for its own reason."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.unused = self._pair(8, 8), self._pair(8, 8)
        self.wider, self.plain = self._pair(8, 6), self._pair(6, 6)

    def _pair(self, inputs: int, outputs: int) -> nn.Module:
        class Pair(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a, self.b = nn.Linear(inputs, 5), nn.Linear(5, outputs)

            def forward(self, x: Tensor) -> Tensor:
                return self.b(self.a(x).relu())

        return Pair()

    def forward(self, x: Tensor) -> Tensor:
        return self.plain(self.wider(self.shared(self.shared(x))))


def llama() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=2,
    )
    return transformers.LlamaForCausalLM(config)


@pytest.mark.parametrize(
    ("build", "inputs"),
    [
        (Tagger, token_ids),
        (Experts, signals),
        (llama, token_ids),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(3600, 2)), images),
        (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), lambda size: (torch.rand(size, 4, 8),)),
    ],
    ids=[
        "lstm tagger",
        "mixture of experts",
        "llama with 2 key heads",
        "no module of several layers",
        "fused encoder layer",
    ],
)
def test_unusual_models_get_answers_and_no_traceback(
    build: Callable[[], nn.Module], inputs: Callable[[int], Any]
) -> None:
    found = preflight_of(AnyTask(build, inputs))
    for answer in found.noes():
        assert answer.reason and (answer.change or answer.question in ("blocks", "channels"))
    for part in (*found.blocks, *found.channels):
        assert part.can_go or (part.reason and part.change)
    assert printed(found).count("\n") >= len(found.answers)


class Keeping(nn.Module):
    """A block that hands on more than its stream, which the model needs."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.up(x).relu()
        return x + self.down(hidden), hidden


class NeedsMore(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = Keeping(), nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.cat(self.first(x), -1))


def test_a_block_that_the_stage_refuses_is_refused_here_with_the_same_reason() -> None:
    task = AnyTask(NeedsMore, signals)
    reason = look_for_blocks(task.load_baseline().eval(), signals(1)).refused["first"]
    (verdict,) = preflight_of(task).blocks
    assert (verdict.name, verdict.can_go, verdict.reason) == ("first", False, reason)
    assert "returns more than its stream" in reason and "return the stream alone" in verdict.change


def test_every_module_that_is_no_block_has_its_reason() -> None:
    found = {part.name: part.reason for part in preflight_of(AnyTask(Shapes, signals)).blocks}
    assert found == {
        "shared": "it is called 2 times in one pass",
        "unused": "it is not run on the example input",
        "wider": "it changes the shape of the stream",
        "plain": "no sum of what it is given and its own work was found in it",
    }


MEASURE = Measure(batch_sizes=(1,), threads=1, repeats=3, warmup=0)


def recipe_of(task: str, *stages: Any) -> Recipe:
    return Recipe(name="r", task=task, seed=0, device="cpu", stages=stages, measure=MEASURE)


def test_a_run_begins_with_it_and_keeps_what_it_found(tiny_task: TinyTask, tmp_path: Path) -> None:
    stream = io.StringIO()
    recipe = recipe_of("tiny", BlockDrop(num_blocks=1, criterion="random"))
    run(recipe, task=tiny_task, out=tmp_path / "run", console=Console(stream))
    assert stream.getvalue().startswith("preflight: one example: yes, several examples: yes, repeats: yes")
    found = Preflight.model_validate_json((tmp_path / "run" / "preflight.json").read_bytes())
    assert len(found.blocks) == 4 and found.channels == (), "a depth recipe does not wait for the search of channels"
    wide = run(recipe_of("tiny", ChannelPrune(keep=Keep(mlp=0.5))), task=tiny_task, out=tmp_path / "wide")
    kept = json.loads((tmp_path / "wide" / "preflight.json").read_text())
    assert kept["channels"] and kept["blocks"] == [] and kept["macs"] == wide.baseline.measurement.macs.total


@pytest.mark.parametrize("situation", ["dropout in eval mode", "a lock", "a batch size of 1 in the code"])
def test_what_cannot_be_run_is_refused_before_any_work(situation: str, tmp_path: Path) -> None:
    build, _, reason, _ = SITUATIONS[situation]
    out = tmp_path / "run"
    with pytest.raises(UserError) as caught:
        run(recipe_of("any", ChannelPrune(keep=Keep(mlp=0.5))), task=AnyTask(build, signals), out=out)
    assert reason in str(caught.value)
    assert not any(out.iterdir()), "the same command runs once the model is mended"


def test_only_a_recipe_that_trains_needs_a_model_that_trains(tmp_path: Path) -> None:
    drop = BlockDrop(num_blocks=1, criterion="random", repair="none")

    class Two(WantsTargets):
        """Its blocks are modules."""

        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = (nn.TransformerEncoderLayer(8, 2, 8, 0.0, batch_first=True) for _ in range(2))

        def forward(self, x: Tensor, targets: Tensor | None = None) -> Tensor:
            if self.training and targets is None:
                raise ValueError("In training mode, targets should be passed")
            return self.head(self.two(self.one(x[:, None]))[:, 0])

    def task() -> AnyTask:
        return AnyTask(Two, signals)

    run(recipe_of("any", drop), task=task(), out=tmp_path / "cut")
    with pytest.raises(UserError, match=r"^Can it be trained.*targets should be passed"):
        run(recipe_of("any", drop, Recover(max_steps=1)), task=task(), out=tmp_path / "trained")
