"""Small models of every kind of steering, stored as files once a session: fixtures for the conftests that need them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from darkroom.autoencoder.model import Autoencoder, AutoencoderSpec, PixelsSpec
from darkroom.checkpoint.store import StoredModel, save_model
from darkroom.conditioning.boxes import BoxesSpec
from darkroom.conditioning.conditioner import ConditionerSpec
from darkroom.conditioning.embedding import EmbeddingSpec
from darkroom.conditioning.label import ClassSpec
from darkroom.conditioning.layout import LayoutSpec, LayoutTokensSpec
from darkroom.conditioning.spatial import LowResSpec, MapSpec, MaskedSpec
from darkroom.conditioning.text import SequenceEncoderSpec, TextConditioner, TextSpec, Tokenizer
from darkroom.core.names import Names
from darkroom.diffusion.model import LatentDiffusion, ModelSpec
from darkroom.network.unet import UNetSpec
from darkroom.process.schedule import CosineSpec
from darkroom.tasks.load import load
from darkroom.tasks.model import Model

FIRST = AutoencoderSpec(
    channels=8, multipliers=(1, 1), blocks=1, latent_channels=3, norm_groups=4, middle_attention=False
)
CLASSES = ("circle", "square", "star")
CAPTIONS = ("a red circle", "a blue square", "a green star left of a red square")
CARD = {"name": "small", "sample": {"solver": "ddim", "steps": 3, "guidance": 2.0}}


def _text(tokenizer: Tokenizer) -> TextSpec:
    return TextSpec(
        encoder=SequenceEncoderSpec(
            vocabulary=tokenizer.vocabulary, length=tokenizer.length, width=8, depth=1, heads=2, head_width=4
        )
    )


def _layout() -> LayoutSpec:
    scheme = LayoutTokensSpec(categories=3, slots=2, grid=8, crop=False)
    encoder = SequenceEncoderSpec(vocabulary=65, length=6, width=8, depth=1, heads=2, head_width=4)
    return LayoutSpec(encoder=encoder, scheme=scheme, drop=0.1)


def _specs(tokenizer: Tokenizer) -> dict[str, ModelSpec]:
    label = ClassSpec(classes=3, width=8, null=3)
    text = _text(tokenizer)

    def spec(*conditioners: ConditionerSpec, planes: int = 0, **options: Any) -> ModelSpec:
        tokens = any(each.port == "tokens" for each in conditioners)
        first = options.pop("first_stage", FIRST)
        network = UNetSpec(
            in_channels=3 + planes,
            out_channels=3,
            channels=8,
            multipliers=(1, 2),
            blocks=1,
            attention=(1,),
            norm_groups=4,
            transformer_depth=int(tokens),
            context_width=8 if tokens else None,
        )
        return ModelSpec(image_size=16, first_stage=first, network=network, conditioners=conditioners, **options)

    return {
        "plain": spec(),
        "pixels": spec(first_stage=PixelsSpec(), scale=1.0, schedule=CosineSpec(steps=20), prediction="v"),
        "class": spec(label),
        "unguided": spec(label.model_copy(update={"null": None, "drop": 0.0})),
        "vector": spec(ClassSpec(classes=3, width=32, null=3, port="vector")),
        "text": spec(text),
        "both": spec(text, label),
        "map": spec(MapSpec(classes=4, channels=2, halvings=1), planes=2),
        "low-res": spec(LowResSpec(channels=3), planes=3),
        "layout": spec(_layout()),
        "boxes": spec(BoxesSpec(categories=3, channels=2, drop=0.1), planes=2),
        "inpaint": spec(MaskedSpec(channels=4, shrink="any"), planes=4),
        "boxes-map": spec(
            BoxesSpec(categories=3, channels=2, drop=0.1), MapSpec(classes=4, channels=2, halvings=1), planes=4
        ),
        "embedding": spec(EmbeddingSpec(width=8)),
        "text-map": spec(text, MapSpec(classes=4, channels=2, halvings=0, patch=2, drop=0.1), planes=2),
    }


@pytest.fixture(scope="session")
def model_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A file of ours for each kind; weights drawn, nothing trained, nothing left at zero."""
    folder = tmp_path_factory.mktemp("models")
    tokenizer = Tokenizer.train(CAPTIONS, vocabulary=60, length=10)
    files: dict[str, Path] = {}
    for name, spec in _specs(tokenizer).items():
        torch.manual_seed(7)
        model = LatentDiffusion(spec)
        for parameter in model.network.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.1)
        for conditioner in model.conditioning.by_field.values():
            if isinstance(conditioner, TextConditioner):
                conditioner.set_empty(tokenizer([""])[0].tolist())
        if spec.scale is None:
            model.scale.fill_(0.5)
        captioned = "caption" in spec.fields
        stored = StoredModel(
            "model",
            spec,
            model.state_dict(),
            CARD,
            Names(
                classes=CLASSES if "label" in spec.fields else (),
                categories=CLASSES if "objects" in spec.fields else (),
            ),
            tokenizer.to_json() if captioned else None,
        )
        files[name] = save_model(folder / f"{name}.safetensors", stored)
    torch.manual_seed(7)
    alone = StoredModel("first-stage", FIRST, Autoencoder(FIRST).state_dict())
    files["first-stage"] = save_model(folder / "first-stage.safetensors", alone)
    return files


@pytest.fixture(scope="session")
def small(model_files: dict[str, Path]) -> Callable[[str], Model]:
    """The model of that kind, loaded once."""
    loaded: dict[str, Model] = {}

    def get(name: str) -> Model:
        if name not in loaded:
            loaded[name] = load(model_files[name], device="cpu")
        return loaded[name]

    return get
