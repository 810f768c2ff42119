"""Checks the names of zoo models, `LIBRARY/MODEL`, and the keyword arguments for the libraries' factories.

Names and arguments come from recipes and manifests, which anyone may have written: only arguments that are listed here
are passed on, and only plain values of bounded size. Nothing here imports torch or a zoo.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from toolkit.zoo.transformers_types import TYPES

LIBRARIES: Final = ("torchvision", "timm", "transformers")

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}")

WORD: Final = re.compile(r"[A-Za-z0-9_]{0,32}")  # the only text allowed in an argument: neither path nor address

MOST_ARGUMENTS = 32

MOST_ITEMS = 32  # items of a list

LARGEST = 2**20  # of a width, a vocabulary or a length

# Word in the name of an argument -> its largest number: some models loop in Python before a tensor is made.
MOST_OF: Final = {"depth": 512, "layers": 512, "blocks": 512, "stages": 64, "size": 2048, "window": 32, "frames": 512}

MOST_OF_SIZE_OF = {"vocab_size": LARGEST, "num_labels": 2**16, "hidden_size": 2**16, "intermediate_size": 2**18}

_TORCHVISION = """
num_classes image_size dropout attention_dropout stochastic_depth_prob width_mult reduced_tail dilated alpha
zero_init_residual groups width_per_group replace_stride_with_dilation layer_scale growth_rate drop_rate
memory_efficient aux_logits aux_loss transform_input
"""

_TIMM = """
num_classes img_size in_chans global_pool drop_rate drop_path_rate drop_block_rate proj_drop_rate attn_drop_rate
pos_drop_rate patch_drop_rate patch_size embed_dim embed_dims depth depths num_heads mlp_ratio mlp_ratios qkv_bias
qk_norm init_values class_token reg_tokens no_embed_class pre_norm final_norm fc_norm dynamic_img_size dynamic_img_pad
strict_img_size window_size dims kernel_sizes ls_init_value conv_mlp use_grn head_init_scale head_hidden_size
output_stride stem_width stem_type avg_down zero_init_last base_width cardinality layers channels widths num_features
expand_ratio drop
"""

ALLOWED: Final = {"torchvision": frozenset(_TORCHVISION.split()), "timm": frozenset(_TIMM.split())}

ATTENTION = ("sdpa", "eager")

OF_TRANSFORMERS = frozenset(
    {"attn_implementation", "num_labels"}
)  # allowed beside the fields of the configuration class

# Fields of a configuration that might name a file or an address, or that take time and memory before any tensor.
REFUSED = re.compile(
    r"^_|path|file|dir$|cache|url|repo|hub|revision|pretrained|checkpoint|weights$|config|backbone$|name|sinusoid"
)


def split_name(name: str) -> tuple[str, str]:
    """Returns the library and the model in a name such as `timm/vit_tiny_patch16_224`.

    Whether timm or torchvision has the model is only checked when it is built.

    Raises:
        ValueError: the name has another form, or transformers has no such model.
    """
    library, _, model = name.partition("/")
    if library not in LIBRARIES or not NAME.fullmatch(model):
        choices = ", ".join(f"{known}/NAME" for known in LIBRARIES)
        raise ValueError(f"{name[:80]!a} is not the name of a zoo model; choose one of: {choices}")
    if library == "transformers" and model not in TYPES:
        raise ValueError(f"{name!a} is not known; choose transformers/ and one of: {', '.join(TYPES)}")
    return library, model


def argument_faults(library: str, arguments: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields an argument's name and what is wrong with it, as far as it shows without the library.

    The name is empty where the arguments as a whole are at fault.
    """
    if len(arguments) > MOST_ARGUMENTS:
        yield "", f"{len(arguments)} arguments are too many; give at most {MOST_ARGUMENTS}"
        return
    for key, value in arguments.items():
        fault = _fault_of_key(library, key) or _fault_of_value(key, value)
        if fault:
            yield key, fault


def _fault_of_key(library: str, key: str) -> str | None:
    if library == "transformers":
        if key in OF_TRANSFORMERS or (WORD.fullmatch(key) and not REFUSED.search(key)):
            return None
        return "is not an allowed argument; give sizes and switches of the configuration"
    if key in ALLOWED[library]:
        return None
    return f"is not an allowed argument; choose from: {', '.join(sorted(ALLOWED[library]))}"


def _fault_of_value(key: str, value: Any) -> str | None:
    if key == "attn_implementation" and value not in ATTENTION:
        return f"must be one of: {', '.join(ATTENTION)}"
    items = value if isinstance(value, (list, tuple)) else [value]
    if len(items) > MOST_ITEMS:
        return f"a list of {len(items)} is too long; give at most {MOST_ITEMS} items"
    return next((fault for item in items if (fault := _fault_of_item(key, item, isinstance(value, str)))), None)


def _fault_of_item(key: str, item: Any, word_is_fine: bool) -> str | None:
    if item is None or isinstance(item, bool):
        return None
    if isinstance(item, str) and word_is_fine:
        return None if WORD.fullmatch(item) else "text must be a word of at most 32 letters, digits and '_'"
    if not isinstance(item, (int, float)):
        return "must be a number, true, false, a word or a list of numbers"
    if isinstance(item, float) and not math.isfinite(item):
        return "must be a finite number"
    most = largest(key)
    return None if abs(item) <= most else f"must be at most {most}"


def largest(key: str) -> int:
    """Returns the largest number allowed for an argument, by the words in its name."""
    return MOST_OF_SIZE_OF.get(key) or min((most for word, most in MOST_OF.items() if word in key), default=LARGEST)
