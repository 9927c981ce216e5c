"""The automatic recipe: what to train on a person's folder of pictures, on a small machine, without being asked."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from darkroom.autoencoder.adversary import AdversarySpec
from darkroom.autoencoder.bottleneck import KLSpec
from darkroom.autoencoder.losses import FirstStageLossSpec
from darkroom.autoencoder.model import AutoencoderSpec
from darkroom.conditioning.boxes import BoxesSpec
from darkroom.conditioning.conditioner import ConditionerSpec, plane_channels
from darkroom.conditioning.label import ClassSpec
from darkroom.conditioning.spatial import LowResSpec, MapSpec, MaskedSpec
from darkroom.conditioning.text import SequenceEncoderSpec, TextSpec
from darkroom.core.errors import DataError, SpecError, did_you_mean
from darkroom.data.degrade import BicubicSpec, DegradationSpec
from darkroom.data.place import called
from darkroom.network.unet import UNetSpec
from darkroom.process.objective import ObjectiveSpec, ShiftedTimesSpec
from darkroom.process.schedule import CosineSpec
from darkroom.recipes.given import at_latents, coarse_first
from darkroom.recipes.schema import DataSpec, DenoiserRecipe, FirstStageRecipe, Recipe, SampleSpec
from darkroom.train.optim import TrainSpec

Channels = Literal[1, 3, 4]
SIZE: Final = 64  # pixels, unless the pictures are smaller or another size is asked for
MULTIPLE: Final = 16  # f = 4, and the U-Net halves the latent twice
RGB: Final = 3
LATENT_CHANNELS: Final = 4
FINE_CHANNELS: Final = 12  # where a picture is given and its detail shall come back: a decibel lost here stays lost
BEGINS: Final = {LATENT_CHANNELS: "pictures-f4", FINE_CHANNELS: "pictures-f4-c12"}  # of colour pictures
FINE_TASKS: Final = ("super-resolution", "inpainting")
WHOLE: Final = 32  # pictures of a step of the denoiser, unless there is a reason for fewer
CONTEXT: Final = 160
VOCABULARY: Final = 4096
TOKENS: Final = 32
DROP: Final = 0.1  # share of samples trained without their condition, for guidance (Ho & Salimans 2022)
GUIDANCE: Final = 2.5
FACTOR: Final = 4
TURNED: Final = 4000  # pictures at most that are turned: latents of eight views of each are kept
BICUBIC: Final = BicubicSpec()
MAP_CHANNELS: Final = 16
FREE: Final = "unconditional"
HOW: Final = {  # a person gives a field
    "caption": "a text beside each picture, or captions in metadata.jsonl",
    "label": "a sub-folder for each class, or labels in metadata.jsonl",
    "map": "maps in a folder masks beside images, or map_file_name in metadata.jsonl",
    "objects": "boxes in metadata.jsonl, or as COCO, VOC or YOLO write them",
}
TASKS: Final = (FREE, "class", "text", "layout", "semantic", "super-resolution", "inpainting")


def recipe_for_folder(
    summary: Mapping[str, Any],
    *,
    place: str,
    size: int | None = None,
    channels: Channels = 3,
    task: str | None = None,
    degradation: DegradationSpec = BICUBIC,
    guess: bool = True,
    fresh: bool = False,
) -> Recipe:
    """The recipe for a data set of which `darkroom.data.summary` told count, fields, classes and sizes.

    place: where the pictures are · size: side in pixels, a multiple of 16 (None: 64, or less when the pictures are
    smaller) · channels: 1 grey, 3 colours, 4 with alpha · task: of `TASKS`, several joined by `+` (None: what the
    pictures ask for) · degradation: how they are made small · guess: latents are guessed from what is given of the
    picture, and the denoiser learns the rest (a model that exists may know whole latents) · fresh: the first stage
    learns from nothing, and not on from a built-in one. Captions make a text model,
    unless all are the same or each class has just one; else labels make a class model, maps a semantic one, boxes one
    steered by layouts, else it is unconditional. Pictures are mirrored unless words or classes steer, for words may say
    left and right, and a class may be a letter; where pictures alone steer and are few, they are turned by quarters
    too, or they would soon be known by heart. `SpecError` for a size, task or factor of `degradation` that does not
    fit, `DataError` for a data set without pictures.
    """
    count = int(summary["count"])
    if count < 1:
        raise DataError(f"{place}: there are no pictures")
    tasks = _asked_tasks(task) if task is not None else [_own_task(summary)]
    first_stage = _first_stage(count, channels=channels, fine=bool({*tasks} & {*FINE_TASKS}), fresh=fresh)
    conditioners = tuple(
        at_latents(
            _conditioner(each, summary, place=place, channels=channels, guess=guess and each == _guessing(tasks)),
            first_stage.model,
            small=degradation.factor,
        )
        for each in tasks
        if each != FREE
    )
    side = _size(summary, size)
    kind = "unconditional" if not conditioners else f"steered by {' and '.join(each.field for each in conditioners)}"
    return Recipe(
        name="-".join([called(place) or "pictures", *([] if task is None else task.split("+"))]),
        summary=f"{count} training pictures of {called(place)}, {kind}.",
        source="made for this folder by darkroom",
        data=DataSpec(
            source=place,
            size=side,
            channels=channels,
            degradation=degradation,
            **views_for(conditioners, count=count),
        ),
        first_stage=first_stage,
        denoiser=_denoiser(conditioners, first_stage.model, count=count, latent=side // first_stage.model.factor),
    )


def views_for(conditioners: Sequence[ConditionerSpec], *, count: int) -> dict[str, bool]:
    """How `count` pictures are looked at (`flip`, `turn`): words and classes may say left, all but pictures up."""
    alone = bool(conditioners) and all(isinstance(each, LowResSpec | MaskedSpec) for each in conditioners)
    words = any(each.field in ("caption", "label") for each in conditioners)
    return {"flip": not words, "turn": alone and count <= TURNED}


def fine_tuning(count: int) -> TrainSpec:
    """How the denoiser of a finished model learns `count` other pictures: in small steps, and not for long.

    AdamW at a tenth of what a fresh network would take, for it shall keep what it knows.
    """
    return TrainSpec(
        steps=_steps(count, least=800, most=6000),
        batch=32,
        learning_rate=1e-4,
        warmup=100,
        decay="cosine",
        betas=(0.9, 0.99),
        ema=0.998,
    )


def _own_task(summary: Mapping[str, Any]) -> str:
    """Captions say more than labels, if most pictures have one and they differ; one class says nothing."""
    fields = summary["fields"]
    labelled = "label" in fields and len(summary.get("classes") or {}) > 1
    if _captions_tell(summary) and not (labelled and summary.get("captions_of_a_class") == 1):
        return "text"
    if labelled:
        return "class"
    if "map" in fields:
        return "semantic"
    return "layout" if "objects" in fields and summary.get("categories") else FREE


def _asked_tasks(task: str) -> list[str]:
    """`SpecError` for a task that is unknown, comes twice, or stands beside `unconditional`."""
    tasks = task.split("+")
    for each in tasks:
        if each not in TASKS:
            raise SpecError(f"task {each!r} is unknown{did_you_mean(each, TASKS)}; several are joined by +")
    if len(set(tasks)) < len(tasks) or (FREE in tasks and len(tasks) > 1):
        raise SpecError(f"task={task} does not fit: each task comes once, and {FREE} alone")
    return tasks


def _guessing(tasks: Sequence[str]) -> str | None:
    """The task that latents are guessed from: one alone, and a hole says where the guess is certain."""
    return next((each for each in reversed(FINE_TASKS) if each in tasks), None)


def _conditioner(task: str, summary: Mapping[str, Any], *, place: str, channels: int, guess: bool) -> ConditionerSpec:
    """What a task plugs in; `DataError` where the pictures lack what it needs."""
    fields, classes = set(summary["fields"]), len(summary.get("classes") or {})
    needs = {"text": {"caption", "label"}, "class": {"label"}, "layout": {"objects"}, "semantic": {"map"}}
    if task in needs and not fields & needs[task]:
        raise DataError(
            f"{place}: task={task} needs the field {min(needs[task])!r}, this data set has "
            f"{', '.join(sorted(fields)) or 'pictures alone'}; add {HOW[min(needs[task])]}"
        )
    match task:
        case "text":
            return TextSpec(encoder=_encoder(VOCABULARY, TOKENS), drop=DROP)
        case "class":
            return ClassSpec(classes=classes, width=CONTEXT, null=classes, drop=DROP)
        case "layout":
            return BoxesSpec(categories=max(1, len(summary.get("categories") or ())), channels=MAP_CHANNELS, drop=DROP)
        case "semantic":
            known = max(2, len(summary.get("map_classes") or ()))
            return MapSpec(classes=known, channels=MAP_CHANNELS, halvings=0, patch=FACTOR, drop=DROP)
        case "super-resolution":
            return LowResSpec(
                channels=channels, guesses=LATENT_CHANNELS if guess else 0
            )  # as many as `at_latents` finds
        case _:
            # of as many channels as `at_latents` finds
            return MaskedSpec(channels=LATENT_CHANNELS + 1, shrink="any", fill="inward", guesses=guess)


def _encoder(vocabulary: int, length: int) -> SequenceEncoderSpec:
    return SequenceEncoderSpec(vocabulary=vocabulary, length=length, width=CONTEXT, depth=3, heads=5, head_width=32)


def _captions_tell(summary: Mapping[str, Any]) -> bool:
    """Have most pictures a caption, and are there different ones?"""
    count = summary["count"]
    many = "caption" in summary["fields"] and 2 * summary.get("captioned", count) > count
    return many and summary.get("captions", count) > 1


def _size(summary: Mapping[str, Any], asked: int | None) -> int:
    if asked is not None:
        if asked < MULTIPLE or asked % MULTIPLE:
            near = max(1, round(asked / MULTIPLE)) * MULTIPLE
            raise SpecError(f"size {asked} does not fit: it must be a multiple of {MULTIPLE}, e.g. {near}")
        return asked
    shorter = min(summary[side]["median"] for side in ("width", "height"))
    return max(MULTIPLE, min(SIZE, shorter // MULTIPLE * MULTIPLE))


def _steps(count: int, *, least: int, most: int) -> int:
    """Steps that grow with the square root of the data set: a small one is soon known by heart.

    `most` is reached at 10,000 pictures.
    """
    return 100 * round(min(most, max(least, most * math.sqrt(count / 10_000))) / 100)


def _first_stage(count: int, *, channels: Channels, fine: bool, fresh: bool) -> FirstStageRecipe:
    """f = 4 with 4 or 12 channels; squares of pixels become channels first, a fourth of the cost of convolving pixels.

    One for colours begins as the built-in one, which knows pictures of many kinds, and gets used to these. A fresh one
    begins as resizing, for a small machine has no time to learn that first.
    """
    fresh = fresh or channels != RGB
    latent_channels = FINE_CHANNELS if fine else LATENT_CHANNELS
    model = AutoencoderSpec(
        image_channels=channels,
        channels=32,
        multipliers=(1, 2),
        blocks=1,
        stem="patch2",
        middle_attention=False,
        latent_channels=latent_channels,
        bottleneck=KLSpec(),
        norm_groups=16,
        shortcut="linear",
    )
    train = TrainSpec(
        steps=_steps(count, least=1500, most=6000) if fresh else _steps(count, least=400, most=1600),
        batch=16,
        learning_rate=1e-3,
        warmup=100,
        decay="cosine",
        optimizer="muon",
        betas=(0.9, 0.99),
        weight_decay=0.0,
        ema=0.999,
    )
    begin = None if fresh else BEGINS[latent_channels]
    return FirstStageRecipe(model=model, begin=begin, loss=_first_stage_loss(), train=train)


def _first_stage_loss() -> FirstStageLossSpec:
    """Pixels and features, and an adversary once half of the steps have settled the rest.

    A feature distance is about five times a pixel distance, so 0.2 lets both speak; the adversary has a tenth of
    their gradient, which sharpens without costing a decibel.
    """
    adversary = AdversarySpec(start=0.5, weight=0.1, layers=2, channels=32, learning_rate=2e-4)
    return FirstStageLossSpec(pixel="l1", perceptual_weight=0.2, adversary=adversary)


def _denoiser(
    conditioners: tuple[ConditionerSpec, ...], first_stage: AutoencoderSpec, *, count: int, latent: int
) -> DenoiserRecipe:
    """A U-Net of five million parameters; latent: side of the latents.

    The cosine schedule gives 16 x 16 latents as much time at middling noise as 64 x 64 ones have under the paper's
    schedule, which destroys small latents too early (fewer positions average less noise away); it ends 1e-5 short of
    pure noise, so nothing is gained by a zero terminal SNR. v keeps the error of all times in one unit. Noisy times,
    where it is decided what is where, are drawn more often, and attention knows the places; with this the hands of
    sign_digits_64 came nearer to the real ones in as many steps than with min-SNR weights (docs/results.md).

    A small machine makes few steps, so each must go far, which Muon's do: five minutes of nuclei by maps at 128 px came
    to a held-out loss of 0.137 with it in batches of 16 (of AdamW 0.33 with batches of 8, 0.41 with 16, 0.54 with 32),
    holes in photographs to 0.159 in batches of 8 (0.175, and 0.190 with 16). Where latents are guessed from a picture,
    all times are drawn alike, for where things are is known. Attention then is coarser in large latents, where it takes
    half of the time, and in the middle alone where a picture is made larger and nothing else steers. With these and
    turned views a regression came 0.4 dB further in the same time.
    """
    guessed = any(isinstance(each, LowResSpec | MaskedSpec) and each.guesses for each in conditioners)
    nearby = bool(conditioners) and all(isinstance(each, LowResSpec) and each.guesses for each in conditioners)
    tokens = any(each.port == "tokens" for each in conditioners)
    large = latent > SIZE // 4
    batch = WHOLE // 2 if guessed or large else WHOLE
    network = UNetSpec(
        in_channels=first_stage.latent_channels + plane_channels(conditioners),
        out_channels=first_stage.latent_channels,
        channels=64,
        multipliers=(1, 2, 2),
        blocks=1,
        attention=() if nearby else (4,) if guessed and not tokens and large else (2,),
        head_channels=32,
        transformer_depth=1,
        context_width=CONTEXT if tokens else None,
        places="waves",
        norm_groups=16,
    )
    train = TrainSpec(
        steps=_steps(count, least=3000, most=12_000) * (WHOLE // batch),
        batch=batch,
        learning_rate=2e-3,
        warmup=300,
        decay="cosine",
        optimizer="muon",
        betas=(0.9, 0.99),
        ema=0.999,
    )
    return DenoiserRecipe(
        network=network,
        conditioners=conditioners,
        schedule=CosineSpec(),
        prediction="v",
        objective=ObjectiveSpec() if guessed else ObjectiveSpec(times=ShiftedTimesSpec(factor=2.0)),
        spread=coarse_first(first_stage) if first_stage.latent_channels == FINE_CHANNELS else None,
        train=train,
        sample=_sampling(conditioners),
    )


def _sampling(conditioners: tuple[ConditionerSpec, ...]) -> SampleSpec:
    """Where a picture is given, few steps stay nearest to it; a hole wants noise in them, and edges that meet."""
    hole = any(isinstance(each, MaskedSpec) for each in conditioners)
    given = hole or any(isinstance(each, LowResSpec) for each in conditioners)
    guidance = _guidance(conditioners)
    return SampleSpec(eta=1.0 if hole else 0.0, steps=8 if given else 25, match=2 if hole else 0, guidance=guidance)


def _guidance(conditioners: tuple[ConditionerSpec, ...]) -> float:
    """What says a lot of each pixel is obeyed without it, and pictures are likelier so (docs/results.md)."""
    guided = any(each.drop > 0 and each.port == "tokens" for each in conditioners)
    return GUIDANCE if guided else 1.0
