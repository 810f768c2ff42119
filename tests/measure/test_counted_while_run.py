"""Multiply-adds of what a trace does not tell: recurrent layers, other operators, models that cannot be traced."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.checkpoint import checkpoint
from torchvision.ops import deform_conv2d, nms, roi_align

from toolkit.measure.counted import Macs
from toolkit.measure.dispatch_macs import count_by_dispatch
from toolkit.measure.macs import count_macs

B, T, D, H = 2, 5, 8, 6


class Call(nn.Module):
    def __init__(self, work: Callable[..., Any], *layers: nn.Module) -> None:
        super().__init__()
        self.layers, self.work = nn.ModuleList(layers), work

    def forward(self, *inputs: Tensor) -> Any:
        return self.work(*self.layers, *inputs)


class Swish(torch.autograd.Function):
    @staticmethod
    def forward(context: object, x: Tensor) -> Tensor:
        return x * x.sigmoid()


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(context: object, x: Tensor) -> Tensor:
        return x @ x.new_ones(D, H)


def packed(layer: nn.Module, x: Tensor) -> Tensor:
    sequence = pack_padded_sequence(x, torch.tensor([T, T - 2]), batch_first=True)
    return pad_packed_sequence(layer(sequence)[0], batch_first=True)[0]


def timed(layer: nn.Module, x: Tensor) -> Tensor:
    with torch.autograd.profiler.record_function("part"):
        return layer(x)


def routed(layer: nn.Module, x: Tensor) -> Tensor:
    return layer(x[:, : int(x.abs().sum() > 0) + 1])


ROWS, IMAGE = torch.randn(B, T, D), torch.randn(1, 4, 8, 8)
CELL = 4 * H * (D + H)  # of an LSTM: one step of one example
FFT = B * T * D * int(math.log2(D))

COUNTS: dict[str, tuple[nn.Module, Tensor, int]] = {
    "LSTM": (nn.LSTM(D, H, batch_first=True), ROWS, B * T * CELL),
    "LSTM, two layers, both directions": (
        nn.LSTM(D, H, 2, bidirectional=True), ROWS, B * T * 2 * (CELL + 4 * H * 3 * H),
    ),
    "LSTM with projection": (nn.LSTM(D, H, proj_size=3), ROWS, B * T * (4 * H * (D + 3) + H * 3)),
    "LSTM without bias, one sequence": (nn.LSTM(D, H, bias=False), ROWS[0], T * CELL),
    "packed LSTM": (Call(packed, nn.LSTM(D, H, batch_first=True)), ROWS, (B * T - 2) * CELL),
    "GRU": (nn.GRU(D, H), ROWS, B * T * 3 * H * (D + H)),
    "RNN": (nn.RNN(D, H, nonlinearity="relu"), ROWS, B * T * H * (D + H)),
    "LSTM cell": (Call(lambda m, x: m(x[:, 0]), nn.LSTMCell(D, H)), ROWS, B * CELL),
    "GRU cell": (Call(lambda m, x: m(x[:, 0]), nn.GRUCell(D, H)), ROWS, B * 3 * H * (D + H)),
    "bilinear": (Call(lambda m, x: m(x, x), nn.Bilinear(D, D, 4)), ROWS, B * T * 4 * D * D),
    "distances": (Call(lambda x: torch.cdist(x, x)), ROWS, B * T * T * D),
    "three operands": (
        Call(lambda x: torch.einsum("btd,bsd,bs->bt", x, x, x[..., 0])), ROWS, B * T * T * D + B * T * T,
    ),
    "real to complex": (Call(lambda x: torch.fft.rfft(x).real), ROWS, FFT),
    "complex to complex": (Call(lambda x: torch.view_as_real(torch.fft.fft(x + 0j))), ROWS, 2 * FFT),
    "and back": (Call(lambda x: torch.fft.irfft(torch.fft.rfft(x))), ROWS, 2 * FFT),
    "two dimensions": (
        Call(lambda x: torch.view_as_real(torch.fft.fft2(x + 0j))), IMAGE, 2 * IMAGE.numel() * 2 * 3,
    ),
    "deformable": (
        Call(lambda x: deform_conv2d(x, x.new_zeros(1, 18, 6, 6), x.new_ones(2, 4, 3, 3))), IMAGE, 2 * 36 * 4 * 9,
    ),
    "suppression": (Call(lambda x: nms(x[0, :, :4].abs(), x[0, :, 0], 0.5)), ROWS, 0),
    "regions": (Call(lambda x: roi_align(x, [x.new_tensor([[0, 0, 4, 4]])], 2)), IMAGE, 0),
    "sampling": (Call(lambda x: F.grid_sample(x, x.new_zeros(1, 4, 4, 2), align_corners=False)), IMAGE, 0),
    "bag": (nn.EmbeddingBag(9, 4), torch.ones(1, 3, dtype=torch.long), 0),
    "autograd.Function": (Call(lambda m, x: Swish.apply(m(x)), nn.Linear(D, H)), ROWS, B * T * D * H),
    "autograd.Function with a product": (Call(Doubled.apply), ROWS, B * T * D * H),
    "reentrant checkpoint": (
        Call(lambda m, x: checkpoint(m, x, use_reentrant=True), nn.Linear(D, H)), ROWS, B * T * D * H,
    ),
    "a timer": (Call(timed, nn.Linear(D, H)), ROWS, B * T * D * H),
    "routing by value": (Call(routed, nn.Linear(D, H)), ROWS, B * 2 * D * H),
    "DataParallel": (nn.DataParallel(nn.Linear(D, H)), ROWS, B * T * D * H),
    "attention beside an FFT": (
        Call(lambda x: F.scaled_dot_product_attention(*[torch.fft.rfft(x).real[:, None]] * 3, is_causal=True)),
        ROWS, FFT + 2 * B * T * T * 5,
    ),
    "a convolution beside an FFT": (
        Call(lambda m, x: torch.fft.fftshift(torch.fft.rfft(m(x)).abs()), nn.Conv2d(4, 6, 3, padding="same", groups=2)),
        IMAGE, 64 * 6 * 2 * 9 + 6 * 64 * 3,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", COUNTS)
@pytest.mark.filterwarnings("ignore:.*(deprecated|reentrant|no attention|None of the inputs).*")
def test_counts(kind: str) -> None:
    model, inputs, expected = COUNTS[kind]
    found = count_macs(model, (inputs,))
    assert found.total == expected == sum(found.by_operator.values())
    assert not found.is_partial


def test_a_compiled_model_is_counted() -> None:
    model = torch.compile(nn.Linear(D, H), backend="eager")
    assert count_macs(model, (ROWS,)).total == B * T * D * H


class Mixed(nn.Module):
    """Convolution, norms, attention and an MLP: what a trace counts too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.batch_norm = nn.Conv1d(D, D, 3, groups=2), nn.BatchNorm1d(D)
        self.norm, self.attention = nn.LayerNorm(D), nn.MultiheadAttention(D, 2, batch_first=True)
        self.up, self.down, self.group_norm = nn.ConvTranspose1d(D, D, 2, stride=2), nn.Linear(D, D), nn.GroupNorm(2, D)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.batch_norm(self.conv(x.mT)).mT)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.down(F.gelu(self.group_norm(self.up(x.mT)).mT)).cumsum(1).softmax(-1)


