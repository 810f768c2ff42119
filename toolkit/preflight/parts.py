"""Says which blocks of a model can be dropped and which channels can be cut, and why the others cannot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from toolkit.blocks.find import look_for_blocks
from toolkit.blocks.ways import faults_on_paths
from toolkit.blocks.why_not import why_not_blocks
from toolkit.channels.find import find_groups, without_modules
from toolkit.hooks.paths import Path
from toolkit.hooks.routes import each_alone, routed_modules
from toolkit.preflight.remedies import block_remedy, channel_remedy
from toolkit.preflight.report import PartVerdict
from toolkit.preflight.words import in_a_list


def block_verdicts(
    model: nn.Module, inputs: tuple[Tensor, ...], others: Sequence[Path], varied: tuple[Tensor, ...]
) -> Iterator[PartVerdict]:
    """Yields the blocks that the stage `block_drop` can drop, then the modules that look like blocks but cannot go.

    others: ways to run the model beside eval mode on `inputs`.
    varied: as in `channel_verdicts`.
    """
    blocks = look_for_blocks(model, inputs)
    refused = blocks.refused | faults_on_paths(model, blocks.names, others)
    refused |= routed_modules(model, [inputs, *each_alone(varied, len(inputs[0]))])
    for name in blocks.names:
        if name not in refused:
            yield PartVerdict(name=name, can_go=True, kind="block")
    refused = {name: reason for name, reason in refused.items() if name in blocks.names or name in blocks.refused}
    for name, reason in (why_not_blocks(model, inputs, blocks.names) | refused).items():
        yield PartVerdict(name=name, can_go=False, reason=reason, change=block_remedy(reason))


def channel_verdicts(
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    others: Sequence[Path],
    varied: tuple[Tensor, ...],
    blocks: Sequence[str],
    protected: Sequence[str],
) -> Iterator[PartVerdict]:
    """Yields the groups of channels that can be cut, then the layers that keep their width.

    blocks, protected, others: as in `find_groups`.
    varied: inputs of several examples, which show whether values decide what the model runs.
    """
    routed = routed_modules(model, [inputs, *each_alone(varied, len(inputs[0]))])
    structure = without_modules(find_groups(model, inputs, blocks, protected, others), routed)
    for group in structure.groups:
        yield PartVerdict(name=group.name, can_go=True, kind=group.kind, units=group.num_units)
    for name, reason in structure.refused.items():
        change = channel_remedy(reason)
        yield PartVerdict(name=name, can_go=False, reason=in_a_list(name, reason), change=change)
