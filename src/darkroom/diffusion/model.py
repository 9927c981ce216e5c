"""A latent diffusion model as tensors: first stage, latent scale, conditioners, denoiser (paper, section 3)."""

from collections.abc import Mapping, Sequence
from typing import final

import torch
from einops import rearrange
from pydantic import Field, model_validator
from torch import Tensor, nn

from darkroom.autoencoder import tiles
from darkroom.autoencoder.bottleneck import Posterior
from darkroom.autoencoder.model import FirstStageSpec, build_first_stage, check_size
from darkroom.conditioning.conditioner import ConditionerSpec, Conditioning, plane_channels
from darkroom.conditioning.fill import filled
from darkroom.conditioning.spatial import LowResSpec, MapSpec, MaskedSpec, one_hot, shrunk
from darkroom.core.conditions import Conditions
from darkroom.core.errors import ModelFileError, SpecError
from darkroom.core.hollow import hollow, parameters_of
from darkroom.core.shapes import Images, Latent, Mask, PerSample, Time
from darkroom.core.spec import Spec
from darkroom.diffusion.denoiser import Network
from darkroom.diffusion.loss import diffusion_loss
from darkroom.diffusion.residual import beyond_guess, with_known
from darkroom.network.unet import UNet, UNetSpec
from darkroom.process.objective import NoisiestTimeSpec, ObjectiveSpec, check_objective
from darkroom.process.prediction import PredictionName, build_prediction, check_prediction
from darkroom.process.schedule import LinearSpec, ScheduleSpec, build_schedule, coefficients


