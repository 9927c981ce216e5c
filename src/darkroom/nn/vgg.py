"""VGG16 (Simonyan & Zisserman 2015) up to relu5_3, and the LPIPS weights that were fitted to it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from darkroom.core.errors import ModelFileError
from darkroom.core.fetch import PublishedFile
from darkroom.nn.published import cached, find, load_table, of_torch_hub

EPS = 1e-10
_FOLDER: Final = "lpips"
VGG16 = PublishedFile(
    url="https://download.pytorch.org/models/vgg16-397923af.pth",
    digest="sha256:397923af",
    limit=600_000_000,
)
HEADS = PublishedFile(
    url="https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/lpips/weights/v0.1/vgg.pth",
    digest="md5:d507d7349b931f0638a25a48a722f98a",
    limit=100_000,
)

_WIDTHS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)


@final
class VGG16Taps(nn.Module):
    """relu1_2, relu2_2, relu3_3, relu4_3 and relu5_3 of pictures in [-1, 1].

    Pictures are normalised as LPIPS does, (x - shift) / scale, which is ImageNet's mean and deviation on [-1, 1].
    """

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.tensor(_SHIFT)[:, None, None])
        self.register_buffer("scale", torch.tensor(_SCALE)[:, None, None])
        inputs = (3, *(widths[-1] for widths in _WIDTHS[:-1]))
        self.levels = nn.ModuleList(
            nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in zip((c, *widths[:-1]), widths, strict=True))
            for c, widths in zip(inputs, _WIDTHS, strict=True)
        )

    def forward(self, pictures: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        """Five maps at 1, 1/2, 1/4, 1/8 and 1/16 of the resolution."""
        x, taps = (pictures - self.shift) / self.scale, []
        for level in self.levels:
            x = F.max_pool2d(x, 2) if taps else x
            for convolution in level:
                x = F.relu(convolution(x))
            taps.append(x)
        return taps


def load_vgg() -> tuple[VGG16Taps, tuple[Tensor, ...]]:
    """The network and its five heads, from the cache or downloaded once (528 MB).

    `InputError` in one sentence when they are neither there nor to be had; `ModelFileError` when a file is damaged.
    """
    network, state = VGG16Taps(), load_table(_find(VGG16, hub=True))
    heads = load_table(_find(HEADS, hub=False))
    names = [f"lin{i}.model.1.weight" for i in range(len(_WIDTHS))]
    missing = [name for name in names if name not in heads]
    if missing:
        raise ModelFileError(f"{_cached(HEADS)}: no LPIPS weights, {missing[0]!r} is missing; remove the file")
    try:
        network.load_state_dict(_ours(network, state))
    except (KeyError, RuntimeError):
        raise ModelFileError(f"{_cached(VGG16)}: no weights of VGG16; remove the file") from None
    return network, tuple(heads[name].flatten().float() for name in names)


def _ours(network: VGG16Taps, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The published weights under our names: `features.N`, N counting every layer of the stack, pooling among them."""
    named, place = {"shift": network.shift, "scale": network.scale}, 0
    for i, widths in enumerate(_WIDTHS):
        for j in range(len(widths)):
            for part in ("weight", "bias"):
                named[f"levels.{i}.{j}.{part}"] = state[f"features.{place}.{part}"]
            place += 2  # a convolution and its ReLU
        place += 1  # the pooling after a level
    return named


def present() -> bool:
    """Are the network and its heads here, so that nothing need be downloaded?"""
    return _cached(HEADS).is_file() and (_cached(VGG16).is_file() or of_torch_hub(VGG16).is_file())


def _cached(published: PublishedFile) -> Path:
    return cached(published, folder=_FOLDER)


def _find(published: PublishedFile, *, hub: bool) -> Path:
    return find(published, folder=_FOLDER, hub=hub, needs="perceptual: lpips", instead="perceptual: small")