def test_both_ways_of_counting_agree() -> None:
    model = Mixed().train()
    traced, run = count_macs(model, (ROWS[:1],)), count_by_dispatch(model, (ROWS[:1],))
    assert (traced.total, traced.normalisation) == (run.total, run.normalisation)
    assert not traced.is_partial and not run.is_partial and model.training


@torch.library.custom_op("made_up::heavy", mutates_args=())
def heavy(x: Tensor) -> Tensor:
    return x @ x.mT


PARTIAL: dict[str, tuple[nn.Module, Tensor, str, int]] = {
    "an operator of the user's own": (
        Call(lambda m, x: heavy(m(x)[0]), nn.Linear(D, H)), ROWS, r"made_up::heavy \(1 calls\)", B * T * D * H,
    ),
    "a decomposition": (Call(lambda m, x: torch.linalg.svdvals(m(x)), nn.Linear(D, H)), ROWS, "svd", B * T * D * H),
    "an inverse": (Call(lambda m, x: torch.linalg.inv(m(x)[:, :, :T]), nn.Linear(D, H)), ROWS, "inv", B * T * D * H),
}  # fmt: skip


@pytest.mark.parametrize("kind", PARTIAL)
def test_partial_counts_say_so(kind: str) -> None:
    model, inputs, name, known = PARTIAL[kind]
    found = count_macs(model, (inputs,))
    assert found.is_partial and found.total == known
    assert found.ratio_to(found) is None
    with pytest.raises(AssertionError, match=name):
        raise AssertionError(found.why_partial)


def test_ratios() -> None:
    full = Macs(total=50, normalisation=0, by_operator={}, uncounted={})
    dense, partial = full.model_copy(update={"total": 100}), full.model_copy(update={"unknown": {"a": 1}})
    assert full.ratio_to(dense) == 0.5 and full.ratio_to(full) == 1.0
    assert full.ratio_to(partial) is partial.ratio_to(full) is None
    assert full.ratio_to(full.model_copy(update={"total": 0})) is None
    names = full.model_copy(update={"unknown": dict.fromkeys("abcde", 2)})
    assert names.why_partial == "a (2 calls), b (2 calls), c (2 calls) and 2 more may be heavy and have no count"


def test_several_examples_are_counted_as_one() -> None:
    model = Mixed()
    assert count_macs(model, (ROWS,), 2) == count_macs(model, (ROWS[:1],))


def test_a_model_that_does_not_run_says_why() -> None:
    with pytest.raises(KeyError, match="missing"):
        count_macs(Call(lambda x: {}["missing"]), (ROWS,))
