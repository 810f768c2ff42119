"""A run is of the model that it was begun with: its weights, its frozen parameters, and what it takes and can count."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reports.comparison.runs import costs_of, load_runs
from reports.drawing.words import macs_words
from reports.run.closing import closing_table
from reports.run.page import write_page
from tests.helpers.tiny_task import TinyTask
from toolkit import (
    Align,
    BlockDrop,
    Budget,
    ChannelPrune,
    ClassificationTask,
    Keep,
    Limit,
    Measure,
    PlanSettings,
    Recover,
    TorchPruning,
    load_model,
    load_record,
    open_session,
    overview,
    run,
)
from toolkit.base.console import Console
from toolkit.base.errors import PlanError, RecordError, StageError, UserError
from toolkit.recipe.recipe import Recipe
from toolkit.record.run import RunRecord

DROP = BlockDrop(blocks=("body.0",))
FIT = Recover(max_steps=2, validate_every=2, batch_size=8, warmup_steps=0, select="last")

DROP_BY_LOSS, FIT_TO_LABELS = (
    BlockDrop(num_blocks=1, criterion="loss"),
    FIT.model_copy(update={"alignment_weight": 0.0}),
)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(torch.relu(self.up(x)))


class Net(nn.Module):
    """Three blocks; `first` stands before them."""

    def __init__(self, first: nn.Module | None = None) -> None:
        super().__init__()
        self.first = first or nn.Identity()
        self.body, self.head = nn.Sequential(Block(), Block(), Block()), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.first(x)))


def data(seed: int = 0) -> dict[str, tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    counts = {"train": 48, "validation": 16, "test": 17}
    return {
        name: (torch.randn(count, 8, generator=generator), torch.arange(count) % 4) for name, count in counts.items()
    }


def task_of(trained: nn.Module, build: Callable[[], nn.Module] = Net, seed: int = 0) -> ClassificationTask:
    return ClassificationTask(build, trained, **data(seed), name="own")  # type: ignore[arg-type]


def recipe_of(*stages: Any, batch_size: int = 1) -> Recipe:
    measure = Measure(batch_sizes=(batch_size,), threads=1, repeats=3, warmup=0)
    return Recipe(name="r", task="own", seed=0, device="cpu", stages=stages, measure=measure)


def go(task: Any, out: Path, *stages: Any, batch_size: int = 1, **more: Any) -> tuple[RunRecord, str]:
    said = io.StringIO()
    record = run(recipe_of(*stages, batch_size=batch_size), task=task, out=out, console=Console(said), **more)
    return record, said.getvalue()


class Shifted(nn.Module):
    """Holds a shift that is in no state_dict."""

    def __init__(self, shift: float = 0.0) -> None:
        super().__init__()
        self.shift: Tensor
        self.register_buffer("shift", torch.tensor(shift), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.shift


def test_a_run_goes_on_with_its_own_baseline_alone(tmp_path: Path) -> None:
    first = Net()
    record, _ = go(task_of(first), tmp_path, DROP)
    assert set(record.baseline.detail) == {"baseline_sha256", "inputs_sha256"}
    assert go(task_of(first), tmp_path, DROP, resume=True)[0] == record
    with pytest.raises(RecordError, match=r"run\.json was begun with other weights"):
        go(task_of(Net()), tmp_path, DROP, resume=True)
    with pytest.raises(RecordError, match="was begun with other example inputs"):
        go(task_of(first, seed=1), tmp_path, DROP, resume=True)
    shifted = Net(Shifted(0.5))
    shifted.load_state_dict(first.state_dict())
    with pytest.raises(RecordError, match="was begun with other weights"):
        go(task_of(shifted, lambda: Net(Shifted(0.5))), tmp_path, DROP, resume=True)


def test_a_run_that_was_stopped_refuses_another_baseline_too(tmp_path: Path) -> None:
    record, _ = go(task_of(Net()), tmp_path, DROP)
    record.model_copy(update={"finished": False, "steps": record.steps[:1]}).save(tmp_path)
    with pytest.raises(RecordError, match="was begun with other weights"):
        go(task_of(Net()), tmp_path, DROP, resume=True)


def test_a_record_of_an_earlier_version_says_nothing_of_its_baseline(tmp_path: Path) -> None:
    trained = Net()
    record, _ = go(task_of(trained), tmp_path, DROP)
    content = json.loads((tmp_path / "run.json").read_text())
    content["steps"][0]["detail"] = {}
    for step in content["steps"]:
        del step["measurement"]["macs"]["unknown"]
    (tmp_path / "run.json").write_text(json.dumps(content))
    resumed, _ = go(task_of(Net()), tmp_path, DROP, resume=True)
    assert resumed.steps[1] == record.steps[1]


ALIGN = Align(max_steps=2, validate_every=2, batch_size=8, warmup_steps=0, select="last")

FROZEN: dict[str, tuple[Any, ...]] = {
    "recover": (FIT,),
    "drop and recover": (DROP, FIT),
    "prune and recover": (ChannelPrune(keep=Keep(mlp=0.5), round_to=1, repair="none"), FIT),
    "align all": (ALIGN.model_copy(update={"trainable": "full"}),),
    "align adapters": (ALIGN.model_copy(update={"targets": ("up", "down"), "feature_weight": 1.0}),),
    "torch-pruning and recover": (
        TorchPruning(macs_ratio=0.7, round_to=1, macs_tolerance=0.1, exclude=("*.down",)),
        FIT,
    ),
}


@pytest.mark.parametrize("kind", FROZEN)
def test_what_the_trained_model_has_frozen_is_not_trained(kind: str, tmp_path: Path) -> None:
    trained = Net()
    trained.body[1].requires_grad_(False)
    trained.head.bias.requires_grad_(False)
    go(task_of(trained), tmp_path, *FROZEN[kind])
    model = load_model(tmp_path, Net())
    for name, value in trained.state_dict().items():
        now = model.state_dict().get(name)
        if name.startswith("body.1.") or name == "head.bias":
            assert now is not None
            kept = {tuple(row) for row in value.reshape(len(value), -1).tolist()}
            is_cut = now.shape != value.shape
            assert is_cut or torch.equal(now, value), name
            assert (
                not is_cut
                or "weight" not in name
                or now.shape[1] != value.shape[1]
                or {tuple(row) for row in now.tolist()} <= kept
            )
    free = "body.2.up.weight"
    assert model.state_dict()[free].shape != trained.state_dict()[free].shape or not torch.equal(
        model.state_dict()[free], trained.state_dict()[free]
    )


def test_frozen_parameters_stay_frozen_over_a_stop(tmp_path: Path) -> None:
    trained = Net()
    trained.body[2].requires_grad_(False)
    task = task_of(trained)
    record, _ = go(task, tmp_path, DROP, FIT)
    record.model_copy(update={"finished": False, "steps": record.steps[:2]}).save(tmp_path)
    again, _ = go(task, tmp_path, DROP, FIT, resume=True)
    assert again.steps[2].detail == record.steps[2].detail
    model = load_model(tmp_path, Net())
    assert torch.equal(model.body[2].up.weight, trained.body[2].up.weight)
    assert not torch.equal(model.body[1].up.weight, trained.body[1].up.weight)


def test_nothing_to_train(tmp_path: Path) -> None:
    trained = Net().requires_grad_(False)
    with pytest.raises(StageError, match=r"recover: there is nothing to train: all parameters of the model are frozen"):
        go(task_of(trained), tmp_path / "all", FIT)
    adapters = FROZEN["align adapters"]
    with pytest.raises(StageError, match="match no linear layer inside the model's blocks that is not frozen"):
        go(task_of(trained), tmp_path / "align", *adapters)


class Detached(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).detach()


class Norms(Net):
    def __init__(self) -> None:
        super().__init__(nn.BatchNorm1d(8))


class Failing(Net):
    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            raise KeyError("teacher")
        return super().forward(x)


@pytest.mark.parametrize(
    ("build", "batch_size", "message"),
    [
        (Detached, 8, "does not depend on any parameter that is trained"),
        (Norms, 1, r"a training step on 1 example fails: ValueError: .*more than 1 value .*raise batch_size"),
        (Failing, 8, r"a training step on 2 examples fails: KeyError: 'teacher' \(in forward, test_bound"),
    ],
)
def test_training_that_cannot_be(build: Callable[[], nn.Module], batch_size: int, message: str, tmp_path: Path) -> None:
    fit = FIT.model_copy(update={"batch_size": batch_size})
    with pytest.raises(UserError, match=message):  # the preflight tries two examples, the stage as many as it is told
        go(task_of(build(), build), tmp_path, fit)


class Own(TinyTask):
    """A task of a user's own, with one thing that is wrong."""

    name = "own"


