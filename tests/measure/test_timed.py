"""Runtimes and precisions: what runs is what the key names, is checked before it is timed, and leaves no trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from toolkit.base.errors import UserError
from toolkit.measure.peak_memory import MemoryCounter, counter_of, peak_bytes
from toolkit.measure.precision import TOLERANCES, cast_inputs, cast_model
from toolkit.measure.results import Latency, MeasuredRuntime, MeasurementKey, Precision
from toolkit.measure.runtimes.compiled import compiled
from toolkit.measure.runtimes.eager import EAGER_RUNTIME
from toolkit.measure.runtimes.registry import RUNTIMES
from toolkit.measure.runtimes.runtime import ModelRuntime, Ready
from toolkit.measure.same_outputs import outputs_error
from toolkit.measure.timed import ready_models, time_in_turns, time_pairs

NOTES: dict[int, list[tuple[Any, ...]]] = {}  # by model: a model's own lists are put back after a timing


class Seen(nn.Module):
    """A linear layer that notes what it was run with: types, the TF32 switches, modes."""

    def __init__(self, change: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        super().__init__()
        self.layer, self.change, self.notes = nn.Linear(4, 3), change, id(self)
        self.register_buffer("counts", torch.arange(3))
        self.register_buffer("phases", torch.ones(3, dtype=torch.complex64))

    @property
    def seen(self) -> list[tuple[Any, ...]]:
        return NOTES.setdefault(self.notes, [])

    def forward(self, x: Tensor) -> Tensor:
        matmul, conv = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        self.seen.append((x.dtype, self.layer.weight.dtype, matmul, conv, self.training))
        return self.change(self.layer(x))

    def __deepcopy__(self, memo: dict[int, Any]) -> Seen:
        made = Seen(self.change)
        made.load_state_dict(self.state_dict())
        made.notes = self.notes
        return made


def key(precision: Precision = "float32", runtime: str = "eager") -> MeasurementKey:
    return MeasurementKey(runtime=runtime, device="cpu", precision=precision, batch_size=2)


def timed(model: nn.Module, at: MeasurementKey, **settings: Any) -> Latency:
    inputs = (torch.linspace(-1, 1, 8).reshape(2, 4),)
    return time_in_turns(model, model, inputs, at, threads=1, warmup=1, repeats=3, **settings)


def test_every_runtime_that_recipes_may_ask_for_is_there() -> None:
    assert set(RUNTIMES) == set(get_args(MeasuredRuntime))
    assert set(TOLERANCES) == set(get_args(Precision))


def test_bfloat16_casts_a_copy_once() -> None:
    model = Seen().eval()
    latency = timed(model, key("bfloat16"))
    assert (latency.key, latency.dtype) == (key("bfloat16"), "bfloat16")
    assert model.layer.weight.dtype == torch.float32
    first, *later = model.seen
    assert first[:2] == (torch.float32,) * 2, "what it is compared with"
    assert {kind for one in later for kind in one[:2]} == {torch.float32, torch.bfloat16}
    assert [one[:2] for one in later[-8:]] == [(torch.bfloat16,) * 2] * 8


def test_whole_and_complex_numbers_are_not_cast() -> None:
    model = Seen()
    made = cast_model(model, "bfloat16")
    assert (made.counts.dtype, made.phases.dtype) == (torch.int64, torch.complex64)
    assert [part.dtype for part in cast_inputs((torch.ones(1), torch.ones(1, dtype=torch.long)), "bfloat16")] == [
        torch.bfloat16,
        torch.int64,
    ]
    assert cast_model(model, "tf32") is model is cast_model(model, "float32")


@pytest.mark.parametrize("before", [(True, True), (False, True), (False, False)])
def test_tf32_is_on_where_the_key_says_so_alone(before: tuple[bool, bool]) -> None:
    own = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    try:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
        for precision, is_on in (("float32", False), ("bfloat16", False), ("tf32", True)):
            model = Seen()
            timed(model, key(precision))
            assert {one[2:] for one in model.seen[-8:]} == {(is_on, is_on, False)}
            assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == before
            assert model.training
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = own


def test_what_does_not_run_in_bfloat16_is_named() -> None:
    model = Seen(lambda x: x @ torch.ones(3, 3))
    with pytest.raises(
        UserError, match=r"^bfloat16 cannot run this model on cpu \(RuntimeError: .*\); leave bfloat16 out"
    ):
        timed(model, key("bfloat16"))


@pytest.mark.parametrize("changed", [lambda x: x + 1, lambda x: x[:1], lambda x: x / 0, lambda x: [x, x]])
def test_what_computes_something_else_is_named(changed: Callable[[Tensor], Any]) -> None:
    def other(x: Tensor) -> Any:
        return changed(x) if x.dtype == torch.bfloat16 else x

    with pytest.raises(
        UserError, match=r"bfloat16 does not compute what the model does on cpu.* 0\.1 is allowed; leave"
    ):
        timed(Seen(other), key("bfloat16"))


def wrong(by: float) -> ModelRuntime:
    @contextmanager
    def prepare(model: nn.Module, _: tuple[Tensor, ...]) -> Iterator[Ready]:
        yield lambda x: model(x) * (1 + by)

    return ModelRuntime(missing=lambda _: None, prepare=prepare)


def test_a_runtime_is_held_to_the_tolerance_of_the_precision() -> None:
    with pytest.raises(UserError, match=r"cuda_graph does not compute.*leave cuda_graph out of measure.runtimes$"):
        timed(Seen(), key(runtime="cuda_graph"), runtimes={"cuda_graph": wrong(0.01)})
    assert timed(Seen(), key("tf32", "cuda_graph"), runtimes={"cuda_graph": wrong(0.01)}).key == key(
        "tf32", "cuda_graph"
    )
    with pytest.raises(UserError, match=r"cuda_graph tf32 .*out of measure.runtimes or leave tf32 out of measure.prec"):
        timed(Seen(), key("tf32", "cuda_graph"), runtimes={"cuda_graph": wrong(0.03)})


def test_memory_that_is_too_small_is_an_error_with_the_batch_size() -> None:
    def full(_: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")

    for precision in ("float32", "bfloat16"):
        with pytest.raises(
            UserError, match=r"timing on cpu.*: the device is out of memory at batch size 2; time smaller"
        ):
            timed(Seen(full), key(precision))


class Small(nn.Module):
    def __init__(self, shift: float) -> None:
        super().__init__()
        self.layer, self.shift = nn.Linear(4, 3), shift

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + self.shift


def test_every_one_of_many_models_is_compiled() -> None:
    """Without a reset after each, torch stops compiling a class whose programs are past a limit, and says nothing."""
    graphs = []

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> Ready:
        graphs.append(graph)
        return graph.forward

    for number in range(5):
        latency = time_in_turns(
            Small(number),
            Small(-1.0),
            (torch.ones(2, 4),),
            key(runtime="compile"),
            threads=1,
            warmup=0,
            repeats=3,
            runtimes={"compile": compiled(backend)},
        )
        assert (latency.key, latency.dtype) == (key(runtime="compile"), "float32")
    assert len(graphs) == 2 * 5, "the model and the dense one, each once"


def test_eager_float32_is_the_model_itself_and_the_cpu_has_no_counter() -> None:
    model = Seen()
    with ready_models([model], (torch.ones(2, 4),), key(), EAGER_RUNTIME) as (ready, _):
        assert ready[0] is model and not model.seen
    assert counter_of(torch.device("cpu")) is None and timed(model, key()).peak_bytes is None


def test_several_pairs_are_timed_with_every_model_made_ready_once() -> None:
    begun = []

    @contextmanager
    def prepare(model: nn.Module, _: tuple[Tensor, ...]) -> Iterator[Ready]:
        begun.append(model)
        yield model.forward

    models, runtime = [Seen() for _ in range(3)], ModelRuntime(missing=lambda _: None, prepare=prepare)
    pairs = [(1, 0), (2, 0), (2, 1)]
    found = time_pairs(
        models, pairs, (torch.ones(2, 4),), key(runtime="cuda_graph"), threads=1, warmup=0, repeats=3,
        runtimes={"cuda_graph": runtime},
    )  # fmt: skip
    assert begun == models and [one.key for one in found] == [key(runtime="cuda_graph")] * 3
    assert len(models[0].seen) < len(models[1].seen) + len(models[2].seen)


def test_outputs_are_compared_by_their_norm() -> None:
    one = torch.tensor([3.0, 4.0])
    assert outputs_error([one], [one + torch.tensor([0.0, 0.5])]) == 0.1
    assert outputs_error([one, one], [one, one * 2]) == 1.0
    assert outputs_error([one], [one, one]) == outputs_error([one], [one[:1]]) == float("inf")
    masked = torch.tensor([float("-inf"), 2.0])
    assert outputs_error([masked], [masked]) == 0.0
    assert outputs_error([one], [masked]) == float("inf")
    assert outputs_error([torch.zeros(2)], [torch.tensor([0.0, 0.5])]) == 0.5
    assert outputs_error([torch.tensor([1])], [torch.tensor([2])]) == 0.0, "labels"


def test_peak_memory_is_of_one_model_whatever_else_lies_there() -> None:
    others, taken = 10_000, {"now": 10_000, "most": 99_999}

    class Uses(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4, bias=False)
            self.tied = self.layer.weight  # counted once

        def forward(self, x: Tensor) -> Tensor:
            taken["most"] = max(taken["most"], others + 700)
            return x

    def reset() -> None:
        taken["most"] = taken["now"]

    counter = MemoryCounter(reset, lambda: taken["now"], lambda: taken["most"])
    assert peak_bytes(Uses(), (torch.zeros(2, 4),), counter) == 4 * 16 + 4 * 8 + 700
