"""Fine-tunes a compressed model with the dense model as teacher."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from toolkit.base.errors import StageError
from toolkit.hooks.held import attributes_kept
from toolkit.hooks.tensors import usable_in_training
from toolkit.stages.context import StageContext, to_device
from toolkit.stages.curve import training_of
from toolkit.stages.recover.detail import RecoverDetail
from toolkit.stages.recover.settings import Recover
from toolkit.tasks.evaluate import evaluate
from toolkit.tasks.task import AlignmentOptions, Batch, Task
from toolkit.training.fit import FitConfig, Objective, fit
from toolkit.training.step import Loss


def apply_recover(
    model: nn.Module, task: Task, config: Recover, context: StageContext
) -> tuple[nn.Module, RecoverDetail]:
    """Trains all weights on the task loss plus the distance of the predictions to those of the dense model.

    With `select: best` the model is returned unchanged if no step is better on validation data, also if the loss stops
    being a finite number. An interrupted training resumes from its checkpoint.

    Raises:
        StageError: the loss is not a finite number and the last weights are asked for, or nothing can be aligned.
    """

    settings = FitConfig.of(config)
    result = fit(
        model,
        Objective(
            _on_device(task.train_batches(config.batch_size, context.seed), context.device),
            recovery_loss(task, config, context.dense),
            lambda trained: evaluate(task, trained, "validation"),
        ),
        settings,
        judge_start=True,
        console=context.console,
        title="recover",
        checkpoint=context.rounds.alignment(1),
    )
    return model, RecoverDetail(**dict(training_of(result, settings, task, context.console, "recover")))


def recovery_loss(task: Task, config: Recover, dense: nn.Module) -> Loss:
    """Returns the loss of a model on a batch: the task's own, and the distance of the predictions to the dense model's.

    Raises:
        StageError: nothing can be aligned (raised where the loss is computed).
    """

    def loss(student: nn.Module, batch: Batch) -> Tensor:
        outputs = student(*batch.inputs)
        total = torch.zeros((), device=batch.inputs[0].device)
        if config.task_weight:
            total = total + config.task_weight * task.loss(outputs, batch.targets)
        if config.alignment_weight:
            with torch.no_grad(), attributes_kept(dense):
                teacher = usable_in_training(dense(*batch.inputs))
            terms = task.alignment(outputs, teacher, batch.targets, AlignmentOptions())
            if not terms:
                raise StageError(f"{task.name} has no alignment terms; set alignment_weight: 0")
            total = total + config.alignment_weight * torch.stack(list(terms.values())).sum()
        return total

    return loss


def _on_device(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    return (to_device(batch, device) for batch in batches)
