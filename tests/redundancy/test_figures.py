"""The figures of convolutions whose outputs repeat themselves in a known way, or not at all, or are no figures."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.repeating_nets import SEEDS, SignalTask, only_layer, planted, report_of
from toolkit.redundancy.report import LayerRedundancy, RedundancyReport

PLANTED = {
    "Conv1d, strided": (nn.Conv1d(8, 8, 3, stride=2, padding=1), (8, 20)),
    "Conv2d, padded": (nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"), (8, 6, 6)),
    "Conv3d, spatial of a pair": (nn.Conv3d(4, 8, (1, 3, 3)), (4, 6, 4, 4)),
    "Conv3d, temporal of a pair": (nn.Conv3d(4, 8, (3, 1, 1), padding=(1, 0, 0)), (4, 6, 4, 4)),
    "Conv2d, grouped": (nn.Conv2d(4, 8, 3, groups=2), (4, 6, 6)),
    "Conv1d, depthwise": (nn.Conv1d(4, 8, 3, groups=4), (4, 20)),
    "ConvTranspose2d": (nn.ConvTranspose2d(8, 8, 2, stride=2), (8, 4, 4)),
}


def shares(layer: LayerRedundancy) -> dict[int, tuple[float, float]]:
    assert layer.channels is not None
    return {kept.share: (kept.first, kept.chosen) for kept in layer.channels.explained}


def steps(layer: LayerRedundancy) -> dict[int, tuple[float, float]]:
    assert layer.time is not None
    return {kept.rate: (kept.repeated, kept.rebuilt) for kept in layer.time.explained}


@pytest.mark.parametrize("case", PLANTED)
def test_planted_combinations_are_explained_by_the_chosen_half(case: str) -> None:
    made, shape = PLANTED[case]
    layer = planted(made, groups=getattr(made, "groups", 1))
    found = only_layer(SignalTask(layer, shape), layer)
    assert shares(found)[2][1] == pytest.approx(1.0, abs=1e-6)
    assert shares(found)[2][0] < 0.99 or "depthwise" in case  # the first half repeats itself but for groups of 2
    assert shares(found)[4][1] < 0.999
    assert (found.kind, found.num_channels, found.num_constant) == (type(layer).__name__, 8, 0)
    assert (found.time is None) == ("2d" in case)
    assert found.notes == ()


def test_a_signal_that_is_constant_in_time_repeats_itself_exactly() -> None:
    layer = nn.Conv3d(3, 4, (1, 3, 3))
    still = SignalTask(layer, (3, 1, 5, 5), lambda noise: noise.expand(-1, -1, 8, -1, -1))
    found = only_layer(still, layer)
    assert found.time is not None
    assert found.time.correlation == pytest.approx(1.0, abs=1e-6)
    assert found.time.relative_rmse == pytest.approx(0.0, abs=1e-4)
    for pair in steps(found).values():
        assert pair == pytest.approx((1.0, 1.0), abs=1e-6)


def test_white_noise_repeats_nothing() -> None:
    layer = nn.Conv1d(8, 8, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(8)[..., None])
    found = only_layer(SignalTask(layer, (8, 40), examples=200), layer)
    assert found.channels is not None and found.channels.correlation is not None and found.time is not None
    assert found.channels.correlation == pytest.approx(0.0, abs=0.03)
    assert found.channels.relative_rmse == pytest.approx(math.sqrt(2), abs=0.15)
    assert found.time.correlation == pytest.approx(0.0, abs=0.03)
    assert found.time.relative_rmse == pytest.approx(math.sqrt(2), abs=0.05)
    for pair in shares(found).values():
        assert pair == pytest.approx((0.0, 0.0), abs=0.03)
    assert steps(found)[2] == pytest.approx((-1.0, 0.0), abs=0.1)


def test_figures_are_those_of_the_whole_output_where_no_position_is_left_out() -> None:
    layer = nn.Conv3d(3, 5, 2)
    task = SignalTask(layer, (3, 6, 4, 4), lambda noise: noise.cumsum(2))
    found = only_layer(task, layer, positions=1000)
    output = layer(task.signals(24, SEEDS["holdout"])).detach().double()
    assert found.measured_on == output[:, 0].numel()
    first, second = (part.movedim(1, 0).flatten(1) for part in (output[:, :, :-1], output[:, :, 1:]))
    by_channel = [float(torch.corrcoef(torch.stack(pair))[0, 1]) for pair in zip(first, second, strict=True)]
    assert found.time is not None and found.channels is not None
    assert found.time.correlation == pytest.approx(sum(by_channel) / 5, abs=1e-6)
    variance = (first.var(1, correction=0) + second.var(1, correction=0)).sum() / 2
    expected = ((second - first).square().mean(1).sum() / variance).sqrt()
    assert found.time.relative_rmse == pytest.approx(float(expected), abs=1e-6)
    rows = output.movedim(1, 0).flatten(1)
    fitted = layer(task.signals(24, SEEDS["calibration"])).detach().double().movedim(1, 0).flatten(1)
    partner = torch.corrcoef(fitted).abs().fill_diagonal_(0).argmax(1)
    signed = torch.corrcoef(rows) * torch.corrcoef(fitted).sign()
    assert found.channels.correlation == pytest.approx(float(signed[range(5), partner].mean()), abs=1e-6)
    nearest = torch.cdist(fitted, fitted).fill_diagonal_(math.inf).argmin(1)
    apart = (rows - rows[nearest]).square().mean(1).sum() / rows.var(1, correction=0).sum()
    assert found.channels.relative_rmse == pytest.approx(float(apart.sqrt()), abs=1e-6)


class Odd(nn.Module):
    """[B, 4, 6] -> [B, 4, 6], with layers that have no figures, or not all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.plain, self.dead, self.partly = nn.Conv1d(4, 6, 1), nn.Conv1d(6, 4, 1), nn.Conv1d(6, 4, 1)
        self.idle, self.one, self.short = nn.Conv1d(4, 4, 1), nn.Conv1d(6, 1, 1), nn.Conv1d(6, 4, 6)
        self.broken, self.both = nn.Conv1d(6, 4, 1), nn.Conv1d(6, 6, 3, padding=1)
        self.alone = nn.Conv2d(6, 3, 1)
        with torch.no_grad():
            self.dead.weight.zero_()
            self.partly.weight[1:3] = 0.0
            self.partly.bias.fill_(1e3)
            self.broken.weight.fill_(math.nan)

    def forward(self, x: Tensor) -> Tensor:
        x = self.plain(x)
        self.broken(x), self.one(x), self.short(x), self.partly(x)
        self.both(x), self.both(x[..., :3]), self.both(x[..., :1])
        self.alone(x[0, :, :, None])  # without a batch
        return self.dead(x)


