"""python -m toolkit.inspect RUN: the folder of a run is all that it takes, wherever its recipe and weights were."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from toolkit import BlockDrop, Measure, Recipe, ZooModel, inspect, load_recipe, run
from toolkit.zoo.build import build_zoo_model

BERT = {"num_hidden_layers": 3, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48}


@pytest.mark.parametrize("words", [[], ["--check"]])
def test_of_a_zoo_model_with_weights_that_are_elsewhere(words: list[str], tmp_path: Path) -> None:
    origin = tmp_path / "origin"
    origin.mkdir()
    torch.manual_seed(3)
    save_file(build_zoo_model("transformers/bert", BERT).state_dict(), origin / "w.safetensors")
    recipe = Recipe(
        name="bert",
        task="zoo",
        seed=0,
        device="cpu",
        model=ZooModel(name="transformers/bert", arguments=BERT, input_size=6, weights="w.safetensors", examples=2),
        stages=(BlockDrop(num_blocks=1, criterion="random"),),
        measure=Measure(batch_sizes=(1,), threads=1, repeats=3, warmup=0, splits=("test",)),
    )
    record = run(recipe, folder=origin, out=tmp_path / "run")
    (origin / "w.safetensors").unlink()
    assert load_recipe(tmp_path / "run") == record.recipe
    assert inspect.main([str(tmp_path / "run"), "--json", str(tmp_path / "found.json"), *words]) == 0
    assert json.loads((tmp_path / "found.json").read_text())["macs"] == record.steps[-1].measurement.macs.total
