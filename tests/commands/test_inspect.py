"""python -m toolkit.inspect: blocks and groups with their cost, and mistakes without a traceback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.tiny_task import TinyTask
from toolkit import inspect
from toolkit.measure.module_shares import module_seconds
from toolkit.planning.profile.overview import Overview, overview


def test_overview_of_a_transformer(tiny_task: TinyTask) -> None:
    found = overview(tiny_task.load_baseline(), tiny_task.example_inputs(1), tiny_task.protected)
    assert [block.name for block in found.blocks] == [f"blocks.{i}" for i in range(4)]
    tokens, dim = 12, 16
    one = tokens * dim * dim * 4 + 2 * tokens * tokens * dim + 2 * tokens * dim * 32  # q k v proj, attention, MLP
    assert [block.macs for block in found.blocks] == [one] * 4
    assert found.blocks[0].macs_share == one / found.macs
    assert [(g.kind, g.units, g.head_dim, g.num_params) for g in found.groups[:2]] == [
        ("attention", 2, 8, 4 * (16 * 16 + 16)),
        ("mlp", 32, None, 16 * 32 * 2 + 32 + 16),
    ]
    assert "embed is protected" in found.not_cut.values()
    assert Overview.model_validate_json(found.model_dump_json()) == found


class Sleepers(nn.Module):
    """Two modules that take 1 and 3 seconds of a clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.short, self.long, self.idle = nn.Identity(), nn.Identity(), nn.Linear(1, 1)
        self.short.register_forward_hook(lambda *_: self.sleep(1.0))
        self.long.register_forward_hook(lambda *_: self.sleep(3.0))

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def forward(self, x: Tensor) -> Tensor:
        return self.long(self.short(x))


def test_shares_of_the_time() -> None:
    net = Sleepers()
    shares = module_seconds(net, (torch.zeros(1),), ["short", "long", "idle"], repeats=3, clock=lambda: net.now_s)
    assert shares == {"short": 0.25, "long": 0.75, "idle": 0.0}


def test_a_zoo_model_as_table_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "overview.json"
    arguments = '{"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48}'
    command = ["transformers/bert", "--arguments", arguments, "--input-size", "6", "--json", str(file)]
    assert inspect.main(command) == 0
    printed = capsys.readouterr().out
    assert "2 blocks that can be dropped" in printed
    assert "4 x 8" in printed
    kinds = {group["kind"] for group in json.loads(file.read_text())["groups"]}
    assert {"attention", "mlp"} <= kinds


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["tad-wach"], "no folder; did you mean 'tad-watch'? choose one of: tad-watch"),
        (["nothing"], "'nothing' is no task, no zoo model and no folder; choose one of: tad-watch"),
        (["timm/no_such_model"], "timm/no_such_model is not known"),
        (["timm/vit_tiny_patch16_224", "--arguments", "{"], "is not JSON"),
        (["timm/vit_tiny_patch16_224", "--arguments", "[1]"], "is not a JSON object"),
        (["timm/vit_tiny_patch16_224", "--arguments", '{"pretrained": true}'], "pretrained"),
        (["."], "has no run.json (no run)"),
    ],
)
def test_mistakes(command: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect.main(command) == 2
    assert message in capsys.readouterr().err
