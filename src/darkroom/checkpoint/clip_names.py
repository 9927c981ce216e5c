"""CLIP's text model as the world names its tensors, and as Stable Diffusion 1 has it."""

from collections.abc import Container
from typing import Final

import torch
from jaxtyping import Int
from torch import Tensor

from darkroom.conditioning.text import SequenceEncoderSpec

VIT_L: Final = SequenceEncoderSpec(  # of openai/clip-vit-large-patch14, which the original's FrozenCLIPEmbedder loads
    vocabulary=49408, length=77, width=768, depth=12, heads=12, head_width=64, family="clip"
)
INSIDE: Final = "text_model."  # before every name, but in files of transformers 5 and in some that were merged
PLACES: Final = "embeddings.position_ids"  # 0, 1, 2, ...: held by files of transformers before 4.31, used by nobody
LAYER: Final = {  # what is inside one, of pictures as of texts
    "layer_norm1": "norm1",
    "self_attn.q_proj": "attention.query",
    "self_attn.k_proj": "attention.key",
    "self_attn.v_proj": "attention.value",
    "self_attn.out_proj": "attention.out",
    "layer_norm2": "norm2",
    "mlp.fc1": "expand",
    "mlp.fc2": "out",
}


def clip_names(depth: int) -> dict[str, str]:
    """Modules of a text model of `depth` layers, and what they are called in our encoder."""
    layers = {
        f"encoder.layers.{index}.{theirs}": f"transformer.layers.{index}.{ours}"
        for index in range(depth)
        for theirs, ours in LAYER.items()
    }
    ends = {"embeddings.token_embedding": "tokens", "embeddings.position_embedding": "positions"}
    return {**ends, **layers, "final_layer_norm": "transformer.norm"}


def named_in(state: Container[str], name: str) -> str:
    """How a file spells a name: with `text_model.` in it, unless it has only the other."""
    short = name.replace(INSIDE, "", 1)
    return short if name not in state and short in state else name


def clip_places(length: int) -> Int[Tensor, "1 l"]:
    """`embeddings.position_ids`."""
    return torch.arange(length)[None]


def clip_empty(encoder: SequenceEncoderSpec) -> Int[Tensor, " l"]:
    """The ids of a caption without words: start, then the end all along, which are the last two of CLIP's ids."""
    ids = torch.full((encoder.length,), encoder.vocabulary - 1)
    ids[0] = encoder.vocabulary - 2
    return ids