@pytest.fixture(scope="module")
def odd() -> RedundancyReport:
    model = Odd()
    return report_of(SignalTask(model, (4, 6)), model, examples=20)


def test_layers_without_figures_are_named_with_the_reason(odd: RedundancyReport) -> None:
    assert odd.not_measured == {
        "dead": "its output is constant: no channel varies over positions and examples",
        "idle": "it never runs on the data",
        "broken": "its output holds numbers that are not finite",
    }
    notes = {layer.name: layer.notes for layer in odd.layers if layer.notes}
    assert notes == {
        "one": ("it has one output channel, which has no other to be compared with",),
        "short": ("its output has a single time step",),
    }


def test_the_other_figures_are_there_and_finite(odd: RedundancyReport) -> None:
    layers = {layer.name: layer for layer in odd.layers}
    assert list(layers) == ["plain", "partly", "one", "short", "both", "alone"]
    assert RedundancyReport.model_validate_json(odd.model_dump_json()) == odd  # refuses NaN and infinity
    assert layers["one"].channels is None and layers["one"].time is not None
    assert layers["short"].channels is not None and layers["short"].time is None
    assert layers["partly"].num_constant == 2
    assert shares(layers["partly"])[2][0] > -0.5  # the constant channels are exact, whatever the rounding of their bias
    both = layers["both"].time
    assert both is not None and (both.least_steps, both.most_steps) == (1, 6)
    assert (layers["alone"].fitted_on, layers["alone"].time) == (12, None)


def test_a_layer_of_which_one_channel_varies_has_no_partners() -> None:
    layer = nn.Conv2d(2, 3, 1)
    with torch.no_grad():
        layer.weight[1:] = 0.0
    found = only_layer(SignalTask(layer, (2, 4, 4)), layer)
    assert found.channels is not None and found.channels.correlation is None and found.channels.relative_rmse is None
    assert shares(found) == {2: (1.0, 1.0), 4: (1.0, 1.0)}


def test_a_fit_to_few_positions_is_damped_and_said_to_have_few() -> None:
    layer = planted(nn.Conv2d(16, 32, 1))
    found = only_layer(SignalTask(layer, (16, 2, 2), examples=5), layer)
    assert found.fitted_on == 20
    assert "fewer than 4 positions per channel" in found.notes[0]
    assert min(value for pair in shares(found).values() for value in pair) > -0.1


def test_the_number_of_channels_must_not_change() -> None:
    class Slim(nn.Conv1d):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input)[:, : len(input)]

    layer = Slim(2, 9, 1)
    report = report_of(SignalTask(layer, (2, 5), examples=20), layer)  # batches of 16 and 4
    assert report.not_measured == {"": "its number of channels changes from call to call"}
