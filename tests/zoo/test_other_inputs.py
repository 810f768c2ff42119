"""Models that torchvision has, but that take other inputs than a batch of images, are sent to a task of one's own."""

from __future__ import annotations

import pytest

from toolkit.base.errors import UserError
from toolkit.zoo.build import build_zoo_model


@pytest.mark.parametrize(
    "name", ["retinanet_resnet50_fpn", "raft_small", "quantized_resnet18", "fasterrcnn_resnet50_fpn"]
)
def test_they_are_not_called_unknown(name: str) -> None:
    with pytest.raises(
        UserError, match=f"^torchvision/{name} takes other inputs than a batch of images.* --task FILE.py"
    ):
        build_zoo_model(f"torchvision/{name}")


def test_what_torchvision_does_not_have_is_unknown() -> None:
    with pytest.raises(UserError, match="torchvision/retinanet_resnet51_fpn is not known; similar names are"):
        build_zoo_model("torchvision/retinanet_resnet51_fpn")
