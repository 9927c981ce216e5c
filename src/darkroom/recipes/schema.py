"""What a recipe says: data, first stage, denoiser, how each is trained, how samples are drawn."""

import math
from typing import Any, ClassVar, Final, Literal, cast, final

from pydantic import Field, PositiveFloat, model_validator

from darkroom.autoencoder.losses import FirstStageLossSpec
from darkroom.autoencoder.model import AutoencoderSpec, FirstStageSpec, PixelsSpec
from darkroom.conditioning.conditioner import ConditionerSpec
from darkroom.conditioning.spatial import LowResSpec, MapSpec
from darkroom.core.errors import InputError
from darkroom.core.spec import Spec, parse
from darkroom.data.aspects import shapes_for
from darkroom.data.degrade import BicubicSpec, DegradationSpec
from darkroom.data.masks import AnyMasksSpec, MasksSpec
from darkroom.data.transforms import TransformSpec
from darkroom.diffusion.model import ModelSpec
from darkroom.diffusion.walk import check_walk
from darkroom.network.unet import UNetSpec
from darkroom.process.objective import NoisiestTimeSpec, ObjectiveSpec
from darkroom.process.prediction import PredictionName
from darkroom.process.schedule import LinearSpec, ScheduleSpec, build_schedule
from darkroom.tasks.held_out import Spoiling
from darkroom.tasks.request import MOST_MOVES
from darkroom.train.distill import DistillSpec
from darkroom.train.optim import TrainSpec

FINEST: Final = 8  # pixels: of finer steps between shapes there would be many with few pictures each


@final
class DataSpec(Spec):
    """Where pictures come from and how they are cut to size.

    source: a folder, or `shapes` / `shapes:single` (None: must be given) · size: side in pixels · aspects: pictures
    keep theirs up to this ratio of their sides, as samples of `size` x `size` pixels or about as many; each batch is of
    one shape (None: all are cut to squares) · flip: every other
    sample is mirrored · turn: samples are turned by quarters · scale: range of
    random enlargement before the crop · count: how many scenes of `shapes`, or pictures at most · caption_field: the
    metadata field read as the caption · degradation: how low-resolution pictures are made · masks: what inpainting is
    trained with · license: kept in the model's card.
    """

    written_where_used: ClassVar = frozenset({"degradation", "masks", "turn", "aspects"})

    source: str | None = None
    size: int = Field(gt=0)
    aspects: float | None = Field(default=None, gt=1, le=4)
    channels: Literal[1, 3, 4] = 3
    crop: Literal["centre", "random"] = "centre"
    flip: bool = False
    turn: bool = False
    scale: tuple[float, float] | None = None
    count: int | None = Field(default=None, gt=0)
    caption_field: str = "caption"
    degradation: DegradationSpec = BicubicSpec()
    masks: AnyMasksSpec = MasksSpec()
    license: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_the_usual_kind(cls, values: Any) -> Any:
        """Where a change names no kind, it is of the one that is used without it."""
        if not isinstance(values, dict):
            return values
        given = cast("dict[str, Any]", values)
        usual = {"degradation": BicubicSpec().kind, "masks": MasksSpec().kind}
        named = {key: {"kind": kind, **given[key]} for key, kind in usual.items() if isinstance(given.get(key), dict)}
        return {**given, **named}

    @property
    def spoiling(self) -> Spoiling:
        """How pictures are made small or given holes."""
        return Spoiling(degradation=self.degradation, masks=self.masks)


@final
class FirstStageRecipe(Spec):
    """The first stage: what it is, what it minimises, how it is trained (None: it is given or needs no training).

    only: `decoder` trains the tiny decoder of a first stage that is given, and nothing else of it · begin: a model
    with a first stage of the same spec, whose weights training begins with (None: fresh ones).
    """

    written_where_used: ClassVar = frozenset({"begin"})

    model: FirstStageSpec
    only: Literal["decoder"] | None = None
    begin: str | None = None
    loss: FirstStageLossSpec = Field(default_factory=FirstStageLossSpec)
    train: TrainSpec | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "FirstStageRecipe":
        if self.train is not None and self.train.precision == "float16" and self.loss.adversary is not None:
            raise ValueError(
                "train.precision float16 rounds an adversary's gradients to zero; take bfloat16 or float32"
            )
        if self.train is not None and self.train.strategy == "fsdp":
            raise ValueError("train.strategy fsdp is for denoisers; a first stage fits one device, take ddp")
        if self.begin is not None and (self.only is not None or not isinstance(self.model, AutoencoderSpec)):
            raise ValueError("begin is for a first stage that is trained as a whole; leave it away")
        if self.only is None:
            return self
        if not isinstance(self.model, AutoencoderSpec) or self.model.tiny is None:
            raise ValueError("only: decoder trains a tiny decoder, so model.tiny must say what it is made of")
        if self.train is None:
            raise ValueError("only: decoder needs train, which says how the decoder is trained")
        return self


