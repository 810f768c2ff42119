"""Pictures come as timm prepares them; only training is augmented, and seeds fix what is random."""

from __future__ import annotations

import itertools
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.models
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torch import Tensor
from torchvision.models import ResNet18_Weights, get_model_weights, list_models

from tests.helpers.pictures import ARGUMENTS, made_up, recipe, settings, write_all
from toolkit.base.errors import UserError
from toolkit.tasks.images.pictures import Pictures
from toolkit.tasks.images.reading import Reader
from toolkit.tasks.images.task import ImageTask, make_image_task
from toolkit.tasks.images.transforms import prepare, seeded
from toolkit.zoo.build import build_zoo_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    write_all(folder)
    return folder


def made(folder: Path, **task: Any) -> ImageTask:
    return make_image_task(settings(**task), folder)


def first_training(task: ImageTask, seed: int = 0, count: int = 2) -> list[Tensor]:
    return [batch.inputs[0] for batch in itertools.islice(task.train_batches(4, seed), count)]


def test_fixed_splits_are_those_of_timm(folder: Path) -> None:
    task = made(folder)
    model = task.build_model()
    config = resolve_data_config({"input_size": (3, 32, 32)}, model=model)
    transform: Any = create_transform(**config)
    paths = sorted((folder / "pictures" / "test" / "bee").iterdir())
    expected = torch.stack([transform(Image.open(path)) for path in paths])
    assert torch.equal(next(iter(task.batches("test", 4))).inputs[0], expected)


def test_torchvision_models_are_prepared_for_as_published() -> None:
    chosen = settings(model={"name": "torchvision/resnet18", "weights": "w.pt"})
    made_ready = prepare(chosen, build_zoo_model("torchvision/resnet18"))
    picture = Image.fromarray(made_up(1, 0, 300)[0][0])
    expected = ResNet18_Weights.DEFAULT.transforms()(picture)
    assert expected.shape == (3, 224, 224)
    assert torch.allclose(made_ready.scaled(made_ready.fixed(picture)[None])[0], expected, atol=1e-6)


def test_sizes_of_published_presets_survive_the_rounding_of_timm() -> None:
    presets = [get_model_weights(name).DEFAULT.transforms() for name in list_models(module=torchvision.models)]
    sizes = [(preset.crop_size[0], preset.resize_size[0]) for preset in presets if hasattr(preset, "crop_size")]
    assert len(sizes) > 50
    assert [(crop, resize) for crop, resize in sizes if math.floor(crop / (crop / resize)) != resize] == []


def test_settings_replace_the_models_own() -> None:
    arguments = {**ARGUMENTS, "img_size": 48, "in_chans": 1}
    model = {"name": "timm/test_vit", "arguments": arguments, "weights": "w.pt"}
    chosen = settings(model=model, mean=[0.25], std=[0.5], crop=1.0)
    made_ready = prepare(chosen, build_zoo_model("timm/test_vit", arguments))
    white = made_ready.fixed(Image.new("RGB", (60, 60), "white").convert(made_ready.mode))
    assert made_ready.mode == "L" and white.shape == (1, 48, 48)
    assert torch.allclose(made_ready.scaled(white), torch.tensor(1.5))


def test_only_training_is_random(folder: Path) -> None:
    task, again = made(folder), made(folder)
    for split in ("score", "calibration", "holdout", "validation", "test"):
        one, other = ([batch.inputs[0] for batch in each.batches(split, 5)] for each in (task, again))
        assert all(map(torch.equal, one, other))
        assert all(map(torch.equal, one, (batch.inputs[0] for batch in task.batches(split, 5))))
    plain = torch.cat(first_training(made(folder, augment=None)))
    assert not torch.equal(torch.cat(first_training(task)), plain)


def test_the_seed_fixes_training(folder: Path) -> None:
    task = made(folder)
    first = first_training(task, 1)
    torch.manual_seed(5)
    random.seed(5)
    assert all(map(torch.equal, first, first_training(made(folder), 1)))
    assert not all(map(torch.equal, first, first_training(task, 2)))
    assert torch.rand(1) == torch.rand(1, generator=torch.Generator().manual_seed(5))  # nothing was drawn from it


def test_random_generators_get_their_state_back() -> None:
    draws = []
    for inside in (False, True):
        torch.manual_seed(1)
        random.seed(1)
        np.random.seed(1)
        if inside:
            with seeded(7):
                torch.rand(3), random.random(), np.random.rand()
        draws.append((torch.rand(1).item(), random.random(), np.random.rand()))
    assert draws[0] == draws[1]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_workers_read_the_same(folder: Path) -> None:
    alone, helped = made(folder), made(folder, workers=2)
    assert all(map(torch.equal, first_training(alone), first_training(helped)))
    parts = [torch.cat([batch.inputs[0] for batch in task.batches("test", 5)]) for task in (alone, helped)]
    assert torch.equal(*parts)


def test_a_limit_begins_with_the_same_pictures(folder: Path) -> None:
    task = made(folder)
    few = list(task.batches("score", 5, limit=7))
    every = list(task.batches("score", 5))
    assert [len(batch.targets) for batch in few] == [5, 2] and sum(len(batch.targets) for batch in every) == 12
    assert torch.equal(few[1].inputs[0], every[1].inputs[0][:2]) and torch.equal(few[1].targets, every[1].targets[:2])


def test_what_does_not_fit_into_memory_is_read_again(folder: Path) -> None:
    preparation = prepare(settings(), build_zoo_model("timm/test_vit", ARGUMENTS))
    pixels, labels = made_up(6, 0)
    pictures = Pictures(labels, pixels=pixels)
    small, large = Reader(preparation, 0, most_bytes=5 * 3 * 32 * 32), Reader(preparation, 0)
    for _ in range(2):
        parts = [torch.cat([batch.inputs[0] for batch in reader.fixed(pictures, 4)]) for reader in (small, large)]
        assert torch.equal(*parts)
    assert not small.kept and [len(part) for part in large.kept.values()] == [6]


def test_a_picture_that_is_lost_on_the_way(folder: Path, tmp_path: Path) -> None:
    write_all(tmp_path)
    task = made(tmp_path)
    lost = sorted((tmp_path / "pictures" / "test" / "dog").iterdir())[1]
    lost.unlink()
    with pytest.raises(UserError, match=f"{lost}: there is no such file"):
        list(task.batches("test", 4))


def test_relative_paths_move_with_their_file(tmp_path: Path) -> None:
    chosen = settings(data={"folder": "/far/away"})
    moved = chosen.moved(tmp_path / "one", tmp_path / "two" / "deep")
    assert moved.model.weights == "../../one/weights.pth" and moved.data.folder == "/far/away"
    assert moved.moved(tmp_path / "two" / "deep", tmp_path / "one") == chosen


def test_a_recipe_holds_what_it_says() -> None:
    assert settings().zoo_model().arguments == recipe()["task"]["model"]["arguments"]
