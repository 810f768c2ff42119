"""The models of transformers that a recipe can name: which classes they are made of, and what they are fed with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["image", "video", "text", "audio", "mel"]


@dataclass(frozen=True)
class ModelType:
    """Names of a configuration and a model class of transformers; `settings` are other defaults than transformers'."""

    config: str
    model: str
    kind: Kind
    settings: dict[str, bool | float] = field(default_factory=dict)


# While training, these models hide parts of a sound by a random generator of numpy's, and leave out whole layers.
_PLAIN: dict[str, bool | float] = {"apply_spec_augment": False, "layerdrop": 0.0}


def _family(
    name: str, prefix: str, kind: Kind, settings: dict[str, bool | float] | None = None
) -> dict[str, ModelType]:
    """A family's encoder, and the same with a classifier on top (`num_labels` classes)."""
    head = {"image": "ForImageClassification", "video": "ForVideoClassification", "text": "ForSequenceClassification"}
    last = head.get(kind, "ForSequenceClassification")
    return {
        name: ModelType(f"{prefix}Config", f"{prefix}Model", kind, settings or {}),
        f"{name}-classifier": ModelType(f"{prefix}Config", f"{prefix}{last}", kind, settings or {}),
    }


TYPES: dict[str, ModelType] = {
    **_family("vit", "ViT", "image"),
    **_family("deit", "DeiT", "image"),
    **_family("beit", "Beit", "image"),
    **_family("dinov2", "Dinov2", "image"),
    **_family("swin", "Swin", "image"),
    **_family("swinv2", "Swinv2", "image"),
    **_family("convnext", "ConvNext", "image"),
    **_family("convnextv2", "ConvNextV2", "image"),
    **_family("resnet", "ResNet", "image"),
    **_family("videomae", "VideoMAE", "video"),
    **_family("bert", "Bert", "text"),
    **_family("roberta", "Roberta", "text"),
    **_family("distilbert", "DistilBert", "text"),
    **_family("electra", "Electra", "text"),
    **_family("wav2vec2", "Wav2Vec2", "audio", _PLAIN),
    **_family("hubert", "Hubert", "audio", _PLAIN),
    **_family("wavlm", "WavLM", "audio", _PLAIN),
    "clip-vision": ModelType("CLIPVisionConfig", "CLIPVisionModel", "image"),
    "siglip-vision": ModelType("SiglipVisionConfig", "SiglipVisionModel", "image"),
    "whisper-encoder": ModelType("WhisperConfig", "WhisperEncoder", "mel"),
}
