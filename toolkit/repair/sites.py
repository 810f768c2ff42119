"""Finds where a layer's output joins the stream: shifts the output, and looks which activations shift with it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace

import torch
from torch import nn

from toolkit.channels.cut import KeptUnits
from toolkit.hooks.points import ActivationPoint, Inputs, capture
from toolkit.repair.joint import PLAIN, Joint, computes_as_its_class, find_joint, has_own_weights, norm_of
from toolkit.repair.layers import can_be_fitted
from toolkit.repair.moves import move_like, moved_by, shifted
from toolkit.repair.readers import reads_alone
from toolkit.repair.site import Site

MOST_CANDIDATES = 12  # layers that are tried for one block, more than blocks have


def absorber(model: nn.Module, block: str, inputs: Inputs, order: list[str]) -> tuple[str, Joint] | None:
    """Returns the last layer before `block` that can be refitted and joins the block's input, and its joint; or None.

    Only the MOST_CANDIDATES layers right before the block are tried, as each takes a few passes of the model.
    """
    earlier = reversed(order[: order.index(block)])
    once = (name for name in earlier if order.count(name) == 1)
    layers = (name for name in once if can_be_fitted(model.get_submodule(name)) and has_own_weights(model, name))
    for name in itertools.islice(layers, MOST_CANDIDATES):
        joint = find_joint(model, name, ActivationPoint(block, "input"), inputs, order)
        if joint is not None and computes_as_its_class(model, name, joint, inputs):
            return name, joint
    return None


def depth_site(
    model: nn.Module, block: str, inputs: Inputs, order: list[str], goal_block: str | None = None
) -> Site | None:
    """Returns the site that makes up for dropping `block`: the stream before it should become the one behind it.

    It is None if no layer can be refitted, or if anything but the block reads the stream before the block.

    goal_block: the block whose output in the reference is the goal, if blocks behind `block` are dropped already.
    """
    absorbing = absorber(model, block, inputs, order)
    if absorbing is None:
        return None
    layer, joint = absorbing
    if not reads_alone(model, block, joint.end(layer), inputs):  # other readers would get the stream behind the block
        return None
    goal = ActivationPoint(goal_block or block, "output")
    return Site(layer, ActivationPoint(block, "input"), goal, joint=joint)


def last_gone_after(module: str, gone: Collection[str], dense_order: Sequence[str]) -> str:
    """Returns the last of the dropped blocks that follow `module` without a gap; `module` itself if none follows.

    gone: the dropped blocks that are `in_line` in the unmodified model.
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
) -> tuple[ActivationPoint, Joint] | None:
    """Returns where the output of `layer` joins the stream, and how; None if the layer must not be refitted.

    The stream is searched at the inputs of the modules that follow inside `block`, then at the block's output, where it
    may have passed an activation. If it is not found, the place is the layer's own output, behind the BatchNorm that
    alone reads it.

    block: the block that holds the layer; None stands for the module that holds the layer.
    """
    if not has_own_weights(model, layer):
        return None
    place: tuple[ActivationPoint, Joint] | None = None
    block = block or layer.rpartition(".")[0]
    if block:
        place = _stream_behind(model, layer, block, inputs, order)
    if place is None:
        norm = norm_of(model, layer, inputs, order) if order.count(layer) == 1 else None
        place = (ActivationPoint(norm or layer, "output"), Joint(norm) if norm else PLAIN)
    return place if computes_as_its_class(model, layer, place[1], inputs) else None


def _stream_behind(
    model: nn.Module, layer: str, block: str, inputs: Inputs, order: list[str]
) -> tuple[ActivationPoint, Joint] | None:
    layer_output = ActivationPoint(layer, "output")
    # a module that is called several times, as the only ReLU of a block may be, is no place: it has several inputs
    inside = [
        name for name in order[order.index(layer) + 1 :] if name.startswith(f"{block}.") and order.count(name) == 1
    ]
    points = [*(ActivationPoint(name, "input") for name in inside), ActivationPoint(block, "output")]
    unmoved = capture(model, inputs, {layer_output, *points})
    output = unmoved[layer_output]
    shift = move_like(output)
    with shifted(model.get_submodule(layer), shift):
        moved = capture(model, inputs, points)
    for point in points:  # nothing is added between the layer and a point that receives its output alone
        if point not in moved or unmoved[point].shape != output.shape:
            continue
        is_stream = not torch.equal(unmoved[point], output)
        if is_stream and moved_by(shift, moved[point] - unmoved[point]):
            return point, PLAIN
    joint = find_joint(model, layer, points[-1], inputs, order) if order.count(layer) == 1 else None
    return None if joint is None or joint == PLAIN else (points[-1], joint)


def _is_in(name: str, block: str) -> bool:
    return name.startswith(f"{block}.")


