"""Model files of untrained first stages, f = 4."""

from pathlib import Path

import torch

from darkroom.autoencoder.bottleneck import KLSpec, VQSpec
from darkroom.autoencoder.model import Autoencoder, AutoencoderSpec
from darkroom.checkpoint.store import StoredModel, save_model


def store_first_stage(
    path: Path, *, codes: int | None = None, size: int | None = 32, channels: int = 3, seed: int | None = None
) -> Path:
    """A file whose card says `size` and `seed`; with `codes` a VQ model."""
    torch.manual_seed(3)
    spec = AutoencoderSpec(
        image_channels=channels,
        channels=8,
        multipliers=(1, 1, 1),
        blocks=1,
        latent_channels=3,
        norm_groups=4,
        middle_attention=False,
        bottleneck=KLSpec() if codes is None else VQSpec(codes=codes),
    )
    facts = {name: value for name, value in (("size", size), ("seed", seed)) if value is not None}
    card = {"data": facts} if facts else {}
    return save_model(path, StoredModel("first-stage", spec, Autoencoder(spec).state_dict(), card))
