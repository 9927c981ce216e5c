"""Our models as folders that diffusers loads and runs; what it has no words for is refused by name, or said."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import torch
from torch import Tensor

from darkroom.autoencoder.bottleneck import VQSpec
from darkroom.autoencoder.model import AutoencoderSpec
from darkroom.checkpoint.clip_text import clip_config, write_clip_tokenizer
from darkroom.checkpoint.diffusers import (
    CAPTION,
    INDEX,
    LABEL,
    PIPELINES,
    SCHEDULER,
    SOURCE,
    STABLE,
    SUPER_RESOLUTION,
    TEXT,
    UNCONDITIONAL,
    UNUSED,
)
from darkroom.checkpoint.diffusers_config import Plain, first_stage_config, unet_config
from darkroom.checkpoint.diffusers_files import ENCODERS, NETWORK, write_object
from darkroom.checkpoint.diffusers_keys import bert_table, class_table, clip_table, first_stage_table, unet_table
from darkroom.checkpoint.diffusers_parts import CONFIG
from darkroom.checkpoint.diffusers_schedule import scheduler_config
from darkroom.checkpoint.diffusers_text import bert_config, write_tokenizer
from darkroom.checkpoint.fold import with_scale_one
from darkroom.checkpoint.keymap import Table, joined, to_original
from darkroom.checkpoint.published import own_facts
from darkroom.checkpoint.store import FIRST_STAGE, StoredModel, apart, build
from darkroom.conditioning.label import ClassSpec
from darkroom.conditioning.spatial import LowResSpec
from darkroom.conditioning.text import TextSpec, Tokenizer
from darkroom.core.errors import ModelFileError
from darkroom.core.names import NAMELESS
from darkroom.core.record import atomic_folder
from darkroom.core.writing import write_safetensors
from darkroom.diffusion.model import ModelSpec
from darkroom.process.objective import ObjectiveSpec

VERSION: Final = "0.42.1"  # of diffusers, whose format is written
NOMINAL: Final = 256  # side of pictures, where nothing says it
FACTOR: Final = 8  # that LDMTextToImagePipeline takes every first stage for
_ABOUT_FILES: Final = {"source", "file", "family", "odd"}  # of a card: nothing is lost with these


@final
@dataclass(frozen=True, eq=False)
class _Component:
    """A folder with a configuration, and weights where there is a table of them; ours begin with `prefix`."""

    name: str
    library: str
    config: Plain
    table: Table | None = None
    prefix: str = ""
    file: str = NETWORK

    @property
    def family(self) -> str:
        return self.config["_class_name"] if "_class_name" in self.config else self.config["architectures"][0]


def save_folder(folder: Path, stored: StoredModel) -> tuple[str, ...]:
    """Write a pipeline, or a first stage alone, and answer sentences about what it does not hold.

    Weights are float32 `.safetensors`. The folder appears whole or not at all. `ModelFileError` names what diffusers
    has no words for; `InputError` for a folder that is there already and not empty, or cannot be written.
    """
    build(stored)
    family, sayable, said = _sayable(stored)
    components = _components(sayable, family)
    with atomic_folder(folder) as place:
        if family in (TEXT, STABLE):
            assert stored.tokenizer is not None
            (place / "tokenizer").mkdir()
            (write_tokenizer if family == TEXT else write_clip_tokenizer)(place / "tokenizer", stored.tokenizer)
        for each in components:
            _write(place / each.name, each, state=sayable.state)
        if family is not None:
            write_object(place / INDEX, _index(family, components))
    return (*said, *_lost(stored))


def _sayable(stored: StoredModel) -> tuple[str | None, StoredModel, list[str]]:
    """The pipeline's class (None: a first stage alone), and the model with a scale of latents that it can say."""
    if not isinstance(stored.spec, ModelSpec):
        return None, stored, _about_stage(stored)
    family = _family(stored)
    scale = stored.state["scale"]
    if bool(torch.isnan(scale).any()):
        raise ModelFileError("the scale of latents is not known, so diffusers could not be told it")
    said: list[str] = []
    if scale.ndim or (family == SUPER_RESOLUTION and float(scale) != 1.0):
        stored = with_scale_one(stored)
        reason = "one for each channel" if scale.ndim else f"for which {family} has no word"
        said.append(
            f"the scale of latents, {reason}, is made part of the first stage's last and first convolutions: numbers "
            "agree up to rounding"
        )
    if isinstance(stored.spec, ModelSpec) and "label" in stored.spec.fields:
        said.append(
            f"{family} gives no class to its U-Net: diffusers loads it, and its U-Net is called with class_labels"
        )
    factor = stored.spec.first_stage.factor if isinstance(stored.spec, ModelSpec) else FACTOR
    if family == TEXT and factor != FACTOR:
        said.append(
            f"{TEXT} takes every first stage for one of f = {FACTOR}: ask it for sides {FACTOR} / {factor} times those "
            "wanted"
        )
    return family, stored, said


