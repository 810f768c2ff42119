"""What is to be refitted: a layer whose output joins the stream, and what the stream should become."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from toolkit.hooks.points import ActivationPoint, Inputs, capture
from toolkit.repair.joint import PLAIN, Joint, lifted


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
    with lifted(model, site.layer, site.joint):
        seen = capture(model, inputs, places_of(site))
    if site.joint.lift:
        seen[site.point] = seen[site.point] - site.joint.lift
        if site.joint.norm is None:
            output = ActivationPoint(site.layer, "output")
            seen[output] = seen[output] - site.joint.lift
    return seen


def look_at_goal(reference: nn.Module, site: Site, inputs: Inputs) -> Tensor:
    """Returns what the stream should become, from the reference."""
    if site.goal_joint is None:
        return capture(reference, inputs, {site.goal})[site.goal]
    with lifted(reference, site.layer, site.goal_joint):
        return capture(reference, inputs, {site.goal})[site.goal] - site.goal_joint.lift
