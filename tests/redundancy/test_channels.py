"""The channels that are kept, and the map from them to the others, beside brute force and torch's own least squares."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from toolkit.redundancy.channels import best_sources, channel_choice, linear_rebuild, single_rebuild
from toolkit.repair.damping import DAMPINGS


def drawn(seed: int, rows: int = 200, channels: int = 6) -> Tensor:
    """Returns rows [rows, channels] of unlike scales and means that hang together."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(channels, channels, generator=generator, dtype=torch.float64)
    values = torch.randn(rows, channels, generator=generator, dtype=torch.float64) @ mix
    return values * torch.rand(channels, generator=generator, dtype=torch.float64) + torch.arange(channels)


def moments(rows: Tensor) -> tuple[Tensor, Tensor]:
    return torch.cov(rows.T, correction=0), rows.mean(0)


def missed(rows: Tensor, kept: tuple[int, ...]) -> float:
    """Returns the squared error of all channels when they are rebuilt from some, by torch's least squares."""
    inputs = torch.cat([rows[:, list(kept)], torch.ones(len(rows), 1, dtype=rows.dtype)], dim=1)
    return float((rows - inputs @ torch.linalg.lstsq(inputs, rows).solution).square().sum())


@pytest.mark.parametrize("seed", range(5))
def test_each_chosen_channel_is_the_best_one_by_brute_force(seed: int) -> None:
    rows = drawn(seed)
    chosen = channel_choice(moments(rows)[0], 6)
    assert sorted(chosen) == list(range(6))
    for place in range(5):
        candidates = [channel for channel in range(6) if channel not in chosen[:place]]
        assert min(candidates, key=lambda channel: missed(rows, (*chosen[:place], channel))) == chosen[place]
        assert channel_choice(moments(rows)[0], place) == chosen[:place]


def test_the_choice_is_near_the_best_set_and_beats_the_first_channels() -> None:
    rows = drawn(7)
    chosen = channel_choice(moments(rows)[0], 3)
    errors = sorted(missed(rows, kept) for kept in itertools.combinations(range(6), 3))
    assert errors[0] <= missed(rows, chosen) <= errors[3]
    assert missed(rows, chosen) < missed(rows, (0, 1, 2))


@pytest.mark.parametrize("kept", [(0, 1, 2), (5, 3), (4,), ()])
def test_the_map_is_the_least_squares_solution(kept: tuple[int, ...]) -> None:
    rows = drawn(1)
    rebuild = linear_rebuild(*moments(rows), kept)
    others = rows[:, list(rebuild.others)]
    made = rows[:, list(kept)] @ rebuild.weights.T + rebuild.bias
    assert float((others - made).square().sum()) == pytest.approx(missed(rows, kept), rel=1e-6)
    share = 1 - float((others - made).square().sum() / (others - others.mean(0)).square().sum())
    assert rebuild.explained == pytest.approx(share, abs=1e-9)
    assert rebuild.explained_elsewhere(*moments(rows)) == pytest.approx(share, abs=1e-9)


def test_what_is_explained_elsewhere_counts_the_bias_and_may_be_negative() -> None:
    rows, elsewhere = drawn(1), drawn(2) + 3.0
    rebuild = linear_rebuild(*moments(rows), (0, 1, 2))
    others = elsewhere[:, list(rebuild.others)]
    error = (others - elsewhere[:, [0, 1, 2]] @ rebuild.weights.T - rebuild.bias).square().sum()
    share = 1 - float(error / (others - others.mean(0)).square().sum())
    assert rebuild.explained_elsewhere(*moments(elsewhere)) == pytest.approx(share, abs=1e-9)
    assert share < 0


@pytest.mark.parametrize("damping", DAMPINGS)
def test_no_map_is_worse_than_the_mean_where_it_was_fitted(damping: object) -> None:
    assert 0 <= linear_rebuild(*moments(drawn(3)), (2, 4), damping).explained < 1  # type: ignore[arg-type]


