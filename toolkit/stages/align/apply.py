"""Trains what is left by cross-depth alignment (Progressive Block Drop, CVPR 2025, arXiv 2503.16916).

Remaining blocks of the student are matched with those of the teacher by name. With `trainable: lora` only adapters on
attention, norms, embedding and head are trained, and the adapters are merged at the end: the resulting model has the
modules, parameters and flags of the original one.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from toolkit.base.errors import StageError
from toolkit.blocks.dropped import dropped_blocks
from toolkit.blocks.find import find_blocks
from toolkit.hooks.copies import copy_model
from toolkit.hooks.modes import without_fast_path
from toolkit.hooks.order import execution_order
from toolkit.stages.align.adapters import Adapted, find_targets, plan_adapters
from toolkit.stages.align.detail import AlignDetail
from toolkit.stages.align.loss import AlignLoss
from toolkit.stages.align.settings import Align
from toolkit.stages.align.trainable import flags_kept, norm_parameters, outside_parameters
from toolkit.stages.context import StageContext, to_device
from toolkit.stages.curve import training_of
from toolkit.stages.recorded import TrainingDetail
from toolkit.tasks.evaluate import evaluate
from toolkit.tasks.task import Batch, Task
from toolkit.training.fit import FitConfig, Objective, fit


def apply_align(model: nn.Module, task: Task, config: Align, context: StageContext) -> tuple[nn.Module, AlignDetail]:
    """Aligns the model as a stage of its own; a dynamic teacher is the model before the stage.

    Raises:
        StageError: as in `align_model`.
    """
    teacher = context.dense if config.teacher == "static" else copy_model(model).eval()
    return model, align_model(model, teacher, task, config, context, checkpoint=context.rounds.alignment(1))


def align_model(
    model: nn.Module,
    teacher: nn.Module,
    task: Task,
    config: Align,
    context: StageContext,
    *,
    data_share: float | None = None,
    checkpoint: Path | None = None,
) -> AlignDetail:
    """Trains `model` in place towards `teacher`, which has at least the blocks of the model and is in eval mode.

    With `select: best` the model stays unchanged if no step is better on validation data. All randomness comes from
    `context.seed`.

    data_share: replaces the one in `config`.
    checkpoint: file from which an interrupted call with the same model resumes; the caller removes it.

    Raises:
        StageError: there are no blocks or targets, a weight has no term, or a loss is not a finite number.
    """
    inputs = context.example_inputs(task)
    blocks = _blocks_left(model, config, context, inputs)
    share = config.data_share if data_share is None else data_share
    settings, title = FitConfig.of(config), f"align ({config.trainable})"
    with _seeded(context), flags_kept(model) as frozen:
        adapted = _choose_trainable(model, blocks, inputs, config, frozen)
        num_trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        result = fit(
            model,
            Objective(
                _train_batches(task, config, context, share),
                AlignLoss(task, teacher, blocks, config),
                lambda trained: evaluate(task, trained, "validation"),
            ),
            settings,
            judge_start=True,
            console=context.console,
            title=title,
            checkpoint=checkpoint,
        )
        if adapted is not None and result.best_step == 0:
            adapted.remove()
        elif adapted is not None:
            adapted.merge()
    training = training_of(result, settings, task, context.console, title)
    return _detail(config, blocks, adapted, share, num_trained, training)


def _blocks_left(model: nn.Module, config: Align, context: StageContext, inputs: tuple[Tensor, ...]) -> tuple[str, ...]:
    """Returns the blocks of the unmodified model that were not dropped, in execution order."""
    gone = set(dropped_blocks(model))
    blocks = tuple(name for name in find_blocks(context.dense, inputs) if name not in gone)
    if not blocks and (config.feature_weight or config.trainable == "lora"):
        raise StageError(
            "the model has no residual block to align or to put adapters into; "
            "use trainable: full with feature_weight: 0, or recover"
        )
    return blocks


def _choose_trainable(
    model: nn.Module, blocks: tuple[str, ...], inputs: tuple[Tensor, ...], config: Align, frozen: frozenset[str]
) -> Adapted | None:
    """Sets `requires_grad` on what is to be trained, and adds adapters if there are any.

    frozen: names of parameters that the user has frozen. They are not trained, and their layers get no adapters.
    """
    if config.trainable == "full":
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(parameter.requires_grad and name not in frozen)
        return None
    outside = outside_parameters(model, blocks, inputs)
    switches = (
        (config.train_norms, norm_parameters(model)),
        (config.train_embedding, outside.embedding),
        (config.train_head, outside.head),
    )
    chosen = {name for is_on, names in switches if is_on for name in names} - frozen
    parameters = [parameter for name, parameter in model.named_parameters() if name in chosen]
    with without_fast_path():
        layers = find_targets(model, blocks, config.targets, execution_order(model, inputs))
    if frozen.issuperset(f"{layer}.weight" for layer in layers):
        raise StageError(
            f"targets ({', '.join(config.targets)}) match no linear layer inside the model's blocks that is not frozen "
            "(requires_grad is False); unfreeze some in the trained model, or match others"
        )
    layers = [layer for layer in layers if f"{layer}.weight" not in frozen]
    adapted = Adapted(model, plan_adapters(model, layers, config.lora_rank, config.lora_alpha))
    for parameter in parameters:
        parameter.requires_grad_(True)
    return adapted


def _train_batches(task: Task, config: Align, context: StageContext, share: float) -> Iterator[Batch]:
    if share < 1.0 and "share" not in inspect.signature(task.train_batches).parameters:
        raise StageError(
            f"data_share is {share}, but train_batches of task {task.name!r} takes no `share`; use data_share: 1.0"
        )
    options = {"share": share} if share < 1.0 else {}
    batches = task.train_batches(config.batch_size, context.seed, **options)
    return (to_device(batch, context.device) for batch in batches)


@contextmanager
def _seeded(context: StageContext) -> Iterator[None]:
    """Makes the start of adapters and dropout follow the seed, also in a run that was resumed."""
    devices = [context.device] if context.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(context.seed)
        yield


def _detail(
    config: Align,
    blocks: tuple[str, ...],
    adapted: Adapted | None,
    data_share: float,
    num_trained: int,
    training: TrainingDetail,
) -> AlignDetail:
    return AlignDetail(
        teacher=config.teacher,
        trainable=config.trainable,
        blocks=blocks,
        adapters=() if adapted is None else adapted.detail(),
        num_trained_params=num_trained,
        data_share=data_share,
        **dict(training),
    )