class ModelSpec(Spec):
    """Everything that decides the shapes and the mathematics of a latent diffusion model.

    image_size: side of the training pictures, the default size of samples · scale: a fixed factor on latents (None:
    measured over the training set, or over what is beyond a guess, and kept with the weights).
    """

    image_size: int = Field(gt=0, le=2**20)
    first_stage: FirstStageSpec
    network: UNetSpec
    conditioners: tuple[ConditionerSpec, ...] = ()
    schedule: ScheduleSpec = Field(default_factory=LinearSpec)
    prediction: PredictionName = "eps"
    objective: ObjectiveSpec = Field(default_factory=ObjectiveSpec)
    scale: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _consistent(self) -> "ModelSpec":
        try:
            schedule, prediction = build_schedule(self.schedule), build_prediction(self.prediction)
            check_prediction(schedule, prediction)
            check_objective(self.objective, schedule=schedule, prediction=prediction)
        except SpecError as error:
            raise ValueError(str(error)) from None
        self._check_channels()
        self._check_ports()
        if self.image_size % self.size_multiple:
            raise ValueError(
                f"image_size {self.image_size} does not fit: sides must be multiples of {self.size_multiple}"
            )
        return self

    def _check_channels(self) -> None:
        latent = self.first_stage.latent_channels
        planes = plane_channels(self.conditioners)
        if self.network.out_channels != latent:
            raise ValueError(f"network.out_channels is {self.network.out_channels}, latents have {latent}")
        if self.network.in_channels != latent + planes:
            raise ValueError(
                f"network.in_channels is {self.network.in_channels}, "
                f"{latent} latent and {planes} plane channels enter it"
            )

    def _check_ports(self) -> None:
        fields = [spec.field for spec in self.conditioners]
        if len(set(fields)) != len(fields):
            raise ValueError("two conditioners read the same field")
        for spec in self.conditioners:
            if isinstance(spec, LowResSpec) and spec.guesses not in {0, self.first_stage.latent_channels}:
                raise ValueError(
                    f"the {spec.field} conditioner guesses {spec.guesses} channels, "
                    f"latents have {self.first_stage.latent_channels}"
                )
            match spec.port:
                case "tokens" if spec.width != self.network.context_width:
                    raise ValueError(
                        f"the {spec.field} conditioner gives tokens of width {spec.width}, "
                        f"network.context_width is {self.network.context_width}"
                    )
                case "vector" if spec.width != self.network.embedding_width:
                    raise ValueError(
                        f"the {spec.field} conditioner gives a vector of width {spec.width}, "
                        f"the time embedding has {self.network.embedding_width}"
                    )
                case _:
                    pass
        if sum(spec.port == "vector" for spec in self.conditioners) > 1:
            raise ValueError("the vector port holds one condition")
        if sum(_guesses(spec) for spec in self.conditioners) > 1:
            raise ValueError("latents are guessed from one condition; set guesses of the others to 0 or false")

    @property
    def size_multiple(self) -> int:
        """Sides of pictures must be multiples of this."""
        return self.first_stage.factor * self.network.size_multiple

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields that steer it."""
        return tuple(spec.field for spec in self.conditioners)

    @property
    def regresses(self) -> bool:
        """Is it a regression, trained at pure noise alone, where it is given zeros for x_t?"""
        return isinstance(self.objective.times, NoisiestTimeSpec)

    @property
    def guesses(self) -> bool:
        """Are latents guessed from a condition, so that the network learns what is beyond that?"""
        return any(_guesses(spec) for spec in self.conditioners)

    @property
    def guided(self) -> bool:
        """Did training drop a condition, so that guidance has a null to compare with?"""
        return any(spec.drop > 0 for spec in self.conditioners)


def _guesses(spec: ConditionerSpec) -> bool:
    return isinstance(spec, LowResSpec | MaskedSpec) and bool(spec.guesses)


@final
class LatentDiffusion(nn.Module):
    """The weights and mathematics of one model; pictures and latents are tensors.

    `scale` (a buffer, one number or one a channel, NaN until measured) brings latents to the denoiser's units:
    z = scale · E(x).
    """

    scale: Tensor

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.first_stage = build_first_stage(spec.first_stage)
        self.conditioning = Conditioning(spec.conditioners)
        self.network = UNet(spec.network)
        self.schedule = build_schedule(spec.schedule)
        self.prediction = build_prediction(spec.prediction)
        measured = float("nan") if spec.scale is None else spec.scale
        self.register_buffer("scale", torch.tensor(measured))
        steps = self.schedule.steps
        learnt = spec.objective.learn_log_variance and steps is not None
        self.log_variance = (
            nn.Parameter(torch.full((steps or 1,), spec.objective.log_variance_init)) if learnt else None
        )

    @property
    def denoising_parameters(self) -> list[nn.Parameter]:
        """What the second stage trains: network, conditioners, and a learnt log-variance."""
        extra = [] if self.log_variance is None else [self.log_variance]
        return [*self.network.parameters(), *self.conditioning.parameters(), *extra]

    def encode(self, images: Images, *, noise: Latent | None = None) -> Latent:
        """Latents in the denoiser's units; `noise` (latent shape) draws the posterior, without it its mean is used.

        Without noise, pictures of more than a million pixels go through in tiles.
        """
        if noise is None:
            factor = self.spec.first_stage.factor
            check_size(images, factor=factor, channels=self.spec.first_stage.image_channels)
            return (
                tiles.encoded(lambda part: self.first_stage.moments(part)[0], images, factor=factor) * self.known_scale
            )
        mean, log_variance = self.first_stage.moments(images)
        if log_variance is not None:
            mean = Posterior(mean, log_variance).sample(noise)
        return mean * self.known_scale

    def decode(self, latents: Latent) -> Images:
        """Pictures from latents in the denoiser's units."""
        return self.first_stage.decode(self.unscaled(latents))

    def unscaled(self, latents: Latent) -> Latent:
        """Latents in the first stage's own units, from those of the denoiser."""
        return latents / self.known_scale

    @property
    def known_scale(self) -> Tensor:
        """What latents are multiplied by: one number, or (1, c, 1, 1); `ModelFileError` while it is unknown."""
        if bool(torch.isnan(self.scale).any()):
            raise ModelFileError(
                "the scale of latents is not known: measure it over the training set, or give it in the spec"
            )
        return rearrange(self.scale, "c -> 1 c 1 1") if self.scale.ndim else self.scale

    def prepared(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the conditioners read, of what a data set gives.

        A masked picture (b, c + 1, H, W), its last channel the mask (1: paint here), is encoded; a map of ids
        (b, H, W) becomes one-hot; all else passes.
        """
        given = dict(inputs)
        for spec in self.spec.conditioners:
            match spec:
                case MaskedSpec() if spec.field in given:
                    whole = given[spec.field]
                    given[spec.field] = self._masked(whole[:, :-1], whole[:, -1:], spec=spec)
                case MapSpec() if spec.field in given and given[spec.field].ndim == 3:
                    given[spec.field] = one_hot(given[spec.field], spec.classes).to(self.scale.dtype)
                case _:
                    pass
        return given

    @torch.no_grad()
    def _masked(self, images: Images, mask: Mask, *, spec: MaskedSpec) -> Latent:
        """Latents of the picture with its hole filled, in the spec's units, then the shrunk mask in -1 and 1."""
        latents = self.encode(filled(images, mask, how=spec.fill))
        latents = self.unscaled(latents) if spec.units == "first-stage" else latents
        height, width = latents.shape[-2:]
        return torch.cat([latents, 2 * shrunk(mask, (height, width), how=spec.shrink).to(latents) - 1], dim=1)

    def condition(self, inputs: Mapping[str, Tensor], *, size: tuple[int, int] | None = None) -> Conditions:
        """The three ports from ids, labels or planes by field.

        size: height and width of the latents; with it fields that training dropped may be left out.
        """
        return self.conditioning(inputs, size=size)

    def whole(self, network: Network) -> Network:
        """This model's network, or a faster form of it, as one that answers for whole latents (`beyond_guess`)."""
        return beyond_guess(network, schedule=self.schedule, prediction=self.prediction)

    def null(self, conditions: Conditions, *, drop: Sequence[str] | None = None) -> Conditions:
        """Conditions of the same shapes that say nothing about the fields `drop` (None: those dropped in training)."""
        return self.conditioning.null(conditions, drop)

    def loss(
        self, latents: Latent, *, t: Time, noise: Latent, conditions: Conditions, network: Network | None = None
    ) -> PerSample:
        """The training loss of each sample. network: a faster form of the model's own.

        For a regression the noise is replaced by one that makes x_t zero.
        """
        latents = with_known(latents, conditions)
        if self.spec.regresses:
            alpha, sigma = coefficients(self.schedule, t, like=latents)
            noise = -alpha / sigma * latents
        return diffusion_loss(
            self.whole(self.network if network is None else network),
            latents,
            t=t,
            noise=noise,
            conditions=conditions,
            schedule=self.schedule,
            prediction=self.prediction,
            objective=self.spec.objective,
            log_variance=self.log_variance,
        )

    def latent_shape(self, size: tuple[int, int]) -> tuple[int, int, int]:
        """Shape (c, h, w) of the latent of pictures of this height and width."""
        return self.first_stage.latent_shape(size)


def count_parameters(spec: ModelSpec) -> dict[str, int]:
    """Parameters of first stage, network and conditioner, built without memory."""
    with hollow():
        model = LatentDiffusion(spec)
    return {
        "first_stage": parameters_of(model.first_stage),
        "network": parameters_of(model.network),
        "conditioner": parameters_of(model.conditioning),
    }