@final
class SampleSpec(Spec):
    """How previews are drawn, and the model's defaults for sampling. match: of models that paint holes."""

    solver: str = "dpm++2m"
    eta: float = Field(default=0.0, ge=0)
    steps: int = Field(default=25, gt=0)
    guidance: float = 1.0
    match: int = Field(default=0, ge=0, le=MOST_MOVES)
    count: int = Field(default=16, gt=0)
    prompts: tuple[str, ...] = ()


@final
class DenoiserRecipe(Spec):
    """The second stage: network, conditioners, mathematics, how it is trained.

    scale: a fixed factor on latents (None: measured, so that they have unit deviation as a whole) · spread: instead the
    deviation that each latent channel is brought to, measured too. What spreads wider stands out of the noise earlier,
    and so is settled first. Where latents are guessed, one more factor brings what is beyond the guess to unit
    deviation · distill: it begins as another model and learns to draw in few steps what that one draws in many.
    """

    written_where_used: ClassVar = frozenset({"distill"})

    network: UNetSpec
    conditioners: tuple[ConditionerSpec, ...] = ()
    schedule: ScheduleSpec = Field(default_factory=LinearSpec)
    prediction: PredictionName = "eps"
    objective: ObjectiveSpec = Field(default_factory=ObjectiveSpec)
    scale: float | None = None
    spread: tuple[PositiveFloat, ...] | None = None
    train: TrainSpec | None = None
    distill: DistillSpec | None = None
    sample: SampleSpec = Field(default_factory=SampleSpec)


@final
class StartSpec(Spec):
    """The model that fine-tuning begins with, or the teacher: what it is called, and a hash of its weights.

    taught: something else steers the new model, so what differs at its ports begins anew.
    """

    name: str
    weights: str
    taught: bool = False


@final
class Recipe(Spec):
    """A named experiment. `summary` says what it is; `source` where its numbers come from.

    start: the model whose weights the denoiser begins with (None: fresh ones) · minutes: what the run may take here;
    the denoiser's steps are settled once the first stage is done, and again at every look.
    """

    name: str
    summary: str
    source: str | None = None
    data: DataSpec
    first_stage: FirstStageRecipe
    denoiser: DenoiserRecipe | None = None
    start: StartSpec | None = None
    minutes: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    seed: int = Field(default=0, ge=0, lt=2**63)

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        self.model_spec()  # raises what does not fit together
        factor = self.first_stage.model.factor
        if self.data.size % factor:
            raise ValueError(f"data.size {self.data.size} is no multiple of the first stage's factor {factor}")
        channels = self.first_stage.model.image_channels
        if channels != self.data.channels:
            raise ValueError(
                f"data.channels ({self.data.channels}) and first_stage.model.image_channels ({channels}) must be equal"
            )
        if self.data.aspects is not None:
            _check_aspects(self)
        if self.denoiser is not None:
            _check_spread(self.denoiser, self.first_stage.model)
            _check_planes(self.denoiser, self.data, factor=factor)
            _check_sampling(self.denoiser)
            _check_distill(self.denoiser, self.start)
        return self

    @property
    def transform(self) -> TransformSpec:
        """How pictures become samples."""
        data = self.data
        values = {name: getattr(data, name) for name in ("size", "channels", "crop", "flip", "turn", "scale")}
        if data.aspects is not None:
            values["shapes"] = shapes_for(data.size, multiple=self._multiple, widest=data.aspects)
        return parse(TransformSpec, values, where=f"the data of recipe {self.name!r}")

    @property
    def _multiple(self) -> int:
        """What sides of samples are multiples of: as both stages need it, not finer than `FINEST`."""
        model, part = self.model_spec(), self.denoiser
        needed = self.first_stage.model.factor if model is None else model.size_multiple
        made_small = part is not None and any(isinstance(each, LowResSpec) for each in part.conditioners)
        return math.lcm(FINEST, needed, self.data.degradation.factor if made_small else 1)

    def model_spec(self) -> ModelSpec | None:
        """The spec of the whole model; None for a recipe of a first stage alone."""
        part = self.denoiser
        if part is None:
            return None
        return ModelSpec(
            image_size=self.data.size,
            first_stage=self.first_stage.model,
            network=part.network,
            conditioners=part.conditioners,
            schedule=part.schedule,
            prediction=part.prediction,
            objective=part.objective,
            scale=1.0 if isinstance(self.first_stage.model, PixelsSpec) else part.scale,
        )


