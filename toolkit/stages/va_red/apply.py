"""Makes convolutions dynamic: fits what rebuilds the parts that are not computed, and trains or chooses the options."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import nn

from toolkit.base.errors import StageError
from toolkit.hooks.copies import copy_model
from toolkit.hooks.modes import evaluating
from toolkit.hooks.points import Inputs
from toolkit.measure.input_macs import macs_of_inputs
from toolkit.repair.batch_norm import reestimate_batch_norms
from toolkit.stages.context import StageContext, to_device
from toolkit.stages.curve import training_of
from toolkit.stages.detail import DynamicLayer, Target
from toolkit.stages.recorded import TrainingDetail
from toolkit.stages.va_red.constant import Option, cheapest, refit, score_options, settle
from toolkit.stages.va_red.detail import VaRedDetail
from toolkit.stages.va_red.options import Offered, offers, words_of
from toolkit.stages.va_red.policy import policy_loss
from toolkit.stages.va_red.settings import VaRed
from toolkit.stages.va_red.wrap import LayerMoments, MapErrors, collect, wrap
from toolkit.stand_ins.decisions import choices_noted, dynamic_layers, gated_layers
from toolkit.stand_ins.dynamic_conv import DynamicConv
from toolkit.tasks.evaluate import evaluate
from toolkit.tasks.task import AlignmentOptions, Task
from toolkit.training.fit import FitConfig, Objective, fit

SCORED_EXAMPLES = 256  # at the most, for the table of constant options


def apply_va_red(model: nn.Module, task: Task, config: VaRed, context: StageContext) -> tuple[nn.Module, VaRedDetail]:
    """Replaces convolutions by dynamic ones, whose maps are fitted to calibration data, and decides on their options.

    Raises:
        StageError: no convolution can be dynamic, the target cannot be reached, or the training cannot be made.
    """
    if dynamic_layers(model):
        raise StageError("the model has dynamic layers already; one stage va_red decides on all of them")
    inputs = context.example_inputs(task)
    with evaluating(model):
        offered, refused = offers(model, inputs, config)
    if not offered:
        raise StageError(f"no convolution can be dynamic here ({words_of(refused) or 'the model has none'})")
    context.console.line(f"  {len(offered)} convolutions can be dynamic, {len(refused)} cannot")
    moments = collect(model, offered, context.inputs(task, "calibration"))
    if config.scope == "constant":
        return _constant(model, task, config, context, offered, refused, moments)
    map_errors = wrap(model, offered, moments, config)
    costs = {name: layer.option_macs((1, *moments[name].shape[1:])) for name, layer in dynamic_layers(model).items()}
    training = _train(model, task, config, context)
    num_norms = 0
    if config.batch_norm == "reestimate":
        num_norms = reestimate_batch_norms(model, context.inputs(task, "calibration"))
    shares = _decided(model, context.inputs(task, "calibration"))
    of_inputs = macs_of_inputs(model, context.inputs(task, "calibration"), context.smallest_batch)
    detail = VaRedDetail(
        scope=config.scope,
        layers=_layers(model, map_errors, costs, shares),
        refused=refused,
        macs_ratio=Target(achieved=of_inputs.mean / context.dense_macs if context.dense_macs else None),
        batch_norms_reestimated=num_norms,
        training_result=training,
    )
    return model, detail


def _constant(
    model: nn.Module,
    task: Task,
    config: VaRed,
    context: StageContext,
    offered: Mapping[str, Offered],
    refused: dict[str, str],
    moments: Mapping[str, LayerMoments],
) -> tuple[nn.Module, VaRedDetail]:
    """Chooses the options for the target from single scores, fits the maps again in order, and returns the model."""
    before = context.macs_ratio(model)
    assert config.macs_ratio is not None and context.dense_macs is not None
    reference = copy_model(model)
    originals = {name: model.get_submodule(name) for name in offered}
    map_errors = wrap(model, offered, moments, config)
    layers = dynamic_layers(model)
    costs = {name: layers[name].option_macs((1, *moments[name].shape[1:])) for name in offered}
    full = sum(options[0, 0] for options in costs.values())
    most = int((config.macs_ratio - before) * context.dense_macs) + full
    chosen: dict[str, Option] = dict.fromkeys(costs, (0, 0))
    if before > config.macs_ratio:
        divergence = _divergence(task, reference, context)
        errors = score_options(model, divergence, costs, context.console)
        chosen = cheapest(errors, costs, most)
    detail_layers = _layers(model, map_errors, costs, {})
    names = settle(model, originals, chosen)
    refit(model, reference, names, lambda: context.inputs(task, "calibration"))
    num_norms = 0
    if names and config.batch_norm == "reestimate":
        num_norms = reestimate_batch_norms(model, context.inputs(task, "calibration"))
    taken = {name: (offered[name].steps[step], offered[name].channels[part]) for name, (step, part) in chosen.items()}
    detail = VaRedDetail(
        scope=config.scope,
        layers=tuple(
            layer.model_copy(update={"steps": (taken[layer.name][0],), "channels": (taken[layer.name][1],)})
            for layer in detail_layers
        ),
        refused=refused,
        macs_ratio=Target(asked=config.macs_ratio, achieved=context.known_macs_ratio(model)),
        batch_norms_reestimated=num_norms,
    )
    return model, detail


def _divergence(task: Task, reference: nn.Module, context: StageContext) -> Callable[[nn.Module], float]:
    """Returns a function that gives the mean distance of a model's predictions to those of the reference."""
    batches = list(context.batches(task, "score", limit=SCORED_EXAMPLES))
    with torch.no_grad(), evaluating(reference):
        teachers = [reference(*batch.inputs) for batch in batches]

    @torch.no_grad()
    def divergence(model: nn.Module) -> float:
        total, count = 0.0, 0
        with evaluating(model):
            for batch, teacher in zip(batches, teachers, strict=True):
                terms = task.alignment(model(*batch.inputs), teacher, batch.targets, AlignmentOptions())
                if not terms:
                    raise StageError(f"{task.name} has no alignment terms, by which options are chosen")
                size = len(batch.inputs[0])
                total, count = total + size * float(torch.stack(list(terms.values())).sum()), count + size
        return total / count

    return divergence