def _family(stored: StoredModel) -> str:
    """The pipeline that draws as this model does; `ModelFileError` when there is none."""
    spec = stored.spec
    assert isinstance(spec, ModelSpec)
    if not isinstance(spec.first_stage, AutoencoderSpec):
        raise ModelFileError("diffusers has no latent diffusion pipeline for a model on pixels")
    if spec.regresses:
        raise ModelFileError("diffusers has no pipeline for a model that answers in one step from pure noise")
    match spec.conditioners:
        case () | (ClassSpec(port="vector"),):
            return UNCONDITIONAL
        case (TextSpec(encoder=encoder),):
            family = STABLE if encoder.family == "clip" else TEXT
            if stored.tokenizer is None:
                raise ModelFileError(f"diffusers' {family} needs a tokenizer, and this model has none")
            return family
        case (LowResSpec() as low,):
            if (low.patch, low.enlarge, low.guesses) != (1, 1, 0) or low.channels != spec.first_stage.latent_channels:
                raise ModelFileError(
                    f"diffusers' {SUPER_RESOLUTION} takes a small picture of the size and channels of latents, and "
                    "guesses nothing from it; this model takes it otherwise"
                )
            return SUPER_RESOLUTION
        case _:
            raise ModelFileError(f"diffusers has no latent diffusion pipeline steered by {' and '.join(spec.fields)}")