def test_a_task_of_ones_own_is_tried_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(Shifted):
        def forward(self, x: Tensor) -> Tensor:
            return model.head(x.mean(1)[:, :1].expand(-1, 16) + self.shift)

    def missing() -> None:
        raise FileNotFoundError("net.pt")

    task = Own(train_steps=0)
    model = task.load_baseline()
    wrong: dict[str, tuple[str, Callable[..., Any]]] = {
        r"gives a tensor of shape \[1, 12, 5\]": ("example_inputs", lambda n: torch.ones(n, 12, 5)),
        r"gives a dict with the keys x; it must be a tuple": ("example_inputs", lambda n: {"x": torch.ones(n)}),
        r"example_inputs of task 'own' fails: ZeroDivisionError": ("example_inputs", lambda n: n / 0),
        r"the model does not run on 1 example .*shapes": ("example_inputs", lambda n: (torch.ones(n, 12, 6),)),
        r"load_baseline of task 'own' fails: FileNotFoundError: net": ("load_baseline", missing),
        r"load_baseline of task 'own' gives an? \w*[dD]ict with the keys": ("load_baseline", model.state_dict),
        r"build_model of task 'own' fails: TypeError": ("build_model", nn.Linear),
        r"build_model of task 'own' gives None": ("build_model", lambda: None),
        r"what load_baseline of task 'own' gives do not fit what build_model": ("build_model", lambda: nn.Linear(2, 2)),
        r"Likely cause: buffers .*persistent=False\): shift": ("load_baseline", lambda: Other(0.5).eval()),
    }
    for message, (method, answer) in wrong.items():
        with monkeypatch.context() as patch:
            patch.setattr(task, method, answer)
            if method == "build_model":
                patch.setattr(task, "load_baseline", lambda: model)
            elif "shift" in message:
                patch.setattr(task, "build_model", Other)
            with pytest.raises(UserError, match=message):
                run(recipe_of(DROP), task=task, out=tmp_path / "run")
            assert not list((tmp_path / "run").iterdir())


