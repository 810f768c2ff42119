"""Lists the models of transformers that a recipe can name, with their classes and their kind of input."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["image", "video", "text", "audio", "mel"]


@dataclass(frozen=True)
class ModelType:
    """Names a model's classes in transformers, and its kind of input.

    config, model: the names of the configuration class and of the model class.
    settings: values of the configuration that replace the defaults of transformers.
    """

    config: str
    model: str
    kind: Kind
    settings: dict[str, bool | float] = field(default_factory=dict)


# In training mode these models mask parts of a sound with a random generator of numpy, and skip whole layers.
_PLAIN: dict[str, bool | float] = {"apply_spec_augment": False, "layerdrop": 0.0}


def _family(
    name: str, prefix: str, kind: Kind, settings: dict[str, bool | float] | None = None
) -> dict[str, ModelType]:
    """Returns a family's encoder, and the encoder with a classifier on top (`num_labels` classes), by name."""
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