def _check_aspects(recipe: Recipe) -> None:
    """`ValueError` where samples of several shapes cannot be made."""
    if recipe.data.turn:
        raise ValueError("data.aspects and data.turn do not go together; set data.turn=false")
    try:
        _ = recipe.transform
    except InputError as error:
        raise ValueError(str(error)) from None


def _check_spread(part: DenoiserRecipe, first_stage: FirstStageSpec) -> None:
    """`ValueError` where deviations are asked for that cannot be given."""
    if part.spread is None:
        return
    if part.scale is not None:
        raise ValueError("denoiser.scale and denoiser.spread both say what latents are multiplied by; keep one")
    if isinstance(first_stage, PixelsSpec):
        raise ValueError("denoiser.spread is for latents, and this model works on pixels; set it to null")
    if len(part.spread) != first_stage.latent_channels:
        raise ValueError(
            f"denoiser.spread names {len(part.spread)} channels, latents have {first_stage.latent_channels}"
        )


def _check_planes(part: DenoiserRecipe, data: DataSpec, *, factor: int) -> None:
    """`ValueError` for maps and low-resolution pictures that would not lie beside latents."""
    latent, small = data.size // factor, data.degradation.factor
    for spec in part.conditioners:
        match spec:
            case MapSpec():
                if data.size != latent * 2**spec.halvings * spec.patch:
                    raise ValueError(
                        f"a map is made 2^{spec.halvings} x {spec.patch} times smaller (halvings, patch), latents are "
                        f"{factor} times smaller than pictures; both must be equal"
                    )
            case LowResSpec():
                if data.size % small or data.size // small * spec.enlarge != latent * spec.patch:
                    raise ValueError(
                        f"pictures of {data.size} px made {small} times smaller (data.degradation.factor) do not lie "
                        f"beside latents of {latent} x {latent}, with patch {spec.patch} and enlarge {spec.enlarge}"
                    )
            case _:
                pass


def _check_sampling(part: DenoiserRecipe) -> None:
    """`ValueError` for an unknown solver, an eta that it does not take, or more steps than the schedule has times."""
    try:
        sample = part.sample
        check_walk(build_schedule(part.schedule), solver=sample.solver, steps=sample.steps, eta=sample.eta)
    except InputError as error:
        raise ValueError(f"sample: {error}") from None


def _check_distill(part: DenoiserRecipe, start: StartSpec | None) -> None:
    """`ValueError` for a student without a teacher, or of one that has nothing to teach."""
    if part.distill is None:
        return
    if start is None:
        raise ValueError("denoiser.distill needs a teacher: darkroom train DATA --distill MODEL")
    if isinstance(part.objective.times, NoisiestTimeSpec):
        raise ValueError("a regression draws in one step already, so there is nothing to distill")
    if part.train is not None and part.train.strategy == "fsdp":
        raise ValueError("train.strategy fsdp and --distill do not go together yet; use ddp")


def unshared(recipe: Recipe) -> Recipe:
    """The recipe as one process trains it: how several share the weights out changes nothing of what is learnt."""
    part = recipe.denoiser
    if part is None or part.train is None:
        return recipe
    train = part.train.model_copy(update={"strategy": "ddp"})
    return recipe.model_copy(update={"denoiser": part.model_copy(update={"train": train})})


def difference(before: Recipe, now: Recipe) -> str:
    """The first place where two recipes differ, in words."""

    def walk(one: Any, other: Any, place: str) -> str | None:
        if isinstance(one, dict) and isinstance(other, dict):
            for key in [*one, *(key for key in other if key not in one)]:
                found = walk(one.get(key), other.get(key), f"{place}.{key}" if place else str(key))
                if found is not None:
                    return found
            return None
        return None if one == other else f"{place} was {one!r} and is {other!r} now"

    said, saying = before.plain(), now.plain()
    last = {"summary": said.pop("summary")}, {"summary": saying.pop("summary")}  # it follows from the rest
    return walk(said, saying, "") or walk(*last, "") or "they are equal"