def test_half_of_the_channels_being_combinations_of_the_others_is_found_and_undone_exactly() -> None:
    sources = drawn(0, channels=4)
    mix = torch.randn(4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rows = torch.cat([sources @ mix, sources], dim=1)[:, [0, 4, 1, 5, 2, 6, 3, 7]]
    chosen = channel_choice(moments(rows)[0], 4)
    rebuild = linear_rebuild(*moments(rows), chosen)
    made = rows[:, list(chosen)] @ rebuild.weights.T + rebuild.bias
    assert float((made - rows[:, list(rebuild.others)]).abs().max()) < 1e-5
    assert rebuild.explained == pytest.approx(1.0, abs=1e-9)


def test_copies_and_dead_channels_give_finite_maps() -> None:
    rows = drawn(0)
    rows = torch.cat([rows, rows, torch.full((len(rows), 2), 5.0, dtype=rows.dtype)], dim=1)
    covariance, mean = moments(rows)
    for kept in (channel_choice(covariance, 14), tuple(range(12)), (12, 13), (12, 0, 6)):
        rebuild = linear_rebuild(covariance, mean, kept)
        assert bool(rebuild.weights.isfinite().all())
        assert 0 <= rebuild.explained <= 1
    assert set(channel_choice(covariance, 7)[:6]).isdisjoint({12, 13})
    rebuild = linear_rebuild(covariance, mean, (0, 1))
    assert rebuild.bias[-2:].tolist() == pytest.approx([5.0, 5.0])


def test_channels_that_never_vary_are_all_explained_by_their_means() -> None:
    rebuild = linear_rebuild(torch.zeros(4, 4), torch.arange(4.0), channel_choice(torch.zeros(4, 4), 2))
    assert (rebuild.kept, rebuild.bias.tolist(), rebuild.explained) == ((0, 1), [2.0, 3.0], 1.0)


@pytest.mark.parametrize("num_kept", [-1, 5])
def test_a_number_of_channels_that_the_layer_does_not_have_is_refused(num_kept: int) -> None:
    with pytest.raises(ValueError, match=f"num_kept is {num_kept}; it must be from 0 to the number of channels, 4"):
        channel_choice(torch.eye(4), num_kept)


def test_every_group_gets_its_next_channel_before_any_gets_one_more() -> None:
    covariance = torch.diag(torch.tensor([9.0, 8.0, 7.0, 6.0, 1.0, 2.0, 3.0, 4.0], dtype=torch.float64))
    assert channel_choice(covariance, 8, groups=2) == (0, 7, 1, 6, 2, 5, 3, 4)
    covariance[0, 0] = covariance[6, 6] = 0.0  # dead channels come last within their groups
    assert channel_choice(covariance, 8, groups=2) == (1, 7, 2, 5, 3, 4, 0, 6)


@pytest.mark.parametrize("kept", [(0, 1, 2), (3, 5), (4,)])
def test_a_channel_made_of_one_other_has_the_slope_and_the_intercept_of_a_line(kept: tuple[int, ...]) -> None:
    rows = drawn(2)
    covariance, mean = moments(rows)
    sources = best_sources(covariance, kept)
    fitted = single_rebuild(covariance, mean, kept, sources)
    for row, (other, source) in enumerate(zip(fitted.others, sources, strict=True)):
        errors = {}
        for one in kept:
            inputs = torch.stack([rows[:, one], torch.ones(len(rows), dtype=rows.dtype)], dim=1)
            solution = torch.linalg.lstsq(inputs, rows[:, [other]]).solution[:, 0]
            errors[one] = float((rows[:, other] - inputs @ solution).square().sum())
            if one == source:
                expected = torch.zeros(len(kept), dtype=rows.dtype)
                expected[kept.index(one)] = solution[0]
                torch.testing.assert_close(fitted.weights[row], expected)
                torch.testing.assert_close(fitted.bias[row], solution[1])
        assert source == min(errors, key=errors.__getitem__)
    made = rows[:, list(kept)] @ fitted.weights.T + fitted.bias
    others = rows[:, list(fitted.others)]
    share = 1 - float((others - made).square().sum() / (others - others.mean(0)).square().sum())
    assert fitted.explained == pytest.approx(share, abs=1e-9)


def test_a_dead_channel_is_made_of_no_other() -> None:
    rows = drawn(3)
    rows[:, 4] = 2.0
    fitted = single_rebuild(*moments(rows), (0, 1, 4), (4, 4, 4))
    assert float(fitted.weights.abs().sum()) == 0.0 and fitted.explained == pytest.approx(0.0, abs=1e-9)
