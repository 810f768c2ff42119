"""What is to be refitted: a layer whose output joins the stream, and what the stream should become."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from torch import Tensor, nn

from toolkit.hooks.points import ActivationPoint, Inputs, capture
from toolkit.repair.joint import PLAIN, Joint, lifted

RAISED: Final = (1.0, 16.0, 256.0, 4096.0)  # times a lift, where it is too low


@dataclass(frozen=True)
class Site:
    """A layer to refit: the stream at `point` should become what `goal` is in the reference model.

    Where the stream is narrower than the reference's, `channels` are those of the reference that are left.
    joint: how the layer's output joins the stream at `point`.
    goal_joint: how it joins the stream at `goal` in the reference, where the goal is the sum before an activation.
    """

    layer: str
    point: ActivationPoint
    goal: ActivationPoint
    channels: tuple[int, ...] = ()
    joint: Joint = PLAIN
    goal_joint: Joint | None = None

    @property
    def is_through(self) -> bool:
        """Whether the fit is to the stream behind the activation, not to the sum before it."""
        return self.joint.behind != "nothing" and self.goal_joint is None


def places_of(site: Site) -> set[ActivationPoint]:
    """What has to be seen of the model that is repaired."""
    return {site.point, ActivationPoint(site.layer, "input"), ActivationPoint(site.layer, "output")}


def look_at_model(model: nn.Module, site: Site, inputs: Inputs) -> dict[ActivationPoint, Tensor]:
    """Returns the activations at `places_of(site)`, with the sum in the place of what comes out behind it."""
    joint, seen = _seen_lifted(model, site, site.joint, inputs, places_of(site), site.point)
    if joint.lift:
        seen[site.point] = seen[site.point] - joint.lift
        if joint.norm is None:
            output = ActivationPoint(site.layer, "output")
            seen[output] = seen[output] - joint.lift
    return seen


def look_at_goal(reference: nn.Module, site: Site, inputs: Inputs) -> Tensor:
    """Returns what the stream should become, from the reference."""
    joint, seen = _seen_lifted(reference, site, site.goal_joint or PLAIN, inputs, {site.goal}, site.goal)
    return seen[site.goal] - joint.lift if joint.lift else seen[site.goal]


def _seen_lifted(
    model: nn.Module, site: Site, joint: Joint, inputs: Inputs, places: set[ActivationPoint], sum_at: ActivationPoint
) -> tuple[Joint, dict[ActivationPoint, Tensor]]:
    """Returns the activations and the joint with the lift that they were seen with.

    The joint's own lift goes by other inputs; it is raised until nothing of the sum is cut off. Where something is
    however high the sum is lifted, a mask has cut it, and the joint's own lift is as good as any.
    """
    first: tuple[Joint, dict[ActivationPoint, Tensor]] | None = None
    for raised in RAISED:
        tried = replace(joint, lift=raised * joint.lift)
        with lifted(model, site.layer, tried):
            seen = capture(model, inputs, places)
        first = first or (tried, seen)
        if not joint.lift or not bool((seen[sum_at] == 0).any()):
            return tried, seen
    assert first is not None
    return first
