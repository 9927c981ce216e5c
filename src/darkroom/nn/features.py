"""How alike pictures look: distances that train a model, and another network that judges it.

`perceptual("small")` and `judge()` come with the package; they differ in design, task and weights on purpose, so that
a model is never marked by what it was trained against. `perceptual("lpips")` is the published distance on VGG16.
"""

from collections.abc import Sequence
from typing import Literal, final

import torch
from einops import reduce
from jaxtyping import Float
from torch import Tensor, nn

from darkroom.core.hashes import weights_hash
from darkroom.core.shapes import Images, PerSample
from darkroom.nn.feature_file import SHIPPED, Features, frozen, load_features
from darkroom.nn.taps import as_rgb, tap_distance
from darkroom.nn.vgg import EPS, load_vgg

PerceptualName = Literal["small", "lpips"]


@final
class PerceptualDistance(nn.Module):
    """A distance between pictures on a network's taps, for training: only `images` receive gradient.

    name: which network · hash: of all weights · network: pictures (b, 3, h, w) to a list of maps · heads: weights (c,)
    per map, not negative.
    """

    def __init__(self, network: nn.Module, *, heads: Sequence[Tensor], name: str, eps: float) -> None:
        super().__init__()
        self.network = frozen(network)
        self.heads = nn.ParameterList(nn.Parameter(head, requires_grad=False) for head in heads)
        self.name, self.eps = name, eps
        self.hash = weights_hash(self.state_dict().items())

    def forward(self, images: Images, targets: Images) -> PerSample:
        """A float32 value per sample, 0 for equal pictures; pictures in [-1, 1] as `as_rgb` takes them."""
        with torch.no_grad():
            wanted = self.network(as_rgb(targets, dtype=self.heads[0].dtype))
        made = self.network(as_rgb(images, dtype=self.heads[0].dtype))
        return tap_distance(made, wanted, heads=list(self.heads), eps=self.eps)


@final
class Judge(nn.Module):
    """The network that judges, never the one in a loss.

    name: which network · hash: of all weights · width: of the pooled features.
    """

    def __init__(self, features: Features) -> None:
        super().__init__()
        self.network = frozen(features.network)
        self.heads = nn.ParameterList(nn.Parameter(head, requires_grad=False) for head in features.heads)
        self.name, self.eps, self.width = features.name, features.spec.eps, features.spec.widths[-1]
        self.hash = weights_hash(self.state_dict().items())

    def features(self, images: Images) -> Float[Tensor, "b d"]:
        """The mean of the last map, one vector a picture, for Fréchet distance, KID, precision and recall."""
        return pooled(self.network(as_rgb(images, dtype=self.heads[0].dtype)))

    def distance(self, images: Images, others: Images) -> PerSample:
        """The feature distance of two pictures, 0 for equal ones."""
        heads = list(self.heads)
        first, second = (self.network(as_rgb(each, dtype=heads[0].dtype)) for each in (images, others))
        return tap_distance(first, second, heads=heads, eps=self.eps)


def pooled(taps: Sequence[Tensor]) -> Float[Tensor, "b d"]:
    """The mean over positions of the last map."""
    return reduce(taps[-1].float(), "b d h w -> b d", "mean")


def perceptual(name: PerceptualName = "small") -> PerceptualDistance:
    """The distance of that name, frozen, on the CPU.

    small: ours, comes with the package · lpips: VGG16 with the LPIPS v0.1 weights (Zhang et al. 2018), from the cache
    or downloaded; `InputError` when neither can be had.
    """
    match name:
        case "small":
            found = load_features(SHIPPED / "small.safetensors")
            return PerceptualDistance(found.network, heads=found.heads, name=found.name, eps=found.spec.eps)
        case "lpips":
            network, heads = load_vgg()
            return PerceptualDistance(network, heads=heads, name="lpips", eps=EPS)


def judge() -> Judge:
    """The judging network that comes with the package, frozen, on the CPU."""
    return Judge(load_features(SHIPPED / "judge.safetensors"))
