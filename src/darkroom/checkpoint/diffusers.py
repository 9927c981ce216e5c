"""Folders of diffusers as our models: pipelines by their model_index.json, and first stages or U-Nets alone.

Names of classes are data here: compared with closed lists, never imported.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import torch

from darkroom.autoencoder.bottleneck import VQSpec
from darkroom.autoencoder.model import AutoencoderSpec
from darkroom.checkpoint.clip_text import CLASS, read_clip_tokenizer
from darkroom.checkpoint.diffusers_config import SCALE, STAGES, UNETS, Plain
from darkroom.checkpoint.diffusers_files import read_object
from darkroom.checkpoint.diffusers_parts import (
    CONFIG,
    Part,
    class_part,
    clip_part,
    encoder_part,
    first_stage_part,
    unet_part,
)
from darkroom.checkpoint.diffusers_schedule import SCHEDULERS, read_scheduler
from darkroom.checkpoint.diffusers_text import TOKENS, NoTokenizer, read_tokenizer
from darkroom.checkpoint.published import sampling
from darkroom.checkpoint.read_spec import parsed
from darkroom.checkpoint.store import StoredModel
from darkroom.conditioning.label import ClassSpec
from darkroom.conditioning.text import SequenceEncoderSpec, Tokenizer
from darkroom.core.errors import ModelFileError, NotYetError, did_you_mean
from darkroom.core.hollow import hollow
from darkroom.diffusion.model import ModelSpec
from darkroom.network.unet import UNet, UNetSpec
from darkroom.process.prediction import PredictionName
from darkroom.process.schedule import ScheduleSpec

INDEX: Final = "model_index.json"
UNCONDITIONAL, TEXT, SUPER_RESOLUTION, STABLE = (
    "LDMPipeline",
    "LDMTextToImagePipeline",
    "LDMSuperResolutionPipeline",
    "StableDiffusionPipeline",
)
TINY: Final = "AutoencoderTiny"  # read by `previews`
SOURCE: Final = "diffusers folder"  # of a card
SCHEDULER: Final = "scheduler_config.json"
CAPTION: Final = "conditioning.by_field.caption."
LABEL: Final = "conditioning.by_field.label."
_LATENTS: Final = {"vqvae": STAGES, "unet": ("UNet2DModel",), "scheduler": SCHEDULERS}
PIPELINES: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    UNCONDITIONAL: _LATENTS,
    SUPER_RESOLUTION: _LATENTS,
    TEXT: {
        "vqvae": STAGES,
        "bert": ("LDMBertModel",),
        "tokenizer": ("BertTokenizer", "BertTokenizerFast"),
        "unet": ("UNet2DConditionModel",),
        "scheduler": SCHEDULERS,
    },
    STABLE: {
        "vae": ("AutoencoderKL",),
        "text_encoder": (CLASS,),
        "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
        "unet": ("UNet2DConditionModel",),
        "scheduler": SCHEDULERS,
    },
}
SAME_PARTS: Final = {"StableDiffusionImg2ImgPipeline": STABLE}  # pipelines that differ in what is asked of the model
LATER: Final = {"StableDiffusionInpaintPipeline": "Stable Diffusion with a mask as input"}
UNUSED: Final = ("safety_checker", "feature_extractor", "image_encoder")  # components that draw nothing


@final
@dataclass(frozen=True, eq=False)
class Opened:
    """What a folder holds, none of its weights read. family: class of the pipeline, or of the only component.

    encoder, tokenizer: of captions · labels: of classes · odd: sentences for the user · lacking: one, where what is
    needed to draw is not there.
    """

    family: str
    network: Part[UNetSpec] | None = None
    first_stage: Part[AutoencoderSpec] | None = None
    encoder: Part[SequenceEncoderSpec] | None = None
    tokenizer: Tokenizer | None = None
    labels: Part[ClassSpec] | None = None
    schedule: ScheduleSpec | None = None
    prediction: PredictionName = "eps"
    odd: tuple[str, ...] = ()
    lacking: str | None = None

    @property
    def parts(self) -> dict[str, Part[Any]]:
        """Those that are there, by the prefix of their tensors in our models."""
        found = {
            "first_stage.": self.first_stage,
            "network.": self.network,
            CAPTION: self.encoder,
            LABEL: self.labels,
        }
        return {prefix: part for prefix, part in found.items() if part is not None}


def is_folder(folder: Path) -> bool:
    """Is this a folder of diffusers: a pipeline, or a component that says its class?"""
    if (folder / INDEX).is_file():
        return True
    try:
        return (folder / CONFIG).is_file() and "_class_name" in read_object(folder / CONFIG)
    except ModelFileError:
        return False


def open_folder(folder: Path) -> Opened:
    """A pipeline, a first stage alone or a U-Net alone; `ModelFileError` in one sentence for all that does not fit."""
    if not (folder / INDEX).is_file():
        return _alone(folder)
    family, names = _index(folder)
    network, first_stage = unet_part(folder / "unet"), first_stage_part(folder / _stage(names))
    for name, part in (("unet", network), (_stage(names), first_stage)):
        if part.family != names[name]:
            raise ModelFileError(f"{folder / name}: is of class {part.family}, {INDEX} says {names[name]}")
    place = folder / "scheduler" / SCHEDULER
    schedule, prediction, odd = read_scheduler(read_object(place), where=str(place))
    encoder, tokenizer, lacking = _of_captions(folder, family)
    labels = class_part(folder / "unet", network)
    sentences = [*_about_scale(first_stage, family), *first_stage.odd, *network.odd, *odd, *_about_unused(folder)]
    if encoder is not None:
        sentences += [*encoder.odd, *_about_length(encoder.spec)]
    sentences += [] if labels is None else labels.odd
    odd = tuple(sentences)
    return Opened(family, network, first_stage, encoder, tokenizer, labels, schedule, prediction, odd, lacking)


def load_folder(folder: Path) -> StoredModel:
    """A pipeline as a model, or a first stage alone; weights in float32, read tensor by tensor.

    `ModelFileError` names what is missing, damaged, unsafe or of a kind that we do not have; `NotYetError` for what is
    planned. What is remarkable stands in `odd`.
    """
    opened = open_folder(folder)
    if opened.first_stage is None:
        raise ModelFileError(f"{folder}: a U-Net alone, which draws nothing; in Python darkroom.load_network takes it")
    if opened.network is None:
        return _stored_stage(opened.first_stage, folder)
    if opened.lacking is not None:
        raise ModelFileError(opened.lacking)
    spec = model_spec(opened, where=str(folder))
    state = {prefix + name: tensor for prefix, part in opened.parts.items() for name, tensor in part.state().items()}
    assert spec.scale is not None
    state["scale"] = torch.tensor(spec.scale)
    if opened.tokenizer is not None:
        state[f"{CAPTION}empty_ids"] = opened.tokenizer([""])[0]
    tokenizer = None if opened.tokenizer is None else opened.tokenizer.to_json()
    card = {**_card(opened.family, folder, opened.odd), **sampling(spec)}
    return StoredModel("model", spec, state, card, tokenizer=tokenizer, odd=opened.odd)


def _of_captions(folder: Path, family: str) -> tuple[Part[SequenceEncoderSpec] | None, Tokenizer | None, str | None]:
    """Text encoder and tokenizer, where captions steer; a sentence where there is no tokenizer."""
    if family not in (TEXT, STABLE):
        return None, None, None
    part, read = (encoder_part, read_tokenizer) if family == TEXT else (clip_part, read_clip_tokenizer)
    encoder = part(folder / ("bert" if family == TEXT else "text_encoder"))
    try:
        return encoder, read(folder / "tokenizer", encoder=encoder.spec), None
    except NoTokenizer as error:
        return encoder, None, str(error)


def load_first_stage(folder: Path) -> StoredModel:
    """The first stage of any pipeline that is known, or alone; `ModelFileError` as for `load_folder`."""
    if not (folder / INDEX).is_file():
        return _stored_stage(first_stage_part(folder), folder)
    _, names = _index(folder)
    return _stored_stage(first_stage_part(folder / _stage(names)), folder)


def load_unet(folder: Path) -> UNet:
    """The U-Net of any pipeline that is known, or alone, in float32; `ModelFileError` as for `load_folder`.

    One that tells classes apart takes what their embedding gives as the vector of its conditions.
    """
    whole = (folder / INDEX).is_file()
    if whole:
        _index(folder)
    part = unet_part(folder / "unet" if whole else folder)
    with hollow():
        network = UNet(part.spec)
    network.load_state_dict(part.state(), strict=True, assign=True)
    return network.eval()


def model_spec(opened: Opened, *, where: str) -> ModelSpec:
    """The spec of a pipeline's model; `ModelFileError` when its parts do not fit each other."""
    network, first_stage = opened.network, opened.first_stage
    assert network is not None
    assert first_stage is not None
    assert opened.schedule is not None
    conditioners: list[Plain] = []
    if opened.encoder is not None:
        conditioners.append({"kind": "text", "encoder": opened.encoder.spec.plain()})
    if opened.labels is not None:
        conditioners.append(opened.labels.spec.plain())
    if opened.family == SUPER_RESOLUTION:
        beside = network.spec.in_channels - first_stage.spec.latent_channels
        if beside != first_stage.spec.latent_channels:
            raise ModelFileError(
                f"{where}: {SUPER_RESOLUTION} gives its U-Net as many channels of the small picture as of latents, "
                f"this one takes {network.spec.in_channels} beside latents of {first_stage.spec.latent_channels}"
            )
        conditioners.append({"kind": "low-res", "channels": beside})
    values = {
        "image_size": _size(opened),
        "first_stage": first_stage.spec.plain(),
        "network": network.spec.plain(),
        "conditioners": conditioners,
        "schedule": opened.schedule.plain(),
        "prediction": opened.prediction,
        "scale": 1.0 if opened.family == SUPER_RESOLUTION else first_stage.scale,
    }
    return parsed(ModelSpec, values, where=where)