def only_scores_wrong(answer: Callable[[], Any]) -> Callable[..., Any]:
    """The batches of a tiny task, but for those of the split `score`."""
    return lambda split, size, *, limit=None: (
        answer() if split == "score" else TinyTask(train_steps=0).batches(split, size, limit=limit)
    )


WRONG_METHODS: dict[str, tuple[str, Callable[..., Any], Any]] = {
    r"batches of task 'own' gives a tuple of 2 parts": ("batches", only_scores_wrong(lambda: [(1, 2)]), DROP_BY_LOSS),
    r"batches of task 'own' fails on 'score': KeyError": ("batches", only_scores_wrong(lambda: {}["x"]), DROP_BY_LOSS),
    r"the loss of the task fails: ZeroDivisionError": ("loss", lambda *_: 1 / 0, DROP_BY_LOSS),
    r"the training loss is a tensor of shape \[3\]": ("loss", lambda o, t: o.mean((0, 1)), FIT_TO_LABELS),
    r"the training batches cannot be made: ZeroDivisionError": (
        "train_batches",
        lambda *_: (n / 0 for n in [1]),
        FIT,
    ),
    r"evaluate gives a float; it must return": ("evaluate", lambda *_, **__: 0.5, FIT),
}


@pytest.mark.parametrize("message", WRONG_METHODS)
def test_a_method_of_ones_own_task_that_is_wrong(message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method, answer, stage = WRONG_METHODS[message]
    task = Own(train_steps=0)
    monkeypatch.setattr(task, method, answer)
    with pytest.raises(UserError, match=message):
        go(task, tmp_path, stage)


def test_a_model_that_needs_two_examples_goes_through(tmp_path: Path) -> None:
    """torch refuses to normalise one example by its own statistics; 17 test examples leave none alone."""

    def build() -> nn.Module:
        return Net(nn.BatchNorm1d(8, affine=False, track_running_stats=False))

    task = task_of(build(), build)
    with pytest.raises(UserError, match=r"measure\.batch_sizes: 1 is too few: the model takes at least 2 examples"):
        go(task, tmp_path / "one", DROP)
    prune = ChannelPrune(macs_ratio=0.6, round_to=1, macs_tolerance=0.05)
    record, _ = go(task, tmp_path / "two", DROP, prune, FIT, batch_size=2)
    assert record.finished
    assert record.baseline.measurement.macs.total == 3 * 2 * 8 * 16 + 8 * 4  # of one example


@torch.library.custom_op("made_up::mix", mutates_args=())
def mix(x: Tensor) -> Tensor:
    return x @ x.new_ones(8, 8)


class Mixing(nn.Module):
    """An operator of the user's own, which has no count and no gradient."""

    def forward(self, x: Tensor) -> Tensor:
        return mix(x)


def build_mixing() -> nn.Module:
    return Net(Mixing())


@pytest.fixture(scope="module")
def partial(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The run of a model whose multiply-adds are a partial count."""
    out = tmp_path_factory.mktemp("partial") / "run"
    torch.manual_seed(0)
    said = go(task_of(build_mixing(), build_mixing), out, BlockDrop(num_blocks=1), ChannelPrune(keep=Keep(mlp=0.5)))[1]
    return out, said


def test_a_partial_count_says_so_and_gives_no_ratio(partial: tuple[Path, str]) -> None:
    out, said = partial
    record = load_record(out)
    assert record.baseline.measurement.macs.unknown == {"made_up::mix": 1}
    assert "the count of MACs is partial" in said and "of the dense MACs" not in said
    assert record.steps[1].detail["macs_ratio"] is None
    columns, rows = closing_table(record)
    assert [row[columns.index("MACs")] for row in rows] == [macs_words(s.measurement.macs) for s in record.steps]
    assert all(row[columns.index("MACs")].endswith("(partial count)") for row in rows)
    page = write_page(out).read_text()
    assert "made_up::mix (1 calls) may be heavy and have no count" in page
    assert [cost.key for cost in costs_of(record.baseline.measurement)] == ["params_ratio", "latency_ratio_cpu_batch1"]
    assert load_runs([out], "test")[0].record == record


def test_a_target_in_multiply_adds_needs_a_full_count(tmp_path: Path) -> None:
    torch.manual_seed(0)
    task = task_of(build_mixing(), build_mixing)
    for stage in (BlockDrop(macs_ratio=0.6), ChannelPrune(macs_ratio=0.6), TorchPruning(macs_ratio=0.6)):
        with pytest.raises(StageError, match=r"macs_ratio needs a full count .* partial: made_up::mix") as caught:
            go(task, tmp_path / stage.type, DROP, stage)
        assert caught.value.stage_index == 1 and not list((tmp_path / stage.type).iterdir())


def test_plans_and_overviews_of_a_partial_count(tmp_path: Path) -> None:
    torch.manual_seed(0)
    task = task_of(build_mixing(), build_mixing)
    session = open_session(task, PlanSettings(tables=tmp_path), console=Console(io.StringIO()))
    with pytest.raises(PlanError, match=r"macs=0\.6: a budget in multiply-adds needs a full count"):
        session.plan(Budget(limits=(Limit(resource="macs", value=0.6),)), "depth")
    found = overview(task.load_baseline(), task.example_inputs(1))
    assert found.partial == {"made_up::mix": 1} and {block.macs_share for block in found.blocks} == {None}
    with pytest.raises(UserError, match="the model does not run on 1 example"):
        overview(task.load_baseline(), (torch.ones(1, 3),))


class Products(nn.Module):
    """x * weight: nothing to count."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.weight)[:, :4]


def test_a_model_without_products_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no matrix product and no convolution"):
        go(task_of(Products(), Products), tmp_path, DROP)
