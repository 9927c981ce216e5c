"""What trains a first stage: reconstruction, and the bottleneck's regulariser in the unit its spec names.

The perceptual and adversarial terms are declared here so that the paper's recipes can be written down; training them
comes with a later release and is refused until then.
"""

from dataclasses import dataclass
from typing import Literal, final

from einops import reduce
from pydantic import Field
from torch import Tensor

from darkroom.autoencoder.bottleneck import KLSpec, VQSpec
from darkroom.autoencoder.model import AutoencoderSpec, Reconstruction
from darkroom.core.errors import NotYetError
from darkroom.core.shapes import Images, PerSample
from darkroom.core.spec import Spec


class AdversarySpec(Spec):
    """A patch discriminator with the adaptive weight (paper, appendix G): when it begins, how much, how deep."""

    start: int = Field(default=50_001, ge=0)
    weight: float = Field(default=0.5, ge=0)
    layers: int = Field(default=3, gt=0)


class FirstStageLossSpec(Spec):
    """Weights of the terms.

    kl_weight multiplies the KL divergence *summed* per picture, against a pixel loss summed per picture (1e-6 in the
    original; here both are divided by the number of pixel values, which changes the learning rate's meaning for none
    of Adam's steps) · codebook_weight multiplies the codebook loss, a *mean*, against the mean pixel loss.
    """

    pixel: Literal["l1", "l2"] = "l1"
    kl_weight: float = Field(default=1e-6, ge=0)
    codebook_weight: float = Field(default=1.0, ge=0)
    perceptual_weight: float = Field(default=0.0, ge=0)
    adversary: AdversarySpec | None = None


@final
@dataclass(frozen=True)
class FirstStageLoss:
    """The terms of one batch, a value per sample each; `total` is what is minimised."""

    total: PerSample
    pixel: PerSample
    regularizer: PerSample


def first_stage_loss(
    images: Images,
    reconstruction: Reconstruction,
    *,
    spec: FirstStageLossSpec,
    model: AutoencoderSpec,
) -> FirstStageLoss:
    """The training loss of a first stage, in float32, per sample."""
    check_available(spec)
    difference = reconstruction.images.float() - images.float()
    pixel = _per_sample(difference.abs() if spec.pixel == "l1" else difference**2)
    regularizer = reconstruction.regularizer.float()
    match model.bottleneck:
        case KLSpec():
            weight = spec.kl_weight / images[0].numel()
        case VQSpec():
            weight = spec.codebook_weight
        case _:
            weight = 0.0
    return FirstStageLoss(pixel + weight * regularizer, pixel, regularizer)


def check_available(spec: FirstStageLossSpec) -> None:
    """`NotYetError` when the spec asks for terms that cannot be trained yet."""
    if spec.perceptual_weight or spec.adversary is not None:
        raise NotYetError(
            "the perceptual and adversarial terms of first-stage training are not there yet; set "
            "first_stage.loss.perceptual_weight=0 and first_stage.loss.adversary=null"
        )


def _per_sample(values: Tensor) -> Tensor:
    return reduce(values, "b c h w -> b", "mean")
