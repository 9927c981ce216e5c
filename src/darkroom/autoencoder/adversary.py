"""The patch adversary of first-stage training: the discriminator, when it begins, and its adaptive weight.

Isola et al. 2017 (patches), Esser et al. 2021, equation 7 (adaptive weight); paper, appendix G.
"""

import math
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, StrictFloat, StrictInt, field_validator
from torch import Tensor, nn

from darkroom.core.compute import wide
from darkroom.core.errors import SpecError
from darkroom.core.parallel import mean_over_ranks
from darkroom.core.shapes import Images
from darkroom.core.spec import Spec
from darkroom.nn.norm import GroupNorm

Scalar = Float[Tensor, ""]
LARGEST_WEIGHT = 1e4
SMALL = 1e-4


class PlateauSpec(Spec):
    """Begin when reconstruction has settled.

    The mean loss of each `window` steps is compared with that of the window before; when it fell by less than
    `gain` (a share), the adversary begins.
    """

    window: int = Field(default=500, gt=0)
    gain: float = Field(default=0.03, gt=0, lt=1)


class AdversarySpec(Spec):
    """A patch discriminator with the adaptive weight (paper, appendix G).

    start: when it begins: after so many steps, after a share of all steps (a number below 1, written with a point), or
    at a plateau · weight: multiplies the adaptive weight · layers: convolutions that halve the picture · channels:
    width of the first of them, doubled by each (at most eight times) · learning_rate: at its peak, with the first
    stage's warm-up and decay (None: the first stage's).
    """

    start: StrictInt | StrictFloat | PlateauSpec = 50_001
    weight: float = Field(default=0.5, ge=0)
    layers: int = Field(default=3, gt=0)
    channels: int = Field(default=64, gt=0, multiple_of=4)
    learning_rate: float | None = Field(default=None, gt=0)

    @field_validator("start")
    @classmethod
    def _says_when(cls, start: int | float | PlateauSpec) -> int | float | PlateauSpec:
        if (isinstance(start, float) and not 0 < start < 1) or (isinstance(start, int) and start < 0):
            raise ValueError("a step (0, 1, 2, ...), a share of all steps (between 0 and 1) or {window, gain} fits")
        return start

    def begins(self, steps: int) -> "AdversarySpec":
        """The spec with its start as a step of so many, not a share."""
        return self.model_copy(update={"start": round(self.start * steps)}) if isinstance(self.start, float) else self

    @property
    def smallest(self) -> int:
        """The smallest side, in pixels, of pictures that leave a patch to judge."""
        return 3 * 2**self.layers


@final
class PatchDiscriminator(nn.Module):
    """Pictures to one score per overlapping patch; GroupNorm, for BatchNorm's statistics differ between ranks."""

    def __init__(self, spec: AdversarySpec, *, image_channels: int) -> None:
        super().__init__()
        widths = [spec.channels * min(2**depth, 8) for depth in range(spec.layers + 1)]
        self.stem = nn.Conv2d(image_channels, widths[0], 4, stride=2, padding=1)
        strides = [2] * (spec.layers - 1) + [1]
        self.levels = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, width, 4, stride=stride, padding=1, bias=False),
                GroupNorm(math.gcd(32, width // 4), width),
                nn.LeakyReLU(0.2),
            )
            for before, width, stride in zip(widths, widths[1:], strides, strict=False)
        )
        self.head = nn.Conv2d(widths[-1], 1, 4, padding=1)
        self.apply(_initialise)

    def forward(self, images: Images) -> Float[Tensor, "b 1 h2 w2"]:
        """Scores: high where a patch looks real."""
        h = F.leaky_relu(self.stem(images), 0.2)
        for level in self.levels:
            h = level(h)
        return self.head(h)