def _components(stored: StoredModel, family: str | None) -> list[_Component]:
    """`ModelFileError` names what a configuration of diffusers has no words for."""
    spec = stored.spec
    if not isinstance(spec, ModelSpec):
        config = first_stage_config(spec, size=_side(stored), scale=_factor(stored))
        return [_Component("", "diffusers", config, first_stage_table(spec))]
    assert family is not None
    assert isinstance(spec.first_stage, AutoencoderSpec)
    held = float(stored.state["scale"])
    scale = spec.scale if spec.scale is not None and torch.tensor(spec.scale).item() == held else held
    stage = first_stage_config(spec.first_stage, size=spec.image_size, scale=scale)
    unet = unet_config(spec.network, size=spec.image_size // spec.first_stage.factor)
    named = "vae" if family == STABLE else "vqvae"
    for name, config, what in (("unet", unet, "network"), (named, stage, "first stage")):
        fits, came = PIPELINES[family][name], config["_class_name"]
        if came not in fits:
            raise ModelFileError(f"diffusers' {family} has a {fits[0]}, this {what} could only be a {came}")
    labels = [each for each in spec.conditioners if isinstance(each, ClassSpec)]
    classes = [class_table(each).under(ours=LABEL) for each in labels]
    if classes:
        unet |= {"num_class_embeds": classes[0].entries[0].shape[0]}
    found = [
        _Component(named, "diffusers", stage, first_stage_table(spec.first_stage), FIRST_STAGE),
        _Component("unet", "diffusers", unet, joined([unet_table(spec.network).under(ours="network."), *classes])),
        _Component("scheduler", "diffusers", scheduler_config(spec.schedule, spec.prediction)),
    ]
    for each in spec.conditioners:
        if isinstance(each, TextSpec) and family == STABLE:
            config, table = clip_config(each.encoder), clip_table(each.encoder)
            found.append(_Component("text_encoder", "transformers", config, table, CAPTION, ENCODERS[0]))
        elif isinstance(each, TextSpec):
            config, table = bert_config(each.encoder), bert_table(each.encoder)
            found.append(_Component("bert", "latent_diffusion", config, table, CAPTION, ENCODERS[0]))
    return found


def _write(folder: Path, component: _Component, *, state: Mapping[str, Tensor]) -> None:
    folder.mkdir(exist_ok=True)
    version = {"_diffusers_version": VERSION} if component.library == "diffusers" else {}
    name = SCHEDULER if component.table is None else CONFIG
    write_object(folder / name, {**component.config, **version})
    if component.table is not None:
        tensors = to_original(component.table.under(ours=component.prefix), state)
        plain = apart({name: tensor.float() for name, tensor in tensors.items()})
        write_safetensors(folder / f"{component.file}.safetensors", plain, metadata={"format": "pt"})


def _index(family: str, components: list[_Component]) -> Plain:
    named: Plain = {each.name: [each.library, each.family] for each in components}
    if family == TEXT:
        named["tokenizer"] = ["transformers", "BertTokenizer"]
    if family == STABLE:
        named["tokenizer"] = ["transformers", "CLIPTokenizer"]
        named |= {key: [None, None] for key in UNUSED} | {"requires_safety_checker": False}
    return {"_class_name": family, "_diffusers_version": VERSION, **named}


def _side(stored: StoredModel) -> int:
    """Of the pictures that a first stage learnt from."""
    match stored.card:
        case {"data": {"size": int(size)}} if size > 0:
            return size
        case _:
            return NOMINAL


def _factor(stored: StoredModel) -> float:
    """On the latents of a first stage alone: what its folder said, or 1 / their deviation, or 1."""
    match stored.card:
        case {"scaling_factor": float(scale)} if 0 < scale < float("inf"):
            return scale
        case _:
            return 1.0 if stored.latents is None else 1 / stored.latents.whole


def _about_stage(stored: StoredModel) -> list[str]:
    if stored.latents is None and "scaling_factor" not in stored.card:
        return ["nobody measured how its latents are spread: scaling_factor is 1"]
    return []


def _lost(stored: StoredModel) -> list[str]:
    """What a folder of diffusers has no place for."""
    spec = stored.spec
    told = (
        [] if stored.card.get("source") == SOURCE else [name for name in own_facts(stored) if name not in _ABOUT_FILES]
    )
    lost = {
        f"its card ({', '.join(told[:6])})": bool(told),
        "names of classes and categories": stored.names != NAMELESS,
        "how its latents are spread": stored.latents is not None,
    }
    stage = spec.first_stage if isinstance(spec, ModelSpec) else spec
    assert isinstance(stage, AutoencoderSpec)
    loss = isinstance(stage.bottleneck, VQSpec) and stage.bottleneck != VQSpec(codes=stage.bottleneck.codes)
    lost["what its first stage's training used"] = stage.dropout > 0 or loss
    if isinstance(spec, ModelSpec):
        lost["the objective it was trained with"] = spec.objective != ObjectiveSpec()
        texts = [each for each in spec.conditioners if isinstance(each, TextSpec)]
        lost["which share of captions training dropped"] = any(each.drop != 0.1 for each in texts)
        nulls = [each.null for each in spec.conditioners if isinstance(each, ClassSpec)]
        lost["which of its classes means none"] = any(each is not None for each in nulls)
        lost["the ids of its empty caption, for the tokenizer gives others"] = bool(texts) and _other_empty(stored)
    return [f"left out: {what}" for what, so in lost.items() if so]


def _other_empty(stored: StoredModel) -> bool:
    ids = stored.state[f"{CAPTION}empty_ids"]
    tokenizer = Tokenizer.from_json(stored.tokenizer or "", length=len(ids))
    return not torch.equal(tokenizer([""])[0], ids.cpu())