def _size(opened: Opened) -> int:
    """Side of the pictures: of the U-Net's latents, or of the first stage's, or 256; brought to one that fits."""
    network, first_stage = opened.network, opened.first_stage
    assert network is not None
    assert first_stage is not None
    factor = first_stage.spec.factor
    said = (first_stage.size or 256) if network.size is None else network.size * factor
    multiple = factor * network.spec.size_multiple
    return max(1, round(said / multiple)) * multiple


def _about_scale(part: Part[AutoencoderSpec], family: str) -> list[str]:
    """Models with a codebook have a factor of 1, but where diffusers wrote its own default; one pipeline uses none."""
    quantised = isinstance(part.spec.bottleneck, VQSpec)
    if family == SUPER_RESOLUTION:
        return [f"scaling_factor is {part.scale:g}, which {family} does not use"] if part.scaled else []
    if quantised and not part.scaled:
        return ["scaling_factor is not said; 1 is taken, as models with a codebook were trained"]
    if quantised and part.scale == SCALE:
        return [f"scaling_factor is {SCALE} beside a codebook, which diffusers writes where nobody chose one"]
    return []


def _about_length(encoder: SequenceEncoderSpec) -> list[str]:
    length = encoder.length
    return [] if length == TOKENS else [f"captions are padded to {length} tokens, diffusers pads them to {TOKENS}"]


