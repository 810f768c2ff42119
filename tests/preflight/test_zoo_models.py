"""`inspect --check` of models as people have them: answers, whatever they are, and no traceback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers.any_task import AnyTask, images
from tests.helpers.slow import cases
from toolkit import inspect
from toolkit.preflight.look import preflight_of
from toolkit.preflight.report import Preflight

NAMES = (
    ("timm/vit_tiny_patch16_224", '{"img_size": 32, "depth": 2}', None),
    ("torchvision/inception_v3", "{}", "96"),
    ("torchvision/mnasnet1_0", "{}", "64"),
    ("timm/ghostnet_100", "{}", "64"),
    ("timm/levit_128s", "{}", None),
)


@pytest.mark.parametrize("chosen", cases(NAMES, in_suite=NAMES[:1]))
def test_a_model_by_its_name(
    chosen: tuple[str, str, str | None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, arguments, size = chosen
    words = ["--check", name, "--arguments", arguments, "--json", str(tmp_path / "found.json")]
    code = inspect.main([*words, *([] if size is None else ["--input-size", size])])
    printed = capsys.readouterr()
    assert printed.err == "" and "Traceback" not in printed.out
    found = Preflight.model_validate(json.loads((tmp_path / "found.json").read_text()))
    assert code == (2 if found.in_the_way() else 0)
    assert found.answers[0].answer == "yes" and found.channels
    for part in (*found.blocks, *found.channels):
        assert part.can_go or (part.reason and part.change)


@pytest.mark.slow
def test_a_detector_wants_targets_in_training_mode() -> None:
    detection = pytest.importorskip("torchvision").models.detection
    sizes = {"min_size": 64, "max_size": 64, "weights": None, "weights_backbone": None}
    found = preflight_of(AnyTask(lambda: detection.retinanet_resnet50_fpn(**sizes), lambda size: images(size, 64)))
    trains = next(answer for answer in found.answers if answer.question == "trains")
    assert trains.answer == "no" and "targets should not be none" in trains.reason
    assert len([part for part in found.blocks if part.can_go]) == 12
