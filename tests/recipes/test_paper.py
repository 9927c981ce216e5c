"""The paper's recipes have the sizes that the released models have, to 0.01 million parameters."""

import pytest
import torch

from darkroom.autoencoder.model import build_first_stage
from darkroom.diffusion.model import count_parameters
from darkroom.recipes.read import groups, recipe

FIRST_STAGES = {  # million parameters
    "kl-f4": 55.31,
    "kl-f8": 83.65,
    "kl-f16": 69.61,
    "kl-f32": 103.88,
    "vq-f4": 55.32,
    "vq-f4-noattn": 53.22,
    "vq-f8": 67.72,
    "vq-f8-n256": 67.65,
    "vq-f16": 69.59,
}
MODELS = {  # latent (c, h, w), first stage, million parameters of U-Net and conditioner
    "celeba256": ((3, 64, 64), "vq-f4", 274.06, 0),
    "ffhq256": ((3, 64, 64), "vq-f4", 274.06, 0),
    "lsun_beds256": ((3, 64, 64), "vq-f4", 274.06, 0),
    "lsun_churches256": ((4, 32, 32), "kl-f8", 294.97, 0),
    "cin256": ((4, 32, 32), "vq-f8", 394.98, 1000 * 512 / 1e6),
    "cin256-v2": ((3, 64, 64), "vq-f4", 400.92, 1001 * 512 / 1e6),
    "text2img256": ((3, 64, 64), "vq-f4", 403.62, 186.15),
    "txt2img-1p4b": ((4, 32, 32), "kl-f8", 872.30, 581.99),
    "layout2img-openimages256": ((3, 64, 64), "vq-f4", 246.28, 58.86),
    "semantic_synthesis256": ((3, 64, 64), "vq-f4", 215.23, 182 * 3 / 1e6),
    "semantic_synthesis512": ((3, 128, 128), "vq-f4", 215.23, 182 * 3 / 1e6),
    "bsr_sr": ((3, 64, 64), "vq-f4", 113.62, 0),
    "inpainting_big": ((3, 64, 64), "vq-f4-noattn", 387.25, 0),
    "rdm768": ((16, 48, 48), "kl-f16", 1335.48, 0),
}
LADDER = {  # latent (c, h, w), million parameters of the U-Net (ldm-4: Tab. 13 prints 391, Tab. 3 prints 400)
    "ldm-1": ((3, 256, 256), 396),
    "ldm-2": ((2, 128, 128), 391),
    "ldm-4": ((3, 64, 64), 400),
    "ldm-8": ((4, 32, 32), 395),
    "ldm-16": ((8, 16, 16), 395),
    "ldm-32": ((32, 8, 8), 395),
}
ONE_HEAD = ("cin256", "cin256-v2", "text2img256", "layout2img-openimages256", *LADDER)


def test_every_recipe_of_the_paper_is_in_the_tables() -> None:
    found = groups()
    assert set(found["first stages of the paper"]) == set(FIRST_STAGES)
    assert set(found["latent models of the paper"]) == set(MODELS)
    assert set(found["compression ladder"]) == set(LADDER)


@pytest.mark.parametrize("name", FIRST_STAGES)
def test_first_stage(name: str) -> None:
    read = recipe(name)
    with torch.device("meta"):
        built = build_first_stage(read.first_stage.model)
    assert read.denoiser is None
    assert sum(p.numel() for p in built.parameters()) / 1e6 == pytest.approx(FIRST_STAGES[name], abs=0.01)
    assert f"f{read.first_stage.model.factor}" in name.split("-")


@pytest.mark.parametrize("name", MODELS)
def test_latent_model(name: str) -> None:
    latent, first_stage, network, conditioner = MODELS[name]
    spec = recipe(name).model_spec()
    assert spec is not None
    counted = {part: count / 1e6 for part, count in count_parameters(spec).items()}
    expected = {"first_stage": FIRST_STAGES[first_stage], "network": network, "conditioner": conditioner}
    assert counted == pytest.approx(expected, abs=0.01)
    assert spec.first_stage == recipe(first_stage).first_stage.model
    side = spec.image_size // spec.first_stage.factor
    assert (spec.first_stage.latent_channels, side, side) == latent


@pytest.mark.parametrize("name", LADDER)
def test_rung_of_the_ladder(name: str) -> None:
    latent, network = LADDER[name]
    spec = recipe(name).model_spec()
    assert spec is not None
    assert count_parameters(spec)["network"] / 1e6 == pytest.approx(network, abs=1)
    side = spec.image_size // spec.first_stage.factor
    assert (spec.first_stage.latent_channels, side, side) == latent
    assert spec.first_stage.factor == int(name.removeprefix("ldm-"))


@pytest.mark.parametrize("name", ONE_HEAD)
def test_models_that_trained_with_one_head(name: str) -> None:
    spec = recipe(name).model_spec()
    assert spec is not None
    assert {spec.network.heads_at(width) for width in (128, 256, 512)} == {1}


def test_learning_rates_are_the_resulting_numbers() -> None:
    rates = {name: recipe(name).denoiser for name in ("celeba256", "cin256", "txt2img-1p4b", "bsr_sr")}
    found = {name: part.train.learning_rate for name, part in rates.items() if part and part.train}
    assert found == {"celeba256": 9.6e-5, "cin256": 6.4e-5, "txt2img-1p4b": 1e-4, "bsr_sr": 6.4e-5}