@final
class Adversary(nn.Module):
    """A discriminator, and the memory of whether it has begun; all of it belongs to a run's state, not to a model.

    steps: of the whole training, for a start that is a share of them.
    """

    def __init__(self, spec: AdversarySpec, *, image_channels: int, steps: int) -> None:
        super().__init__()
        self.spec = spec.begins(steps)
        self.discriminator = PatchDiscriminator(spec, image_channels=image_channels)
        for name in ("steps", "begun", "window_count"):
            self.register_buffer(name, torch.zeros((), dtype=torch.int64))
        for name in ("window_sum", "window_before"):
            self.register_buffer(name, torch.zeros(()))

    steps: Tensor
    begun: Tensor
    window_sum: Tensor
    window_count: Tensor
    window_before: Tensor

    @property
    def waits(self) -> bool:
        """Is it certain, before the loss is known, that the adversary has no part in the coming step?"""
        start = self.spec.start
        return not self.begun and not isinstance(start, PlateauSpec) and int(self.steps) < start

    def watch(self, reconstruction: Scalar) -> bool:
        """Take in the reconstruction loss of a step; has the adversary begun, as of this step?"""
        start = self.spec.start
        if not self.begun:
            if isinstance(start, PlateauSpec):
                self._watch_for_plateau(float(mean_over_ranks(reconstruction.detach())), start)
            elif int(self.steps) >= start:
                self.begun.fill_(1)
        self.steps += 1
        return bool(self.begun)

    def _watch_for_plateau(self, loss: float, start: PlateauSpec) -> None:
        """A window is so many finite losses; `window_before` is 0 until the first is complete."""
        if not math.isfinite(loss):
            return
        self.window_sum += loss
        self.window_count += 1
        if int(self.window_count) < start.window:
            return
        before, mean = float(self.window_before), float(self.window_sum) / start.window
        self.begun.fill_(int(before > 0 and mean > (1 - start.gain) * before))
        self.window_before.fill_(mean)
        self.window_sum.zero_()
        self.window_count.zero_()

    def scores(self, images: Images, made: Images) -> tuple[Scalar, Scalar]:
        """What the first stage minimises, and what the discriminator minimises (hinge losses, their mean).

        made: a leaf, cut off from the first stage: the first answer's gradient is taken there, and the second's
        goes no further.
        """
        fake, real = wide(self.discriminator(made)), wide(self.discriminator(images))
        return -fake.mean(), 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())


def adaptive_weight(pull: Images, push: Images, *, made: Images, last_layer: Tensor) -> Scalar:
    """‖∇ reconstruction‖ / (‖∇ adversarial‖ + 1e-4) at the decoder's last kernel, at most 1e4, without gradient.

    pull, push: the gradients of both losses at the pictures `made`. At the kernel they are averaged over ranks before
    their lengths are compared, so that all ranks weigh alike.
    """
    return weight_between(*at_kernel(pull, push, made=made, last_layer=last_layer))


def at_kernel(pull: Images, push: Images, *, made: Images, last_layer: Tensor) -> tuple[Tensor, Tensor]:
    """Both gradients at the pictures `made`, propagated to the decoder's last kernel; pieces may be averaged."""
    first, second = (
        torch.autograd.grad(made, last_layer, at_pictures, retain_graph=True)[0] for at_pictures in (pull, push)
    )
    return first, second


def weight_between(pull: Tensor, push: Tensor) -> Scalar:
    """The adaptive weight of two gradients at the kernel, which are averaged over ranks."""
    first, second = (wide(mean_over_ranks(each)).norm() for each in (pull, push))
    return (first / (second + SMALL)).clamp(0, LARGEST_WEIGHT)


def carry(value: Scalar, images: Images, *, gradient: Images) -> Scalar:
    """The value, whose gradient with respect to the images is the one given."""
    return value.detach() + ((images - images.detach()) * gradient).sum()


def check_adversary(spec: AdversarySpec | None, *, size: int) -> None:
    """`SpecError` when pictures of this side leave no patch to judge."""
    if spec is not None and size < spec.smallest:
        raise SpecError(
            f"pictures of {size} px are too small for an adversary of {spec.layers} layers, which needs at least "
            f"{spec.smallest}; lower first_stage.loss.adversary.layers"
        )


def _initialise(module: nn.Module) -> None:
    """Kernels N(0, 0.02²), norms N(1, 0.02²), as Isola et al. begin."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    if isinstance(module, nn.GroupNorm):
        nn.init.normal_(module.weight, 1.0, 0.02)
