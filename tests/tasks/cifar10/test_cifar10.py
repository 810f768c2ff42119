"""The CIFAR-10 tasks on made-up images: splits, draws, augmentation, networks, missing and wrong data, a run."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.helpers.made_up_cifar import NUM_TEST, NUM_TRAIN, SIZES, made_up_arrays, made_up_task, random_weights
from toolkit import BlockDrop, ChannelPrune, Measure, Recipe, load_model, run
from toolkit.base.console import Console
from toolkit.base.errors import UserError
from toolkit.blocks.find import find_blocks
from toolkit.channels.find import find_groups
from toolkit.exporting.export import export_model
from toolkit.exporting.report import ExportSettings
from toolkit.measure.macs import count_macs
from toolkit.planning.arguments import check_tasks
from toolkit.tasks.cards import TASKS, make_task
from toolkit.tasks.cifar10.data import IMAGES_SHA256, WEIGHTS_SHA256, load_images, load_weights, read_images
from toolkit.tasks.cifar10.model import CifarBlock
from toolkit.tasks.cifar10.task import SHIFT, Cifar10Task, augmented, balanced
from toolkit.tasks.local_data import checksum
from toolkit.tasks.task import Batch, Split

DRAWN: tuple[Split, ...] = ("score", "calibration", "holdout")
FIXED: tuple[Split, ...] = (*DRAWN, "validation")


def numbers(batch: Batch) -> list[int]:
    """The first pixels of the images, which are their numbers."""
    return (batch.inputs[0][:, 0, 0, 0] * 0.229 + 0.485).mul(255).round().int().tolist()


def places_of(task: Cifar10Task, split: Split, limit: int | None = None) -> list[int]:
    return [number for batch in task.batches(split, 8, limit=limit) for number in numbers(batch)]


def test_splits_are_disjoint_even_and_fixed() -> None:
    task, again = made_up_task(), made_up_task()
    found = {split: places_of(task, split) for split in FIXED}
    assert {split: len(own) for split, own in found.items()} == SIZES
    drawn = [number for own in found.values() for number in own]
    assert len(set(drawn)) == sum(SIZES.values()) and set(drawn) < set(range(NUM_TRAIN))
    assert {split: places_of(again, split) for split in FIXED} == found
    labels = made_up_arrays()["y_train"]
    for own in found.values():
        counts = np.bincount(labels[own], minlength=10)
        assert counts.max() - counts.min() <= 1
    assert places_of(task, "test") == list(range(NUM_TEST))
    assert [task.num_examples(split) for split in (*FIXED, "test")] == [24, 25, 21, 30, NUM_TEST]


def test_a_limit_is_an_even_beginning() -> None:
    task = made_up_task()
    first = places_of(task, "calibration", limit=10)
    assert first == places_of(task, "calibration")[:10]
    assert sorted(made_up_arrays()["y_train"][first]) == list(range(10))


def test_another_draw_changes_all_but_validation_and_test() -> None:
    one, other = made_up_task(), made_up_task(draw=1)
    assert all(places_of(one, split) != places_of(other, split) for split in DRAWN)
    assert all(places_of(one, split) == places_of(other, split) for split in ("validation", "test"))


def test_an_order_is_even_where_the_classes_are_not() -> None:
    labels = np.array([0] * 5 + [1] * 2 + [2] * 3)
    order = balanced(labels, np.arange(10), seed=0)
    assert sorted(order) == list(range(10))
    assert [sorted(labels[order[start : start + 3]]) for start in (0, 3)] == [[0, 1, 2], [0, 1, 2]]


def test_training_images_are_those_that_no_split_has() -> None:
    task = made_up_task()
    taken = {number for split in FIXED for number in places_of(task, split)}
    assert set(task._training) == set(range(NUM_TRAIN)) - taken
    batches, share = task.train_batches(50, 0), task.train_batches(10, 0, share=0.1)
    epoch = [next(batches) for _ in range(2)]
    assert [len(batch.targets) for batch in epoch] == [50, 50]
    few = [next(share) for _ in range(5)]
    assert len({tuple(sorted(batch.targets.tolist())) for batch in few}) == 1  # 10 images, over again


def test_augmentation_is_seeded_and_moves_by_a_few_pixels() -> None:
    task = made_up_task()
    first, again, other = (next(task.train_batches(16, seed)) for seed in (3, 3, 4))
    assert torch.equal(first.inputs[0], again.inputs[0]) and torch.equal(first.targets, again.targets)
    assert not torch.equal(first.inputs[0], other.inputs[0])
    mark = np.zeros((200, 32, 32, 3), dtype=np.uint8)
    mark[:, 16, 16] = (255, 0, 7)
    moved = augmented(mark, np.random.default_rng(0))
    rows, columns = np.nonzero(moved[..., 0])[1:]
    assert len(rows) == 200 and (moved[..., 2] == 7).sum() == 200
    assert set(rows) == set(range(16 - SHIFT, 16 + SHIFT + 1))
    mirrored = 31 - 16
    assert set(columns) == set(range(mirrored - SHIFT, 16 + SHIFT + 1))


def test_pixels_are_scaled_as_the_networks_were_trained() -> None:
    batch = next(made_up_task().batches("test", 1))
    grey = (20 * int(batch.targets[0]) + 30) / 255
    assert batch.inputs[0][0, :, 5, 5].tolist() == pytest.approx(
        [(grey - 0.485) / 0.229, (grey - 0.456) / 0.224, (grey - 0.406) / 0.225]
    )


def test_too_few_images_are_refused() -> None:
    task = made_up_task()
    task._sizes = {**SIZES, "score": NUM_TRAIN}
    with pytest.raises(UserError, match=r"the fixed splits need 276 training images .* there are 200"):
        task.num_examples("score")


@pytest.mark.parametrize("depth", [20, 32, 44])
def test_the_cards_are_true(depth: int) -> None:
    """All that can be known without data."""
    name = f"cifar10-resnet{depth}"
    card, task = TASKS[name], make_task(name)
    model, inputs = task.build_model().eval(), task.example_inputs(2)
    assert (task.name, task.metric, task.depth) == (card.name, card.metric, depth)
    assert card.num_blocks == len(find_blocks(model, inputs))
    conv = 16 * 16 * 9 * 32 * 32  # of a convolution in a block, in every stage; two that thin pixels out take half
    by_hand = 3 * 16 * 9 * 32 * 32 + (depth - 2) * conv - 2 * conv // 2 + 64 * 10
    assert count_macs(model, task.example_inputs(1)).total == by_hand
    check_tasks([name])


def test_where_the_stream_gets_wider_the_shortcut_has_zeros_on_either_side() -> None:
    stream = torch.rand(2, 16, 8, 8) + 1
    found = CifarBlock(16, 32, 2).shortcut(stream)
    assert torch.equal(found[:, 8:24], stream[:, :, ::2, ::2])
    assert not found[:, :8].any() and not found[:, 24:].any()
    assert CifarBlock(16, 16, 1).shortcut(stream) is stream


def test_blocks_and_groups_of_resnet20() -> None:
    task = make_task("cifar10-resnet20")
    model, inputs = task.build_model(), task.example_inputs(2)
    model.load_state_dict(random_weights(20))
    model.eval()
    blocks = find_blocks(model, inputs)
    assert blocks == [f"layer1.{i}" for i in range(3)] + [f"layer{k}.{i}" for k in (2, 3) for i in (1, 2)]
    structure = find_groups(model, inputs, blocks, task.protected)
    inner = {f"layer{k}.{i}.conv1": 16 * 2 ** (k - 1) for k in (1, 2, 3) for i in range(3)}
    assert {group.name: group.num_units for group in structure.groups} == inner
    assert {group.kind for group in structure.groups} == {"conv"}


def test_a_run_its_model_and_its_export(tmp_path: Path, quiet: Console) -> None:
    task = made_up_task()
    recipe = Recipe(
        name="small",
        task=task.name,
        seed=0,
        device="cpu",
        stages=(BlockDrop(num_blocks=1, criterion="loss"), ChannelPrune(widths={"layer3.0.conv1": 32})),
        measure=Measure(batch_sizes=(1,), threads=1, repeats=3, warmup=0),
    )
    record = run(recipe, task=task, out=tmp_path / "run", console=quiet)
    again = run(recipe, task=task, out=tmp_path / "run", resume=True, console=quiet)
    assert again == record and record.finished
    model = load_model(tmp_path / "run", task.build_model())
    assert float(task.hits(model, "test").double().mean()) == record.steps[-1].measurement.quality_on("test").value
    report = export_model(model, task.example_inputs, tmp_path / "model.pt2", ExportSettings(format="torch_export"))
    assert max(entry.relative for entry in report.parity) < 1e-4


def test_a_saved_model_is_built_again_without_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quiet: Console
) -> None:
    monkeypatch.setenv("TOOLKIT_DATA", str(tmp_path))
    task = Cifar10Task(20, images=made_up_task()._load, weights=random_weights, sizes=SIZES)
    recipe = Recipe(
        name="small",
        task=task.name,
        seed=0,
        device="cpu",
        stages=(BlockDrop(blocks=("layer2.1",), repair="none"),),
        measure=Measure(batch_sizes=(1,), threads=1, repeats=3, warmup=0, splits=("test",)),
    )
    run(recipe, task=task, out=tmp_path / "run", console=quiet)
    assert load_model(tmp_path / "run")(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


def test_without_the_data_one_sentence_says_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = rf"cs.toronto.edu/~kriz/cifar-10-binary.tar.gz, run python -m .*convert.* {IMAGES_SHA256}\)"
    weights = "resnet20-12fca82f.th of https://github.com/akamaster/pytorch_resnet_cifar10 .*12fca82f0beb.*convert"
    monkeypatch.delenv("TOOLKIT_DATA", raising=False)
    with pytest.raises(UserError, match=f"the CIFAR-10 images are missing: TOOLKIT_DATA is not set; .*{images}"):
        make_task("cifar10-resnet20").num_examples("test")
    monkeypatch.setenv("TOOLKIT_DATA", str(tmp_path))
    with pytest.raises(UserError, match=rf"TOOLKIT_DATA=.* has no cifar10/cifar10.npz; .*{images}"):
        load_images()
    with pytest.raises(UserError, match=rf"has no cifar10/resnet20.safetensors; .*{weights}") as caught:
        make_task("cifar10-resnet20").load_baseline()
    assert "\n" not in str(caught.value)


def test_changed_data_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = made_up_arrays()
    right, path = checksum(arrays), tmp_path / "cifar10" / "cifar10.npz"
    path.parent.mkdir()
    np.savez_compressed(path, **arrays)
    assert len(read_images(path, right).train) == NUM_TRAIN
    monkeypatch.setenv("TOOLKIT_DATA", str(tmp_path))
    with pytest.raises(UserError, match=f"the SHA-256 of its arrays is {right}, expected {IMAGES_SHA256}; download"):
        load_images()
    arrays["y_test"][3] += 1
    np.savez(path, **arrays)
    with pytest.raises(UserError, match=f"expected {right}"):
        read_images(path, right)
    weights = tmp_path / "cifar10" / "resnet20.safetensors"
    save_file(random_weights(20), weights)
    with pytest.raises(UserError, match=f"expected {WEIGHTS_SHA256[20]}; download .*resnet20-12fca82f.th"):
        load_weights(20)
    weights.write_bytes(b"no weights")
    with pytest.raises(UserError, match="cannot be read as a safetensors file"):
        load_weights(20)


@pytest.mark.skipif(not os.environ.get("TOOLKIT_DATA"), reason="needs the real images (TOOLKIT_DATA)")
@pytest.mark.parametrize(("depth", "hits"), [(20, 9173), (32, 9263), (44, 9310)])
def test_the_real_networks(depth: int, hits: int) -> None:
    task = make_task(f"cifar10-resnet{depth}")
    assert int(task.hits(task.load_baseline(), "test").sum()) == hits
