"""The losses of a first stage: pixels, features, a patch adversary, and the bottleneck's regulariser.

Paper, section 3.1 and appendix G; Esser et al. 2021.
"""

from dataclasses import dataclass
from typing import Literal, final

from einops import reduce
from pydantic import Field
from torch import Tensor

from darkroom.autoencoder.adversary import AdversarySpec
from darkroom.autoencoder.bottleneck import KLSpec, VQSpec
from darkroom.autoencoder.model import AutoencoderSpec, Reconstruction
from darkroom.autoencoder.revival import RevivalSpec
from darkroom.core.compute import wide
from darkroom.core.shapes import Images, PerSample
from darkroom.core.spec import Spec
from darkroom.nn.features import PerceptualDistance


class FirstStageLossSpec(Spec):
    """Weights of the terms.

    kl_weight multiplies the KL divergence *summed* per picture, against a pixel loss summed per picture (1e-6 in the
    original; here both are divided by the number of pixel values, which changes the learning rate's meaning for none
    of Adam's steps) · codebook_weight multiplies the codebook loss, a *mean*, against the mean pixel loss ·
    perceptual_weight multiplies the distance of features, one number per picture, against the mean pixel loss, measured
    by the `perceptual` network (`small`: ours, in the package; `lpips`: VGG16, downloaded once) · revival: None leaves
    dead codes dead, as the original does.
    """

    pixel: Literal["l1", "l2"] = "l1"
    kl_weight: float = Field(default=1e-6, ge=0)
    codebook_weight: float = Field(default=1.0, ge=0)
    perceptual: Literal["small", "lpips"] = "small"
    perceptual_weight: float = Field(default=0.0, ge=0)
    adversary: AdversarySpec | None = None
    revival: RevivalSpec | None = None


@final
@dataclass(frozen=True)
class FirstStageLoss:
    """The terms of one batch, a value per sample each.

    reconstruction: pixels and features, weighted · penalty: the regulariser, weighted.
    """

    pixel: PerSample
    perceptual: PerSample | None
    regularizer: PerSample
    reconstruction: PerSample
    penalty: PerSample

    @property
    def total(self) -> PerSample:
        """What is minimised, but for the adversary."""
        return self.reconstruction + self.penalty


def first_stage_loss(
    images: Images,
    made: Reconstruction,
    *,
    spec: FirstStageLossSpec,
    model: AutoencoderSpec,
    distance: PerceptualDistance | None = None,
) -> FirstStageLoss:
    """All terms but the adversary's, in float32 at least, a value per sample each.

    distance: needed when perceptual_weight is not 0.
    """
    difference = wide(made.images) - wide(images)
    pixel = _per_sample(difference.abs() if spec.pixel == "l1" else difference**2)
    perceptual, reconstruction = None, pixel
    if spec.perceptual_weight:
        assert distance is not None
        perceptual = distance(made.images, images)
        reconstruction = pixel + spec.perceptual_weight * perceptual
    regularizer = wide(made.regularizer)
    penalty = _regularizer_weight(spec, model, images[0].numel()) * regularizer
    return FirstStageLoss(pixel, perceptual, regularizer, reconstruction, penalty)


def _regularizer_weight(spec: FirstStageLossSpec, model: AutoencoderSpec, values: int) -> float:
    match model.bottleneck:
        case KLSpec():
            return spec.kl_weight / values
        case VQSpec():
            return spec.codebook_weight
        case _:
            return 0.0


def _per_sample(values: Tensor) -> Tensor:
    return reduce(values, "b c h w -> b", "mean")
