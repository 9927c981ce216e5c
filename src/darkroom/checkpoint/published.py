"""What files of published models do not say: their usual guidance, and how many heads three of them were trained with.

The code that trained those three ignored `num_head_channels` in spatial transformers; later versions honour it, load
the same shapes without complaint and compute something else. They are recognised by all their sizes: any other file
follows its own YAML.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

from darkroom.autoencoder.bottleneck import VQSpec
from darkroom.autoencoder.model import AutoencoderSpec, FirstStageSpec
from darkroom.checkpoint.store import StoredModel
from darkroom.conditioning import layout
from darkroom.conditioning.conditioner import ConditionerSpec
from darkroom.conditioning.label import ClassSpec
from darkroom.conditioning.layout import LayoutSpec
from darkroom.conditioning.text import SequenceEncoderSpec, TextSpec
from darkroom.diffusion.model import ModelSpec
from darkroom.network.unet import UNetSpec
from darkroom.nn.transformer import EncoderFamily

_FOLLOWED: Final[Mapping[EncoderFamily, float]] = {"bert": 5.0, "clip": 7.5}


def sampling(spec: ModelSpec) -> dict[str, Any]:
    """`sample` of a card: the guidance that the original's script for texts begins with, or Stable Diffusion's."""
    texts = [each.encoder.family for each in spec.conditioners if isinstance(each, TextSpec)]
    return {"sample": {"guidance": _FOLLOWED[texts[0]]}} if texts else {}


def own_facts(stored: StoredModel) -> list[str]:
    """What stands on a card, but for what `sampling` would write there by itself."""
    known = sampling(stored.spec) if isinstance(stored.spec, ModelSpec) else {}
    return [name for name, value in stored.card.items() if name not in known or known[name] != value]


@final
@dataclass(frozen=True)
class _Sizes:
    """latent: side of the training latents · tokens: all sizes of the conditioner."""

    latent: int
    network: UNetSpec
    first_stage: FirstStageSpec
    tokens: ConditionerSpec


_VQ4 = AutoencoderSpec(latent_channels=3, multipliers=(1, 2, 4), bottleneck=VQSpec(codes=8192))
_VQ8 = AutoencoderSpec(latent_channels=4, multipliers=(1, 2, 2, 4), attention=(8,), bottleneck=VQSpec(codes=16384))


def _network(latent: int, *, channels: int, multipliers: tuple[int, ...], depth: int, width: int) -> UNetSpec:
    return UNetSpec(
        in_channels=latent,
        out_channels=latent,
        channels=channels,
        multipliers=multipliers,
        attention=(8, 4, 2) if latent == 3 else (4, 2, 1),
        head_channels=32,
        transformer_depth=depth,
        context_width=width,
    )


def _encoder(width: int, *, depth: int, vocabulary: int, length: int) -> SequenceEncoderSpec:
    return SequenceEncoderSpec(vocabulary=vocabulary, length=length, width=width, depth=depth, spare_logits=True)


PUBLISHED = {
    "cin256": _Sizes(
        32,
        _network(4, channels=256, multipliers=(1, 2, 4), depth=1, width=512),
        _VQ8,
        ClassSpec(classes=1000, width=512, drop=0),
    ),
    "text2img256": _Sizes(
        64,
        _network(3, channels=192, multipliers=(1, 2, 3, 5), depth=1, width=640),
        _VQ4,
        TextSpec(encoder=_encoder(640, depth=32, vocabulary=30522, length=77)),
    ),
    "layout2img-openimages256": _Sizes(
        64,
        _network(3, channels=128, multipliers=(1, 2, 3, 4), depth=3, width=512),
        _VQ4,
        LayoutSpec(encoder=_encoder(512, depth=16, vocabulary=8192, length=92), scheme=layout.ORIGINAL, empty=8191),
    ),
}


def trained_with_one_head(
    network: UNetSpec,
    *,
    first_stage: FirstStageSpec,
    conditioners: Sequence[ConditionerSpec],
    size: int | tuple[int, ...],
) -> bool:
    """Is this one of the three? `network` as its YAML says, `size` the side of its latents."""
    plain = network.model_copy(update={"recompute": False, "dropout": 0.0})
    return any(
        (plain, first_stage, size) == (each.network, each.first_stage, each.latent)
        and [spec.model_copy(update={"drop": 0.0}) for spec in conditioners]
        == [each.tokens.model_copy(update={"drop": 0.0})]
        for each in PUBLISHED.values()
    )
