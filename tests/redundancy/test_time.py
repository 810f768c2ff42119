"""The map from every R-th time step to the steps between, beside torch's own least squares and repetition."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from toolkit.redundancy.time import TimeMoments, TimeRebuild, repetition, time_rebuild
from toolkit.stand_ins.dynamic_maps import StepRebuild

SHAPES = [(3, 4, 17), (2, 4, 8), (2, 4, 9, 3, 2), (5, 4, 6, 2)]


def drawn(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Returns noise that is smooth along time, with another mean and scale in each channel."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, generator=generator, dtype=torch.float64).cumsum(2)
    per_channel = torch.arange(1.0, shape[1] + 1, dtype=torch.float64).view(1, -1, *[1] * (len(shape) - 2))
    return values * per_channel + 10 * per_channel


def moments_of(output: Tensor, rate: int) -> TimeMoments:
    moments = TimeMoments(rate, output.shape[1])
    for part in output.split(2):  # batch by batch
        moments.add(part)
    return moments


def error(rebuild: TimeRebuild, output: Tensor) -> float:
    layer = StepRebuild(rebuild.rate, output.shape[1], torch.device("cpu"), output.dtype)
    layer.load_state_dict({"weight": rebuild.weights, "bias": rebuild.bias})
    with torch.no_grad():
        made = layer(output[:, :, :: rebuild.rate], output.shape[2])
    assert made.shape == output.shape
    assert torch.equal(made[:, :, :: rebuild.rate], output[:, :, :: rebuild.rate])
    return float((made - output).square().sum())


def best_error(output: Tensor, rate: int) -> float:
    """Returns the least squared error of two weights and a bias per offset and channel, by torch's least squares."""
    total = 0.0
    for offset, channel in itertools.product(range(1, rate), range(output.shape[1])):
        series, rows, wanted = output[:, channel].movedim(1, -1).reshape(-1, output.shape[2]), [], []
        for between in range(offset, output.shape[2], rate):
            before = between - offset
            behind = before + rate if before + rate < output.shape[2] else before
            rows.append(torch.cat([series[:, [before, behind]], torch.ones(len(series), 1, dtype=series.dtype)], dim=1))
            wanted.append(series[:, between])
        if wanted:
            inputs, targets = torch.cat(rows), torch.cat(wanted)
            solution = torch.linalg.lstsq(inputs, targets[:, None], driver="gelsd").solution[:, 0]
            total += float((targets - inputs @ solution).square().sum())
    return total


@pytest.mark.parametrize("rate", [2, 3, 4])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_map_is_the_least_squares_solution(shape: tuple[int, ...], rate: int) -> None:
    output = drawn(shape)
    rebuild = time_rebuild(moments_of(output, rate))
    assert error(rebuild, output) == pytest.approx(best_error(output, rate), rel=1e-6)


@pytest.mark.parametrize("rate", [2, 4])
def test_no_map_is_worse_than_repetition_where_it_was_fitted(rate: int) -> None:
    for seed in range(3):
        output = drawn((2, 3, 11), seed)
        moments = moments_of(output, rate)
        fitted = time_rebuild(moments)
        assert error(fitted, output) <= error(repetition(moments), output)
        assert fitted.explained >= repetition(moments).explained


def test_what_is_explained_elsewhere_is_counted_there() -> None:
    output, elsewhere = drawn((3, 4, 13)), drawn((3, 4, 13), seed=5) + 2.0
    rebuild = time_rebuild(moments_of(output, 2))
    between = elsewhere[:, :, 1::2]
    variance = float((between - between.mean((0, 2), keepdim=True)).square().sum())
    share = 1 - error(rebuild, elsewhere) / variance
    assert rebuild.explained_elsewhere(moments_of(elsewhere, 2)) == pytest.approx(share, abs=1e-9)


def test_a_straight_line_is_interpolated_exactly_and_a_constant_repeated() -> None:
    slopes = torch.randn(4, 3, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    line = slopes * torch.arange(9.0, dtype=torch.float64)
    rebuild = time_rebuild(moments_of(line, 4))
    assert rebuild.explained == pytest.approx(1.0, abs=1e-9)
    expected = torch.tensor([[0.75, 0.25], [0.5, 0.5], [0.25, 0.75]], dtype=torch.float64)
    torch.testing.assert_close(rebuild.weights, expected[:, None].expand(3, 3, 2), rtol=0, atol=1e-5)
    still = torch.randn(4, 3, 1, generator=torch.Generator().manual_seed(0)).expand(4, 3, 9)
    moments = moments_of(still, 4)
    assert time_rebuild(moments).explained == pytest.approx(1.0, abs=1e-9)
    assert repetition(moments).explained == pytest.approx(1.0, abs=1e-9)


def test_white_noise_is_rebuilt_no_better_than_by_its_mean_and_worse_by_repetition() -> None:
    noise = torch.randn(64, 3, 40, generator=torch.Generator().manual_seed(0)) + 7.0
    moments = moments_of(noise, 2)
    assert time_rebuild(moments).explained == pytest.approx(0.0, abs=0.01)
    assert repetition(moments).explained == pytest.approx(-1.0, abs=0.1)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_few_steps_and_dead_channels_give_finite_maps(steps: int) -> None:
    for output in (drawn((3, 2, steps)), torch.full((3, 2, steps), 4.0)):
        rebuild = time_rebuild(moments_of(output, 4))
        assert bool(rebuild.weights.isfinite().all() and rebuild.bias.isfinite().all())
        assert -1e9 < rebuild.explained <= 1
        error(rebuild, output)


def test_a_rate_without_steps_between_is_refused() -> None:
    with pytest.raises(ValueError, match="rate is 1; it must be at least 2"):
        TimeMoments(1, 3)
