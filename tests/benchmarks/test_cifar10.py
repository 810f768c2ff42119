"""The CIFAR-10 benchmark on made-up images and an untrained network: a cell of each kind, going on, tables."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.made_up_cifar import NUM_TEST, made_up_task
from toolkit.base.console import Console
from toolkit.base.errors import RecordError
from toolkit.benchmarks.cifar10.__main__ import main, run_parts
from toolkit.benchmarks.cifar10.bench import Bench
from toolkit.benchmarks.cifar10.cells import (
    CONTROLS,
    FAMILY_METHODS,
    CellKey,
    ImageCell,
    cell_file,
    keys_of,
    load_all,
    load_image_cell,
    load_timing,
    packed,
    timing_file,
)
from toolkit.benchmarks.cifar10.grail import refit_grail
from toolkit.benchmarks.cifar10.methods import RECOVER
from toolkit.benchmarks.cifar10.paired import paired_difference
from toolkit.benchmarks.cifar10.replace_me import fold, refit_replace_me
from toolkit.benchmarks.cifar10.scores import comparisons, hypervolume_ratios, models
from toolkit.benchmarks.cifar10.table import write_tables
from toolkit.blocks.drop import drop_block
from toolkit.blocks.find import find_blocks
from toolkit.channels.cut import KeptUnits, cut
from toolkit.channels.find import find_groups
from toolkit.measure.environment import describe_environment
from toolkit.stages.recover.settings import Recover

DEPTH, BUDGET = 14, 0.7

DENSE = CellKey(DEPTH, "dense")


def at(method: str, budget: float = BUDGET, seed: int | None = None) -> CellKey:
    return CellKey(DEPTH, method, "macs", budget, seed)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Everything that later tests look at is run here, once."""
    folder = tmp_path_factory.mktemp("cifar10")
    with open(folder / "log", "w", encoding="utf-8") as log:
        known = {name: value for name, value in RECOVER.items() if name in Recover.model_fields}
        made = Bench(
            folder / "out",
            folder / "work",
            make_task=made_up_task,
            examples=8,
            evaluations=1,
            recover=known | {"max_steps": 2, "batch_size": 8, "warmup_steps": 1},
            threads=1,
            timed_batches=(1, 2),
            repeats=3,
            console=Console(log),
        )
        for key in (
            DENSE,
            *map(at, (*FAMILY_METHODS, *CONTROLS)),
            at("depth", seed=1),
            CellKey(DEPTH, "dense", seed=1),
        ):
            print(key.place, made.do(key), file=log)
        yield made


def kept(bench: Bench, key: CellKey) -> ImageCell:
    cell = load_image_cell(cell_file(bench.out, key))
    assert cell is not None and cell.key == key
    return cell


@pytest.mark.slow
def test_every_cell_has_its_images(bench: Bench) -> None:
    dense, task = kept(bench, DENSE), made_up_task()
    assert dense.macs == dense.dense_macs and not dense.dropped
    assert dense.right.tolist() == task.hits(task.load_baseline(), "test").tolist()
    for method in (*FAMILY_METHODS, "plain_drop", "plain_width", "replace_me", "grail"):
        cell = kept(bench, at(method))
        assert cell.reason == "" and cell.macs_ratio <= BUDGET and cell.num_images == NUM_TEST
        assert cell.right.mean() == pytest.approx(cell.accuracy)
        assert cell.num_params < cell.dense_params and cell.recipe is not None