def _about_unused(folder: Path) -> list[str]:
    """A sentence about components that are there and have no part in drawing."""
    values = read_object(folder / INDEX)
    there = [name for name in UNUSED if isinstance(values.get(name), list) and any(values[name])]
    return [f"{' and '.join(there)} of the folder: not read, nothing is drawn with them"] if there else []


def _alone(folder: Path) -> Opened:
    family = str(read_object(folder / CONFIG).get("_class_name"))[:60]
    if family in UNETS:
        network = unet_part(folder)
        return Opened(family, network=network, odd=network.odd)
    if family in STAGES:
        first_stage = first_stage_part(folder)
        odd = (*_about_scale(first_stage, family), *first_stage.odd)
        return Opened(family, first_stage=first_stage, odd=odd)
    if family == TINY:
        raise ModelFileError(
            f"{folder}: a tiny decoder, which draws nothing alone; `darkroom sample --decoder` takes it"
        )
    raise ModelFileError(
        f"{folder / CONFIG}: models of class {family!r} are not read{did_you_mean(family, (*UNETS, *STAGES))}"
    )


def _index(folder: Path) -> tuple[str, dict[str, str]]:
    """The pipeline's class, and its components' classes by name; `ModelFileError` unless they are known ones."""
    values = read_object(folder / INDEX)
    said = str(values.get("_class_name"))[:60]
    family = SAME_PARTS.get(said, said)
    if family in LATER:
        raise NotYetError(f"{folder / INDEX}: {family} ({LATER[family]}) is not read yet")
    if family not in PIPELINES:
        raise ModelFileError(
            f"{folder / INDEX}: pipelines of class {family!r} are not read{did_you_mean(family, PIPELINES)}"
        )
    names: dict[str, str] = {}
    for name, fits in PIPELINES[family].items():
        match values.get(name):
            case [str(), str(kind)]:
                names[name] = _known(kind, fits, where=f"{folder / INDEX}, {name}")
            case _:
                raise ModelFileError(f"{folder / INDEX}: damaged, it does not say the class of {name!r}")
    return family, names


def _stage(names: Mapping[str, str]) -> str:
    """The name of the first stage's folder."""
    return next(name for name in ("vqvae", "vae") if name in names)


def _known(kind: str, fits: Sequence[str], *, where: str) -> str:
    if kind not in fits:
        raise ModelFileError(f"{where}: class {kind[:60]!r} does not fit{did_you_mean(kind[:60], fits)}")
    return kind


def _stored_stage(part: Part[AutoencoderSpec], folder: Path) -> StoredModel:
    """A first stage alone; its scale and the side of its pictures are kept in the card."""
    data = {} if part.size is None else {"data": {"size": part.size}}
    odd = (*_about_scale(part, part.family), *part.odd)
    card = {**_card(part.family, folder, odd), "scaling_factor": part.scale, **data}
    return StoredModel("first-stage", part.spec, part.state(), card, odd=odd)


def _card(family: str, folder: Path, odd: Sequence[str]) -> Mapping[str, Any]:
    return {"source": SOURCE, "file": folder.resolve().name, "family": family, "odd": list(odd)}