def rest_point(model: nn.Module, layer: str, block: str, inputs: Inputs, order: list[str]) -> ActivationPoint | None:
    """Returns the point inside `block` where stream + layer output == block output bit for bit, or None."""
    earlier = [name for name in order[: order.index(layer)] if _is_in(name, block) and order.count(name) == 1]
    ends = ActivationPoint(layer, "output"), ActivationPoint(block, "output")
    seen = capture(model, inputs, {*(ActivationPoint(name, "input") for name in earlier), *ends})
    added, output = (seen[end] for end in ends)
    for name in reversed(earlier):
        rest = seen.get(ActivationPoint(name, "input"))
        if rest is not None and rest.shape == added.shape and torch.equal(rest + added, output):
            return ActivationPoint(name, "input")
    return None


def reader_sites(
    model: nn.Module,
    choices: Sequence[KeptUnits],
    order: Sequence[str],
    join: Callable[[str], tuple[ActivationPoint, Joint] | None],
    aim_at: Callable[[str, ActivationPoint, Joint], tuple[ActivationPoint, Joint | None]],
    others: Sequence[str] = (),
) -> list[Site]:
    """Returns the sites of a model that is cut already: the layers to refit in execution order, with their goals.

    If a layer's outputs were cut too, its site names those that are left.

    order: the modules of the model in execution order.
    join: gives where and how a layer's output joins the stream; None if the layer must not be refitted.
    aim_at: gives for a layer, its point and its joint what the stream there should become in the reference.
    others: layers to refit beside those that read fewer channels.
    """
    changed = [choice for choice in choices if choice.changes]
    kept_channels = {
        slot.module: tuple(choice.kept(slot)) for choice in changed for slot in choice.group.slots if slot.role == "out"
    }
    readers = {
        name for choice in changed for name in choice.group.consumers if name in order
    }  # not those of training mode alone
    sites = []
    once = [name for name in readers if order.count(name) == 1]  # one fit cannot serve several calls
    fitted = {*(name for name in once if can_be_fitted(model.get_submodule(name))), *others}
    for layer in sorted(fitted, key=order.index):
        place = join(layer)
        if place is None:
            continue
        point, joint = place
        if joint.scale and layer in kept_channels and len(joint.scale) > len(kept_channels[layer]):
            joint = replace(joint, scale=tuple(joint.scale[channel] for channel in kept_channels[layer]))
        goal, goal_joint = aim_at(layer, point, joint)
        sites.append(Site(layer, point, goal, kept_channels.get(layer, ()), joint, goal_joint))
    return sites


def drifted_layers(
    model: nn.Module, first: str | None, order: Sequence[str], gone: Collection[str], dense_order: Sequence[str]
) -> list[str]:
    """Returns the layers whose inputs have changed: all behind `first` or behind the first dropped block.

    Layers right before dropped blocks are left out: they may have been refitted to do the work of those blocks.

    first: the first layer that reads fewer channels; None if there is none, and then no layer is returned.
    gone: the dropped blocks.
    dense_order: the modules of the unmodified model in execution order.
    """
    if first is None:
        return []
    home = first if first in dense_order else first.rpartition(".")[0]  # a bypass stands where its block stood
    start = min(map(dense_order.index, [home, *gone]))
    once = [
        name for name in order if order.count(name) == 1 and name in dense_order
    ]  # leaves out the layers of a bypass
    later = [name for name in once if dense_order.index(name) > start]
    layers = [name for name in later if can_be_fitted(model.get_submodule(name))]

    def ends_before_a_gap(layer: str) -> bool:
        place = dense_order.index(layer)
        return any(last_gone_after(end, gone, dense_order) != end for end in dense_order[place : place + 2])

    return [layer for layer in layers if not ends_before_a_gap(layer)]


def first_reader(choices: Sequence[KeptUnits], order: Sequence[str]) -> str | None:
    """Returns the first layer in execution `order` that reads fewer channels than before; None if none does."""
    readers = {name for choice in choices if choice.changes for name in choice.group.consumers}
    return min((name for name in readers if name in order), key=order.index, default=None)


def goal_of(
    layer: str,
    point: ActivationPoint,
    joint: Joint,
    gone: Collection[str],
    dense_order: Sequence[str],
    dense_joint: Callable[[], Joint | None],
) -> tuple[ActivationPoint, Joint | None]:
    """Returns the goal of the stream at a layer's `point` in the unmodified model.

    It is the same point, with the layer's joint there if the goal is the sum before an activation. If blocks behind the
    point are dropped, it is the stream behind the last of them.

    gone: the dropped blocks.
    dense_order: the modules of the unmodified model in execution order.
    dense_joint: finds how the layer joins the stream at the point in the unmodified model.
    """
    if point.side == "output" and point.module not in (layer, joint.norm):
        last = last_gone_after(point.module, gone, dense_order)
        if last != point.module:
            return ActivationPoint(last, "output"), None
    return point, None if joint.behind == "nothing" else dense_joint()


def home_of(layer: str, blocks: Iterable[str]) -> str | None:
    """Returns the first of the blocks that holds the layer; None if none does."""
    return next((name for name in blocks if layer.startswith(f"{name}.")), None)
