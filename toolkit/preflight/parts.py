"""Says which blocks of a model can be dropped and which channels can be cut, and why the others cannot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from toolkit.blocks.find import look_for_blocks
from toolkit.blocks.ways import faults_on_paths
from toolkit.blocks.why_not import why_not_blocks
from toolkit.channels.find import find_groups
from toolkit.hooks.paths import Path
from toolkit.preflight.remedies import block_remedy, channel_remedy
from toolkit.preflight.report import PartVerdict
from toolkit.preflight.words import in_a_list


def block_verdicts(model: nn.Module, inputs: tuple[Tensor, ...], others: Sequence[Path]) -> Iterator[PartVerdict]:
    """Yields the blocks that the stage `block_drop` can drop, then the modules that look like blocks but cannot go.

    others: ways to run the model beside eval mode on `inputs`.
    """
    blocks = look_for_blocks(model, inputs)
    refused = blocks.refused | faults_on_paths(model, blocks.names, others)
    for name in blocks.names:
        if name not in refused:
            yield PartVerdict(name=name, can_go=True, kind="block")
    for name, reason in (why_not_blocks(model, inputs, blocks.names) | refused).items():
        yield PartVerdict(name=name, can_go=False, reason=reason, change=block_remedy(reason))


def channel_verdicts(
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    blocks: Sequence[str],
    protected: Sequence[str],
    others: Sequence[Path],
) -> Iterator[PartVerdict]:
    """Yields the groups of channels that can be cut, then the layers that keep their width.

    blocks, protected, others: as in `find_groups`.
    """
    structure = find_groups(model, inputs, blocks, protected, others)
    for group in structure.groups:
        yield PartVerdict(name=group.name, can_go=True, kind=group.kind, units=group.num_units)
    for name, reason in structure.refused.items():
        change = channel_remedy(reason)
        yield PartVerdict(name=name, can_go=False, reason=in_a_list(name, reason), change=change)
