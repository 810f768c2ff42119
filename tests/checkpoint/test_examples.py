"""The check of a saved model: on real inputs where a model looks at what they are, and tried before the work."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from toolkit.base.errors import CheckpointError
from toolkit.checkpoint.examples import describe_inputs, fixed_inputs
from toolkit.checkpoint.load import load_model
from toolkit.checkpoint.manifest import InputSpec
from toolkit.checkpoint.save import save_model
from toolkit.checkpoint.trial import check_saving


class Lengths(nn.Module):
    """The mean over the first steps: NaN for a length of 0."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        there = (torch.arange(x.shape[1]) < lengths[:, None]).float()[..., None]
        return (self.layer(x) * there).sum(1) / there.sum(1)


class SpecialId(nn.Module):
    """The stream at the places of the id 7; nothing where there is none."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.layer = nn.Embedding(9, 4), nn.Linear(4, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.layer(self.embed(ids)[ids == 7])


class Ordered(nn.Module):
    """Packs its sequences, which must come in descending order of length."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.GRU(4, 4, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
        return self.steps(packed)[1][0]


class PositiveOnly(nn.Module):
    """The logarithm of its inputs, such as powers of a spectrum."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.log())


class Masked(nn.Module):
    """Looks only at rows that a mask of bools lets through."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.layer(x[mask].reshape(len(x), -1, 4)).mean(1)


MASK = torch.tensor([[False, True, True, False, False]])

SITUATIONS: dict[str, tuple[Callable[[], nn.Module], tuple[Tensor, ...]]] = {
    "lengths": (Lengths, (torch.randn(1, 5, 4), torch.tensor([3]))),
    "a special id": (SpecialId, (torch.tensor([[1, 7, 8, 7]]),)),
    "lengths in order": (Ordered, (torch.randn(2, 5, 4), torch.tensor([5, 2]))),
    "positive numbers": (PositiveOnly, (torch.rand(2, 4) + 0.1,)),
    "a mask of bools": (Masked, (torch.randn(1, 5, 4), MASK)),
}


@pytest.mark.parametrize("situation", list(SITUATIONS))
def test_a_model_that_looks_at_its_inputs_is_saved(situation: str, tmp_path: Path) -> None:
    make, inputs = SITUATIONS[situation]
    model, dense = make().eval(), make().eval()
    check_saving(model, make(), inputs)
    save_model(tmp_path / "model", model, dense, factory={}, example_inputs=inputs, recipe_sha256=None)
    loaded = load_model(tmp_path / "model", dense)
    torch.testing.assert_close(loaded(*inputs), model(*inputs))
    kept = json.loads((tmp_path / "model" / "model.json").read_text())["fingerprint"]
    assert sum(value for output in kept["outputs"] for value in output["shape"]) > 0


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool, torch.float16, torch.float32, torch.bfloat16])
def test_values_come_back(dtype: torch.dtype) -> None:
    tensor = (torch.randn(3, 5) * 4).to(dtype)
    (back,) = fixed_inputs(describe_inputs([tensor], real=True))
    assert back.dtype == dtype
    assert torch.equal(back, tensor)


def test_nan_and_nothing_come_back() -> None:
    holes, empty = torch.tensor([1.0, float("nan"), float("inf")]), torch.empty(0, 3, dtype=torch.int64)
    back = fixed_inputs(describe_inputs([holes, empty], real=True))
    torch.testing.assert_close(back[0], holes, equal_nan=True)
    assert back[1].shape == (0, 3)


def test_floating_inputs_are_made_up_unless_they_are_needed() -> None:
    spec, ids = describe_inputs([torch.randn(2, 4), torch.tensor([[3, 7]])])
    assert spec.data is None
    assert "data" not in spec.model_dump()
    assert fixed_inputs([ids])[0].tolist() == [[3, 7]]


@pytest.mark.parametrize(
    ("data", "message"),
    [("%%%", "are damaged"), ("AAAA", "are damaged"), ("eJxjYGBgAAAABAAB", "has 4 bytes, not 24")],
)
def test_damaged_values_are_an_error(data: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fixed_inputs([InputSpec(shape=(3,), dtype="int64", scale=1.0, data=data)])


class StateBeside(nn.Module):
    """A number that is not in the state dict."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.layer, self.factor = nn.Linear(4, 3), factor

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * self.factor


class Nothing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[:0]


class Remembers(nn.Linear):
    """State that is no tensor."""

    def get_extra_state(self) -> Any:
        return {"words": ["one"]}

    def set_extra_state(self, state: Any) -> None:
        pass


class Quantised(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        weight = torch.quantize_per_tensor(torch.randn(3, 4), 0.1, 0, torch.qint8)
        self.register_buffer("weight", weight)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.dequantize().T


@pytest.mark.filterwarnings("ignore:.*quantiz.*")
@pytest.mark.parametrize(
    ("make", "rebuilt", "message"),
    [
        (lambda: StateBeside(2.0), StateBeside, "could not be loaded again: what build_model builds"),
        (Nothing, Nothing, "the model returns no numbers for its example inputs"),
        (lambda: Remembers(4, 3), lambda: Remembers(4, 3), "_extra_state: state that is not a tensor"),
        (Quantised, Quantised, "weight: tensors of type torch.qint8 cannot be saved"),
        (lambda: nn.Linear(4, 3), lambda: nn.Linear(4, 5), "size mismatch"),
    ],
)
def test_what_cannot_be_saved_is_found_before_the_work(
    make: Callable[[], nn.Module], rebuilt: Callable[[], nn.Module], message: str
) -> None:
    with pytest.raises(CheckpointError, match=re.escape(message)):
        check_saving(make().eval(), rebuilt(), (torch.randn(2, 4),))


class Table(nn.Module):
    """A table that no state dict has, as wide as the stream."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, width), nn.Linear(width, 3)
        self.register_buffer("table", torch.linspace(1, 2, width), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x) * self.table)


class Waves(nn.Module):
    """A complex weight, as in a Fourier layer, and whole numbers as a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, dtype=torch.complex64))
        self.steps = nn.Parameter(torch.tensor([1, 2, 3, 4], dtype=torch.int8), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.irfft(torch.fft.rfft(x * self.steps) * self.weight, n=4)


def test_a_narrower_buffer_outside_of_the_state_dict_is_kept(tmp_path: Path) -> None:
    dense, narrow = Table().eval(), Table(4).eval()
    narrow.table.copy_(dense.table[[0, 2, 3, 5]])
    inputs = (torch.randn(1, 4),)
    save_model(tmp_path / "model", narrow, dense, factory={}, example_inputs=inputs, recipe_sha256=None)
    loaded = load_model(tmp_path / "model", Table())
    assert torch.equal(loaded.table, narrow.table)
    assert "table" not in loaded.state_dict()


def test_complex_and_whole_weights_are_saved(tmp_path: Path) -> None:
    model, inputs = Waves().eval(), (torch.randn(2, 4),)
    save_model(tmp_path / "model", model, Waves(), factory={}, example_inputs=inputs, recipe_sha256=None)
    loaded = load_model(tmp_path / "model", Waves())
    assert torch.equal(loaded.weight, model.weight)
    torch.testing.assert_close(loaded(*inputs), model(*inputs))
