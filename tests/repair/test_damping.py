"""How strongly fits are damped: chosen by data that they did not see, and fit for channels of extreme size."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.helpers.tiny_task import TinyTask
from toolkit.hooks.order import execution_order
from toolkit.hooks.points import capture
from toolkit.repair.damping import DAMPINGS, DEFAULT, Damping, choose, dampings_that_help, rounded_to
from toolkit.repair.fit import Fitted, fit_layers, installed
from toolkit.repair.least_squares import Normal
from toolkit.repair.sequence import Aim, RepairSequence
from toolkit.repair.site import Site
from toolkit.repair.sites import depth_site
from toolkit.repair.through import ThroughActivation
from toolkit.stages.block_drop.apply import apply_block_drop
from toolkit.stages.block_drop.settings import BlockDrop
from toolkit.stages.channel_prune.apply import apply_channel_prune
from toolkit.stages.channel_prune.settings import ChannelPrune, Keep
from toolkit.stages.context import StageContext
from toolkit.stages.detail import RepairErrors

WIDTH, HIDDEN = 8, 24
EXTREME = 1000.0  # planted channels are so many times as large as the others

Data = list[tuple[Tensor, ...]]


class Tokens(nn.Module):
    """x + fc2(gelu(fc1(x)) * extremes), where fc2 takes back what `extremes` blows up."""

    def __init__(self, planted: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)
        self.extremes: Tensor
        self.register_buffer("extremes", torch.cat([torch.full((planted,), EXTREME), torch.ones(HIDDEN - planted)]))
        self.fc2.weight.data /= self.extremes

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fc2(F.gelu(self.fc1(x)) * self.extremes)


class Images(nn.Module):
    """relu(x + bn(conv2(relu(conv1(x)) * extremes))), the same for a stream that passes a ReLU."""

    def __init__(self, planted: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(WIDTH, HIDDEN, 1), nn.Conv2d(HIDDEN, WIDTH, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(WIDTH)
        self.extremes: Tensor
        extremes = torch.cat([torch.full((planted,), EXTREME), torch.ones(HIDDEN - planted)])
        self.register_buffer("extremes", extremes.view(-1, 1, 1))
        self.conv2.weight.data /= self.extremes

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.bn(self.conv2(F.relu(self.conv1(x)) * self.extremes)))


SHAPES: dict[Callable[[int], nn.Module], tuple[int, ...]] = {Tokens: (16, 12, WIDTH), Images: (16, WIDTH, 6, 6)}


def net_of(kind: Callable[[int], nn.Module], planted: int) -> nn.Module:
    """The same function whatever is planted."""
    torch.manual_seed(1)
    return nn.Sequential(*(kind(planted) for _ in range(3))).eval()


def data_of(kind: Callable[[int], nn.Module], seed: int, dtype: torch.dtype = torch.float32, count: int = 4) -> Data:
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(SHAPES[kind], generator=generator).to(dtype),) for _ in range(count)]


def site_of(net: nn.Module, kind: Callable[[int], nn.Module]) -> Site:
    """What makes up for the middle block, found in float32."""
    inputs = data_of(kind, 0)[0]
    site = depth_site(net, "1", inputs, execution_order(net, inputs))
    assert site is not None
    return site


def error_of(net: nn.Module, site: Site, batches: Data, fitted: Fitted | None) -> float:
    """Relative squared error of the stream into the block that goes, as the definition says."""
    error = scale = 0.0
    for inputs in batches:
        goal = capture(net, inputs, {site.goal})[site.goal].double()
        with installed(net, fitted):
            found = capture(net, inputs, {site.point})[site.point].double()
        error += float((found - goal).square().sum())
        scale += float(goal.square().sum())
    return error / scale


def quickly_fitted(net: nn.Module, site: Site, batches: Data) -> None:
    """As the planner does it, without held-out data. The weights stay in the net."""
    order = [name for name in execution_order(net, batches[0]) if name]
    aim = Aim(net, [capture(net, inputs, {site.goal}) for inputs in batches], {})
    RepairSequence(net, aim, batches, [], order, {}).fit(site)


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_channels_of_extreme_size_cost_a_fit_nothing(kind: Callable[[int], nn.Module], dtype: torch.dtype) -> None:
    errors = {}
    for planted in (0, 3):
        net = net_of(kind, planted)
        site = site_of(net, kind)
        net.to(dtype)
        (fitted,) = fit_layers(net, net, [site], data_of(kind, 1, dtype), data_of(kind, 2, dtype))
        fresh = data_of(kind, 3, dtype)
        errors[planted] = error_of(net, site, fresh, fitted)
        assert errors[planted] < 0.9 * error_of(net, site, fresh, None)
        assert fitted.damping is not None
        assert fitted.holdout_error is not None and fitted.holdout_error[1] < fitted.holdout_error[0]
        assert fitted.weight.dtype == dtype
    assert errors[3] < 1.1 * errors[0]


@pytest.mark.parametrize("kind", SHAPES)
def test_nor_a_quick_one(kind: Callable[[int], nn.Module]) -> None:
    errors = {}
    for planted in (0, 3):
        net, dense = net_of(kind, planted), net_of(kind, planted)
        site = site_of(net, kind)
        quickly_fitted(net, site, data_of(kind, 1))
        errors[planted] = 0.0
        for inputs in data_of(kind, 3):
            goal = capture(dense, inputs, {site.goal})[site.goal]
            errors[planted] += float((capture(net, inputs, {site.point})[site.point] - goal).square().sum())
    assert errors[3] < 1.1 * errors[0]


@pytest.mark.parametrize("few", [True, False])
def test_every_damping_gives_the_solution_of_its_definition(few: bool) -> None:
    """With fewer rows than unknowns by another way, where the own energy of a dead input counts for next to nothing."""
    torch.manual_seed(0)
    rows, target, old = (
        torch.randn(5 if few else 40, 8).double(),
        torch.randn(40, 3).double(),
        torch.randn(8, 3).double(),
    )
    target = target[: len(rows)]
    rows[:, 2] *= EXTREME
    rows[:, 3] = 0.0
    problem = Normal()
    problem.add(rows, target, target)
    assert (problem.gram is None) == few
    for damping, solution in zip(DAMPINGS, problem.solutions(old, DAMPINGS), strict=True):
        ridge = torch.diag(damping.ridge(rows.square().sum(0)))
        gradient = rows.T @ (rows @ solution - target) + ridge @ (solution - old)
        assert float(gradient.abs().max()) < 1e-6 * float((rows.T @ target).abs().max())
        torch.testing.assert_close(solution, problem.solve(old, damping))


def test_ridges_are_shares_of_energy() -> None:
    energy = torch.tensor([1.0, 3.0, 8.0]).double()
    assert Damping(0.5, "mean").ridge(energy).tolist() == [2.0, 2.0, 2.0]
    assert Damping(0.5, "largest").ridge(energy).tolist() == [4.0, 4.0, 4.0]
    assert Damping(0.5, "own").ridge(energy).tolist() == pytest.approx([0.5, 1.5, 4.0], rel=1e-6)
    assert float(Damping(0.5, "own").ridge(torch.zeros(1).double())) > 0.0


def noisy(seed: int, count: int, noise: float) -> Normal:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(count, 8, generator=generator).double()
    target = rows.sum(1, keepdim=True) + noise * torch.randn(count, 1, generator=generator).double()
    problem = Normal()
    problem.add(rows, target, target)
    return problem


def test_few_noisy_rows_are_damped_more_than_many_clear_ones() -> None:
    old, elsewhere = torch.zeros(8, 1).double(), noisy(9, 2000, 0.0)
    few = choose(noisy(1, 12, 6.0), elsewhere, old, rounded_to(torch.float32))
    many = choose(noisy(2, 2000, 0.1), elsewhere, old, rounded_to(torch.float32))
    assert few.damping is not None and few.damping.share >= 0.1
    assert many.damping is not None and many.damping.share <= 1e-3
    best, *_ = dampings_that_help(noisy(1, 12, 6.0), elsewhere, old, rounded_to(torch.float32))
    assert best == few.damping


def test_where_no_damping_helps_elsewhere_the_old_solution_stays() -> None:
    old = torch.ones(8, 1).double()
    choice = choose(noisy(1, 12, 6.0), noisy(9, 2000, 0.0), old, rounded_to(torch.float32))
    assert choice.damping is None and choice.solution is old
    assert choice.error[0] == choice.error[1] > 0.0
    assert choice.error_elsewhere is not None and choice.error_elsewhere[0] == choice.error_elsewhere[1]


def test_rounding_that_lifts_the_error_undoes_a_fit() -> None:
    """The exact answer lies between two numbers of bfloat16, next to the old one."""
    rows = torch.ones(64, 1).double()
    problem = Normal()
    problem.add(rows, 1.0 + 1e-4 * rows, rows)
    old = torch.ones(1, 1).double()
    assert choose(problem, problem, old, rounded_to(torch.float32)).error[1] < 1e-3 * problem.error(old)
    choice = choose(problem, problem, old, rounded_to(torch.bfloat16))
    assert choice.error[1] <= choice.error[0] and torch.equal(choice.solution, old)


@pytest.mark.parametrize("kind", [Normal, lambda: ThroughActivation("relu")], ids=["normal", "through"])
@pytest.mark.parametrize("counts", [(40, 10), (4, 3), (6, 40), (40, 0)])
def test_problems_absorb_each_other(kind: Callable[[], Normal | ThroughActivation], counts: Sequence[int]) -> None:
    torch.manual_seed(0)
    rows, target = torch.randn(sum(counts), 8).double(), torch.rand(sum(counts), 3).double()
    together, first, second = kind(), kind(), kind()
    together.add(rows, target, target)
    first.add(rows[: counts[0]], target[: counts[0]], target[: counts[0]])
    if counts[1]:
        second.add(rows[counts[0] :], target[counts[0] :], target[counts[0] :])
    first.absorb(second)  # type: ignore[arg-type]
    old = torch.randn(8, 3).double()
    assert first.error(old) == pytest.approx(together.error(old))
    torch.testing.assert_close(first.solve(old), together.solve(old))


def test_without_rows_elsewhere_the_default_is_taken() -> None:
    choice = choose(noisy(1, 100, 1.0), Normal(), torch.zeros(8, 1).double(), rounded_to(torch.float32))
    assert choice.damping == DEFAULT
    assert choose(noisy(1, 100, 1.0), None, torch.zeros(8, 1).double(), rounded_to(torch.float32)).damping == DEFAULT


def test_the_choice_is_in_the_record(tiny_task: TinyTask, tiny_context: StageContext) -> None:
    config = BlockDrop(num_blocks=1, criterion="loss", repair="closed_form")
    _, dropped = apply_block_drop(tiny_task.load_baseline(), tiny_task, config, tiny_context)
    narrow = ChannelPrune(keep=Keep(mlp=0.5), repair="closed_form")
    _, pruned = apply_channel_prune(tiny_task.load_baseline(), tiny_task, narrow, tiny_context)
    made = [errors for detail in (dropped, pruned) for _, errors in detail.repair_errors()]
    assert made
    for errors in made:
        assert errors.damping is not None and not errors.stayed
        assert Damping(errors.damping.share, errors.damping.of) in DAMPINGS  # type: ignore[arg-type]
        assert type(errors).model_validate_json(errors.model_dump_json()) == errors


def test_older_records_say_nothing_of_it() -> None:
    old = RepairErrors.model_validate({"layer": "fc", "calibration_error": {"before": 2.0, "after": 1.0}})
    assert old.damping is None and not old.stayed
