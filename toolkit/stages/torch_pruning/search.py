"""Searches the pruning ratio that brings a model to a share of the unmodified multiply-adds."""

from __future__ import annotations

from toolkit.base.errors import StageError
from toolkit.stages.context import StageContext
from toolkit.stages.torch_pruning.peer import Peer, PeerCut
from toolkit.stages.torch_pruning.settings import TorchPruning

STEPS = 10  # ratios that are tried from small to large until the target is passed

MOST_HALVINGS = 10

CLOSE_ENOUGH = 0.1  # share of the tolerance at which the search ends


def search_pruning_ratio(peer: Peer, config: TorchPruning, context: StageContext) -> tuple[float, PeerCut]:
    """Returns the ratio whose multiply-adds are nearest to the target, and the copy cut with it.

    Multiply-adds fall in steps, and rise again near 1, where groups that would lose all channels are not cut. Ratios
    are therefore tried from below until one passes the target; then the last interval is halved repeatedly.

    Raises:
        StageError: torch-pruning fails, or the model that it has cut does not run.
    """
    best: tuple[float, float, PeerCut] | None = None  # size of the miss, ratio, cut

    def miss(ratio: float) -> float:
        nonlocal best
        cut = peer.cut(ratio)
        try:
            difference = context.macs_ratio(cut.model) - config.macs_ratio
        except Exception as error:  # the user's code may raise anything
            words = " ".join(str(error).split())[:160]
            raise StageError(f"the model does not run after torch-pruning has cut it: {words}") from error
        if best is None or abs(difference) < best[0]:
            best = abs(difference), ratio, cut
        return difference

    def is_close() -> bool:
        return best is not None and best[0] <= CLOSE_ENOUGH * config.macs_tolerance

    low, high = 0.0, 0.0
    for step in range(1, STEPS):
        low, high = high, step / STEPS
        if miss(high) <= 0 or is_close():
            break
    for _ in range(MOST_HALVINGS):
        if is_close():
            break
        middle = (low + high) / 2
        low, high = (middle, high) if miss(middle) > 0 else (low, middle)
    assert best is not None
    return best[1], best[2]
