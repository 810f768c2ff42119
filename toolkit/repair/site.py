"""Describes what is refitted: a layer whose output joins the stream, and what the stream should become."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from torch import Tensor, nn

from toolkit.hooks.points import ActivationPoint, Inputs, capture
from toolkit.repair.joint import PLAIN, Joint, lifted

RAISED: Final = (1.0, 16.0, 256.0, 4096.0)  # factors by which a lift is raised if it is too low


@dataclass(frozen=True)
class Site:
    """Describes a layer to refit: the stream at `point` should become what `goal` is in the reference model.

    channels: the reference's channels that are left in the stream, where it is narrower; empty where it is not.
    joint: how the layer's output joins the stream at `point`.
    goal_joint: how the layer's output joins the stream at `goal` in the reference, if the goal is the sum before an
        activation; None if the goal is the stream itself.
    """

    layer: str
    point: ActivationPoint
    goal: ActivationPoint
    channels: tuple[int, ...] = ()
    joint: Joint = PLAIN
    goal_joint: Joint | None = None

    @property
    def is_through(self) -> bool:
        """Returns whether the fit is to the stream behind an activation, and not to the sum before it."""
        return self.joint.behind != "nothing" and self.goal_joint is None


def places_of(site: Site) -> set[ActivationPoint]:
    """Returns the places of the repaired model whose activations a fit needs."""
    return {site.point, ActivationPoint(site.layer, "input"), ActivationPoint(site.layer, "output")}


def look_at_model(model: nn.Module, site: Site, inputs: Inputs) -> dict[ActivationPoint, Tensor]:
    """Returns the activations at `places_of(site)`, with the sum in place of the stream if the joint has a lift."""
    joint, seen = _seen_lifted(model, site, site.joint, inputs, places_of(site), site.point)
    if joint.lift:
        seen[site.point] = seen[site.point] - joint.lift
        if joint.norm is None:
            output = ActivationPoint(site.layer, "output")
            seen[output] = seen[output] - joint.lift
    return seen


def look_at_goal(reference: nn.Module, site: Site, inputs: Inputs) -> Tensor:
    """Returns what the stream should become: the reference's stream or sum at the goal."""
    joint, seen = _seen_lifted(reference, site, site.goal_joint or PLAIN, inputs, {site.goal}, site.goal)
    return seen[site.goal] - joint.lift if joint.lift else seen[site.goal]


def _seen_lifted(
    model: nn.Module, site: Site, joint: Joint, inputs: Inputs, places: set[ActivationPoint], sum_at: ActivationPoint
) -> tuple[Joint, dict[ActivationPoint, Tensor]]:
    """Returns the activations at `places`, and the joint with the lift that was used.

    The joint's lift was chosen on other inputs; it is raised until nothing of the sum is cut off. If something is cut
    off at any height, a mask has done it, and the joint's own lift is used.
    """
    first_try: tuple[Joint, dict[ActivationPoint, Tensor]] | None = None
    for factor in RAISED:
        tried = replace(joint, lift=factor * joint.lift)
        with lifted(model, site.layer, tried):
            seen = capture(model, inputs, places)
        first_try = first_try or (tried, seen)
        if not joint.lift or not bool((seen[sum_at] == 0).any()):
            return tried, seen
    assert first_try is not None
    return first_try