def _train(model: nn.Module, task: Task, config: VaRed, context: StageContext) -> TrainingDetail:
    """Trains the policy; the last weights are kept, because validation does not know what the model costs."""
    batches = task.train_batches(config.batch_size, context.seed)
    settings = FitConfig(
        max_steps=config.max_steps,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        warmup_steps=config.warmup_steps,
        validate_every=config.validate_every,
        select="last",
    )
    objective = Objective(
        (to_device(batch, context.device) for batch in batches),
        policy_loss(task, config, context.dense),
        lambda trained: evaluate(task, trained, "validation"),
    )
    checkpoint = context.rounds.alignment(1)
    result = fit(
        model, objective, settings, judge_start=True, console=context.console, title="policy", checkpoint=checkpoint
    )
    return training_of(result, settings, task, context.console, "policy")


def _decided(model: nn.Module, batches: Iterable[Inputs]) -> dict[str, dict[Option, float]]:
    """Returns how often each option is taken, by layer; the most frequent option of each layer is noted in it."""
    with torch.no_grad(), evaluating(model), choices_noted(model) as noted:
        for inputs in batches:
            model(*inputs)
    shares: dict[str, dict[Option, float]] = {}
    for name, layer in gated_layers(model).items():
        decisions = [(step, part) for call in noted[name].decisions for step, part in call.tolist()]
        counts = Counter(decisions)
        shares[name] = {option: counts[option] / len(decisions) for option in layer.arguments.options}
        layer.arguments = layer.arguments.model_copy(update={"chosen": max(counts, key=counts.__getitem__)})
    return shares


def _layers(
    model: nn.Module,
    errors: Mapping[str, MapErrors],
    costs: Mapping[str, Mapping[Option, int]],
    shares: Mapping[str, Mapping[Option, float]],
) -> tuple[DynamicLayer, ...]:
    """Returns what the record says of the layers while they still offer all options."""
    return tuple(
        DynamicLayer(
            name=name,
            steps=layer.arguments.steps,
            channels=layer.arguments.channels,
            of=layer.arguments.width,
            rebuilt_by=layer.arguments.rebuilt_by,
            channel_errors=errors[name].channels,
            step_errors=errors[name].steps,
            macs={_words(layer, option): macs for option, macs in costs[name].items()},
            shares={_words(layer, option): share for option, share in shares.get(name, {}).items()},
        )
        for name, layer in dynamic_layers(model).items()
    )


def _words(layer: DynamicConv, option: Option) -> str:
    return f"{layer.arguments.steps[option[0]]} x {layer.arguments.channels[option[1]]}"
