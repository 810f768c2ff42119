"""Holds the tiny sizes of a rehearsal: every cell runs on the CPU in seconds, and no figure means anything."""

from __future__ import annotations

from pathlib import Path

from toolkit.base.files import write_atomically
from toolkit.benchmarks.cuda.bench import Sizes
from toolkit.benchmarks.cuda.cells import RECIPES
from toolkit.benchmarks.cuda.pairs import MODELS, tiny
from toolkit.measure.runtimes.compiled import compiled
from toolkit.measure.runtimes.eager import EAGER_RUNTIME
from toolkit.recipe.compose import compose
from toolkit.recipe.read import dump_recipe
from toolkit.recipe.recipe import Measure
from toolkit.stages.block_drop.settings import BlockDrop
from toolkit.stages.channel_prune.settings import ChannelPrune, Keep
from toolkit.tasks.cards import any_model_task
from toolkit.zoo.settings import ZooModel

_MODEL = ZooModel(
    name="timm/vit_tiny_patch16_224",
    arguments={"img_size": 32, "embed_dim": 16, "depth": 2, "num_heads": 2, "mlp_ratio": 1.0, "num_classes": 4},
    examples=2,
)


def tiny_sizes(work: Path) -> Sizes:
    """Returns the sizes of a rehearsal, and writes its recipes below `work`.

    torch.compile runs with a backend that needs no compiler. The CPU has no CUDA graphs, so those cells run eagerly.
    """
    return Sizes(
        models={name: tiny(model) for name, model in MODELS.items()},
        recipes={name: _recipe(work / f"{name}.yaml") for name in RECIPES},
        planned=(
            *("--task", any_model_task().name, "--model", _MODEL.model_dump_json()),
            *("--examples", "2", "--share", "0.9", "--threads", "1", "--repeats", "1", "--no-bypass"),
        ),
        runtimes={"eager": EAGER_RUNTIME, "compile": compiled("eager"), "cuda_graph": EAGER_RUNTIME},
        device="cpu",
        same=("vit_b_16", 2),
        warmup=0,
        repeats=3,
        threads=1,
        rehearsal=True,
    )


def _recipe(path: Path) -> Path:
    recipe = compose(
        task=any_model_task().name,
        model=_MODEL,
        depth=BlockDrop(num_blocks=1, criterion="block_mse"),
        width=ChannelPrune(keep=Keep(mlp=0.5)),
        measure=Measure(batch_sizes=(1,), threads=1, repeats=3, warmup=0, splits=("test",)),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, dump_recipe(recipe))
    return path
