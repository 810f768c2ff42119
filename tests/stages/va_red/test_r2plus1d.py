"""All three axes in every order on torchvision's r2plus1d_18, with random weights and small clips."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch

from toolkit.base.console import Console
from toolkit.base.errors import StageError
from toolkit.checkpoint.load import load_model
from toolkit.measure.macs import count_macs
from toolkit.recipe.recipe import Measure, Recipe
from toolkit.running.runner import run
from toolkit.stages.block_drop.settings import BlockDrop
from toolkit.stages.channel_prune.settings import ChannelPrune
from toolkit.stages.settings import Stage
from toolkit.stages.va_red.settings import VaRed
from toolkit.stand_ins.decisions import dynamic_layers, gated_layers
from toolkit.tasks.cards import make_task
from toolkit.zoo.settings import ZooModel

pytestmark = pytest.mark.slow

MODEL = ZooModel(name="torchvision/r2plus1d_18", input_size=32, examples=4)
DROP = BlockDrop(num_blocks=1)
CUT = ChannelPrune(macs_ratio=0.8, round_to=4, repair="none")
GATED = VaRed(max_steps=2, validate_every=2, warmup_steps=0, batch_size=2, correct_only=False, steps=(1, 2))


@pytest.mark.parametrize(
    "stages", list(itertools.permutations((DROP, CUT, GATED))), ids=lambda stages: "-".join(s.type for s in stages)
)
def test_any_order_runs_or_says_why_not(stages: tuple[Stage, ...], tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    measure = Measure(batch_sizes=(1,), threads=1, repeats=3, warmup=0, splits=("validation",))
    recipe = Recipe(name="orders", task="zoo", seed=0, device="cpu", model=MODEL, stages=stages, measure=measure)
    if stages.index(CUT) > stages.index(GATED):
        with pytest.raises(StageError, match="cut channels before that stage"):
            run(recipe, out=tmp_path / "run", console=Console())
        return
    record = run(recipe, out=tmp_path / "run", console=Console())
    task = make_task("zoo", MODEL)
    model = load_model(tmp_path / "run", task.build_model())
    assert gated_layers(model) and len(gated_layers(model)) == len(dynamic_layers(model))
    (clips,) = task.example_inputs(2)
    with torch.no_grad():
        together, alone = model(clips), torch.cat([model(clip[None]) for clip in clips])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-4)
    measured = record.steps[-1].measurement.macs
    assert measured.of_inputs is not None
    costs = [
        count_macs(model, (clip[None],)).total for batch in task.batches("validation", 2) for clip in batch.inputs[0]
    ]
    assert measured.total == round(sum(costs) / len(costs))