@pytest.mark.slow
def test_families_and_controls_are_what_they_say(bench: Bench) -> None:
    depth, width, combined = (kept(bench, at(method)) for method in FAMILY_METHODS)
    assert depth.plan.dropped == depth.dropped != () and not depth.plan.widths
    assert width.plan.widths and not width.dropped
    assert combined.plan.judged_loss <= min(depth.plan.judged_loss, width.plan.judged_loss) + 1e-9
    drop, narrow, grail, replace_me = (
        kept(bench, at(method)) for method in ("plain_drop", "plain_width", "grail", "replace_me")
    )
    assert len(drop.dropped) == len(depth.dropped) and drop.recipe.stages[0].repair == "none"
    assert replace_me.dropped == depth.dropped and replace_me.macs == depth.macs
    for cell in (narrow, grail):
        assert cell.recipe.stages[0].widths == width.plan.widths and cell.recipe.stages[0].repair == "none"
        assert cell.macs == width.macs


@pytest.mark.slow
@pytest.mark.parametrize("method", ["torch_pruning"])
def test_what_needs_a_stage_is_run_or_left_for_later(bench: Bench, method: str) -> None:
    words, is_kept = bench.do(at(method)), cell_file(bench.out, at(method)).exists()
    if words.startswith("NOT RUN"):
        assert "is not a choice" in words and not is_kept
    else:
        assert is_kept


@pytest.mark.slow
def test_fine_tuning_goes_on_from_the_kept_cell(bench: Bench) -> None:
    before, after = kept(bench, at("depth")), kept(bench, at("depth", seed=1))
    assert (after.macs, after.dropped) == (before.macs, before.dropped)
    assert [stage.type for stage in after.recipe.stages] == ["block_drop", "recover"]
    assert after.recipe.seed == 1
    assert [stage.type for stage in kept(bench, CellKey(DEPTH, "dense", seed=1)).recipe.stages] == ["recover"]


@pytest.mark.slow
def test_chosen_blocks_are_named_when_they_are_trained(bench: Bench) -> None:
    assert "%" in bench.do(at("plain_drop", seed=0))
    first = kept(bench, at("plain_drop", seed=0)).recipe.stages[0]
    assert (first.blocks, first.repair) == (kept(bench, at("plain_drop")).dropped, "none")


@pytest.mark.slow
def test_cells_that_are_there_are_left_alone(bench: Bench) -> None:
    before = cell_file(bench.out, DENSE).read_bytes()
    assert bench.do(DENSE) == "finished already"
    assert cell_file(bench.out, DENSE).read_bytes() == before


@pytest.mark.slow
def test_what_cannot_be_reached_is_kept_with_its_reason(bench: Bench) -> None:
    words = bench.do(at("depth", 0.05))
    assert words.startswith("no model: no plan of family depth reaches macs=0.05; the nearest feasible budget is")
    assert bench.do(at("depth", 0.05)) == "finished already"
    assert "plain_drop follows the plan of depth, but there is none" in bench.do(at("plain_drop", 0.05))


@pytest.mark.slow
def test_what_comes_before_its_time_is_left_for_later(bench: Bench) -> None:
    for key in (at("grail", 0.04), at("width", 0.04, seed=0)):
        assert bench.do(key).startswith("NOT RUN: ") and not cell_file(bench.out, key).exists()
    assert bench.do(at("grail", 0.04)) == "NOT RUN: grail follows the plan of width, which was not run yet"


def test_damage_is_named(tmp_path: Path) -> None:
    path = cell_file(tmp_path, DENSE)
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    with pytest.raises(RecordError, match="damaged or not a cell of the benchmark"):
        load_all(tmp_path)


@pytest.mark.slow
def test_models_are_timed_once(bench: Bench) -> None:
    assert "at cpu batch 2" in bench.time(at("depth"))
    assert bench.time(at("depth")) == "timed already"
    timing = load_timing(timing_file(bench.out, at("depth")))
    assert [one.batch_size for one in timing.latency] == [1, 2] and len(timing.latency[0].samples_s) == 3
    assert bench.time(at("depth", 0.01)).startswith("NOT TIMED")


