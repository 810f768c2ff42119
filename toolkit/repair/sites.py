"""Where a linear layer's output joins the stream: found by shifting the output and watching what shifts with it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

import torch
from torch import nn

from toolkit.channels.cut import KeptUnits
from toolkit.hooks.order import execution_order
from toolkit.hooks.points import ActivationPoint, Inputs, capture
from toolkit.repair.fit import Site
from toolkit.repair.joint import PLAIN, Joint, find_joint, move_like, moved_by, norm_of, shifted
from toolkit.repair.layers import can_be_fitted


def adds_to(model: nn.Module, layer: str, point: ActivationPoint, inputs: Inputs) -> bool:
    """Whether shifting the layer's output shifts the stream at `point` by exactly as much, whatever the shift."""
    places = {point, ActivationPoint(layer, "output")}
    before = capture(model, inputs, places)
    if len(before) < len(places) or before[point].shape != before[ActivationPoint(layer, "output")].shape:
        return False
    output = before[ActivationPoint(layer, "output")]
    shift = move_like(output)
    with shifted(model.get_submodule(layer), shift):
        after = capture(model, inputs, {point})
    return moved_by(shift, after[point] - before[point])


def absorber(model: nn.Module, block: str, inputs: Inputs, order: list[str]) -> tuple[str, Joint] | None:
    """The last layer before `block` that can be fitted and whose output joins the block's input, and how it does."""
    before = order[: order.index(block)]
    for name in reversed(before):
        if can_be_fitted(model.get_submodule(name)) and order.count(name) == 1:
            joint = find_joint(model, name, ActivationPoint(block, "input"), inputs, order)
            if joint is not None:
                return name, joint
    return None


def depth_site(
    model: nn.Module, block: str, inputs: Inputs, order: list[str], goal_block: str | None = None
) -> Site | None:
    """How to make up for dropping `block`: the stream into it should become the reference's stream out of it.

    goal_block: the block whose output in the reference is the goal, where blocks behind `block` are gone already.
    """
    found = absorber(model, block, inputs, order)
    if found is None:
        return None
    layer, joint = found
    goal = ActivationPoint(goal_block or block, "output")
    return Site(layer, ActivationPoint(block, "input"), goal, joint=joint)


def last_gone_after(module: str, gone: Collection[str], dense_order: Sequence[str]) -> str:
    """Returns the last of the blocks that follow `module` without a gap and are gone; `module` itself where none is.

    dense_order: the modules of the unmodified model in execution order.
    """
    last = module
    while True:
        ends = [place for place, name in enumerate(dense_order) if name == last or name.startswith(f"{last}.")]
        following = dense_order[max(ends) + 1 :][:1] if ends else []
        if not following or following[0] not in gone:
            return last
        last = following[0]


def joining_point(
    model: nn.Module, layer: str, block: str | None, inputs: Inputs, order: list[str]
) -> tuple[ActivationPoint, Joint]:
    """Where the output of `layer` joins the stream, and how; its own output where that is not to be seen.

    The stream is looked for at the inputs of the modules that follow inside `block`, then at the block's output, where
    it may have passed an activation.
    """
    own = ActivationPoint(layer, "output")
    block = block or layer.rpartition(".")[0]
    if not block:
        return own, PLAIN
    inside = [name for name in order[order.index(layer) + 1 :] if name.startswith(f"{block}.")]
    points = [*(ActivationPoint(name, "input") for name in inside), ActivationPoint(block, "output")]
    before = capture(model, inputs, {own, *points})
    output = before[own]
    shift = move_like(output)
    with shifted(model.get_submodule(layer), shift):
        after = capture(model, inputs, points)
    for point in points:  # nothing is added between the layer and a point that sees just its output
        if point not in after or before[point].shape != output.shape:
            continue
        is_stream = not torch.equal(before[point], output)
        if is_stream and moved_by(shift, after[point] - before[point]):
            return point, PLAIN
    joint = find_joint(model, layer, points[-1], inputs, order) if order.count(layer) == 1 else None
    return (own, PLAIN) if joint is None else (points[-1], joint)


def rest_point(model: nn.Module, layer: str, block: str, inputs: Inputs, order: list[str]) -> ActivationPoint | None:
    """Where inside `block` the stream can be seen that, plus the layer's output, is the block's output bit for bit."""
    before = [name for name in order[: order.index(layer)] if name.startswith(f"{block}.")]
    ends = ActivationPoint(layer, "output"), ActivationPoint(block, "output")
    seen = capture(model, inputs, {*(ActivationPoint(name, "input") for name in before), *ends})
    added, output = (seen[end] for end in ends)
    for name in reversed(before):
        rest = seen.get(ActivationPoint(name, "input"))
        if rest is not None and rest.shape == added.shape and torch.equal(rest + added, output):
            return ActivationPoint(name, "input")
    return None


def reader_sites(
    model: nn.Module,
    choices: Sequence[KeptUnits],
    order: Sequence[str],
    join: Callable[[str], tuple[ActivationPoint, Joint]],
    aim_at: Callable[[str, ActivationPoint, Joint], tuple[ActivationPoint, Joint | None]],
) -> list[Site]:
    """Of a model that is cut already: the layers to refit in execution `order`, and what each should aim at.

    `join` tells where and how a layer's output joins the stream, `aim_at` what that is to become in the reference.
    Where outputs were cut too, sites name those that are left.
    """
    changed = [choice for choice in choices if choice.changes]
    kept = {
        slot.module: tuple(choice.kept(slot)) for choice in changed for slot in choice.group.slots if slot.role == "out"
    }
    readers = {name for choice in changed for name in choice.group.consumers}
    sites = []
    for layer in sorted((name for name in readers if can_be_fitted(model.get_submodule(name))), key=order.index):
        point, joint = join(layer)
        goal, goal_joint = aim_at(layer, point, joint)
        sites.append(Site(layer, point, goal, kept.get(layer, ()), joint, goal_joint))
    return sites


def goal_of(
    dense: nn.Module,
    layer: str,
    point: ActivationPoint,
    joint: Joint,
    inputs: Inputs,
    gone: Collection[str],
    dense_order: Sequence[str],
) -> tuple[ActivationPoint, Joint | None]:
    """What the stream at a reader's `point` is to become: where that is in the unmodified model, and how it is seen.

    It is the same place, before the activation that the sum passes there; or, where the blocks behind it are gone, the
    stream behind those.
    """
    if point.side == "output" and point.module != layer:
        last = last_gone_after(point.module, gone, dense_order)
        if last != point.module:
            return ActivationPoint(last, "output"), None
    if joint.behind == "nothing":
        return point, None
    return point, find_joint(dense, layer, point, inputs, dense_order)


def norms_behind(model: nn.Module, sites: Sequence[Site], inputs: Inputs) -> set[str]:
    """The BatchNorms that read a refitted layer and were not fitted with it: what they normalise has changed."""
    order = execution_order(model, inputs)
    found = (norm_of(model, site.layer, inputs, order) for site in sites if site.joint.norm is None)
    return {name for name in found if name is not None}


def home_of(layer: str, blocks: Iterable[str]) -> str | None:
    """The block that the layer is in."""
    return next((name for name in blocks if layer.startswith(f"{name}.")), None)