@pytest.mark.slow
@pytest.mark.slow
def test_a_budget_of_latency_is_planned_for(bench: Bench) -> None:
    key = CellKey(DEPTH, "combined", "latency", 0.7)
    assert "%" in bench.do(key)
    plan = kept(bench, key).plan
    assert (plan.budget, plan.batch_size, plan.threads) == ("latency=0.7", 2, 1)
    assert [latency.batch_size for latency in plan.predicted.latency_ratio] == [1, 2]


def test_no_cell_begins_when_the_time_is_over(tmp_path: Path, quiet: Console) -> None:
    run_parts(Bench(tmp_path / "out", tmp_path, console=quiet), ["training_free"], [20], 0, end_s=0.0)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_tables_and_figure(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--tables", str(bench.out)]) == 0
    table = (bench.out / "table.md").read_text()
    assert f"## ResNet-{DEPTH}: dense {100 * kept(bench, DENSE).accuracy:.2f} %" in table
    assert (
        f"| grail | {100 * kept(bench, at('grail')).accuracy:.2f} ({kept(bench, at('grail')).macs_ratio:.3f}) |"
        in table
    )
    assert "## After fine-tuning" in table and "## Combined minus the better axis" in table
    assert len((bench.out / "points.csv").read_text().splitlines()) == 1 + len(models(load_all(bench.out)))
    assert (bench.out / "accuracy-macs.svg").exists() and (bench.out / "accuracy-macs.png").exists()
    assert main(["--tables", str(bench.work)]) == 2
    assert "no cell of the benchmark in this folder has a model" in capsys.readouterr().err


def test_the_cells_are_those_of_the_benchmark() -> None:
    found = {part: list(keys_of(part)) for part in ("training_free", "recovery", "latency")}  # type: ignore[arg-type]
    assert {part: len(keys) for part, keys in found.items()} == {
        "training_free": 3 * (1 + 4 * 11) + 5 + 4 * 2,
        "recovery": 2 * 3 * (1 + 2 * 5),
        "latency": 3 * 2 * 3,
    }
    every = [key for keys in found.values() for key in keys] + list(keys_of("training_free", draw=1))
    assert len({cell_file(Path(), key) for key in every}) == len(every)
    assert str(at("depth", 0.5, 2).place) == f"resnet{DEPTH}/macs_0.5/depth_recovered_seed2"


def test_folding_is_mixing_what_the_norm_gives() -> None:
    model, inputs = made_up_task().load_baseline(), made_up_task().example_inputs(2)
    block = model.layer1[1]
    hidden, mixing = block.bn2(block.conv2(inputs[0].repeat(1, 6, 1, 1)[:, :16])), torch.randn(16, 16).double()
    fold(block.conv2, block.bn2, mixing)
    found = block.bn2(block.conv2(inputs[0].repeat(1, 6, 1, 1)[:, :16]))
    expected = torch.einsum("bchw,cd->bdhw", hidden.double(), mixing)
    assert torch.allclose(found.double(), expected, atol=1e-4)


@torch.no_grad()
def test_replace_me_comes_closer_to_the_dense_stream() -> None:
    task = made_up_task()
    dense = task.load_baseline()
    plain = copy.deepcopy(dense)
    find_blocks(plain, task.example_inputs(2))
    for block in ("layer1.0", "layer1.1", "layer3.1"):
        drop_block(plain, block)
    refitted = copy.deepcopy(plain)
    refit_replace_me(refitted, dense, ("layer3.1", "layer1.1", "layer1.0"), lambda: [task.example_inputs(8)])

    def stream(model: torch.nn.Module, stage: str) -> torch.Tensor:
        seen = torch.relu(model.bn1(model.conv1(task.example_inputs(8)[0])))
        for name in ("layer1", "layer2", "layer3")[: int(stage)]:
            seen = model.get_submodule(name)(seen)
        return seen

    for stage in "13":
        errors = [float((stream(model, stage) - stream(dense, stage)).square().mean()) for model in (refitted, plain)]
        assert errors[0] < errors[1]
    assert torch.equal(refitted.layer2[0].conv2.weight, dense.layer2[0].conv2.weight), "only what is before a cut"


@torch.no_grad()
def test_grail_comes_closer_to_the_layers_own_output() -> None:
    task = made_up_task()
    dense = task.load_baseline()
    inputs = task.example_inputs(8)
    blocks = find_blocks(dense, inputs)
    group = next(one for one in find_groups(dense, inputs, blocks, ()).groups if one.name == "layer1.0.conv1")
    cut_alone = copy.deepcopy(dense)
    cut(cut_alone, [KeptUnits(group, tuple(range(8)))])
    refitted = copy.deepcopy(cut_alone)
    refit_grail(refitted, dense, lambda: [inputs])

    def error(model: torch.nn.Module) -> float:
        first = [torch.relu(one.bn1(one.conv1(inputs[0]))) for one in (model, dense)]
        outputs = [
            one.layer1[0].bn2(one.layer1[0].conv2(torch.relu(one.layer1[0].bn1(one.layer1[0].conv1(x)))))
            for one, x in zip((model, dense), first, strict=True)
        ]
        return float((outputs[0] - outputs[1]).square().mean())

    assert error(refitted) < 0.5 * error(cut_alone)
    assert torch.equal(refitted.layer1[1].conv2.weight, dense.layer1[1].conv2.weight)


def test_paired_intervals() -> None:
    values = np.array([1.0] * 60 + [-1.0] * 20 + [0.0] * 920)
    found = paired_difference(values)
    assert found.mean == pytest.approx(0.04)
    half = 1.96 * values.std() / np.sqrt(1000)  # the normal approximation
    assert (found.low, found.high) == pytest.approx((0.04 - half, 0.04 + half), abs=0.002)
    same = paired_difference(np.zeros(10))
    assert (same.mean, same.low, same.high) == (0.0, 0.0, 0.0)


def made(depth: int, method: str, macs: int, right: int, budget: float = 0.5) -> ImageCell:
    hits = np.arange(100) < right
    return ImageCell(
        depth=depth,
        method=method,
        resource="" if method == "dense" else "macs",
        budget=1.0 if method == "dense" else budget,
        macs=macs,
        dense_macs=100,
        num_params=1,
        dense_params=1,
        accuracy=right / 100,
        num_images=100,
        hits=packed(hits),
        environment=describe_environment(),
    )


def test_comparisons_and_areas() -> None:
    rows = [
        *(made(20, method, macs, right) for method, macs, right in (("depth", 50, 60), ("width", 50, 70))),
        made(20, "combined", 50, 75),
        made(32, "width", 50, 80),
        made(32, "combined", 50, 78),
        made(20, "dense", 100, 80),
    ]
    cells = models(rows)
    found = comparisons(cells)
    assert [(one.what, one.better) for one in found] == [
        ("ResNet-20", "width"),
        ("ResNet-32", "width"),
        ("mean of 2 networks", "width, width"),
    ]
    assert [one.difference.mean for one in found] == pytest.approx([0.05, -0.02, 0.015])
    assert found[0].cuts_both == "no" and found[2].cuts_both == "0 of 2"
    assert hypervolume_ratios(cells, 20) is None, "no axis is within the reference"
    better = models(
        [*rows, made(20, "width", 40, 75, 0.4), made(20, "depth", 40, 30, 0.4), made(20, "combined", 40, 77, 0.4)]
    )
    assert hypervolume_ratios(better, 20) == pytest.approx((0.6 * 0.07) / (0.6 * 0.05))


def test_tables_of_nothing_else_than_dense_models(tmp_path: Path) -> None:
    for cell in (made(20, "dense", 50, 80), made(44, "dense", 100, 90)):
        path = cell_file(tmp_path, cell.key)
        path.parent.mkdir(parents=True)
        path.write_text(cell.model_dump_json())
    write_tables(tmp_path)
    assert "## ResNet-44: dense 90.00 %" in (tmp_path / "table.md").read_text()
