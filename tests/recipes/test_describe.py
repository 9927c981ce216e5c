"""What a recipe would cost is known exactly and without allocating anything."""

import json
import resource

import pytest
import torch

from darkroom.autoencoder.adversary import PatchDiscriminator
from darkroom.autoencoder.model import build_first_stage
from darkroom.core.hollow import hollow
from darkroom.diffusion.model import LatentDiffusion, count_parameters
from darkroom.nn.vgg import VGG16Taps
from darkroom.recipes.describe import count, describe, describe_model
from darkroom.recipes.read import recipe


@pytest.fixture(scope="module")
def largest() -> dict[str, object]:
    describe(recipe("kl-f32"))  # imports of torch that the first count needs
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = describe(recipe("txt2img-1p4b"))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB; its weights are 6 GB
    return found


def test_it_is_json_and_the_largest_model_is_not_allocated(largest: dict[str, object]) -> None:
    assert json.loads(json.dumps(largest)) == largest
    assert largest["parameters"] == {
        "first_stage": 83_653_863,
        "network": 872_300_484,
        "conditioner": 581_994_042,
    }
    assert (largest["latent"], largest["factor"], largest["size_multiple"]) == ([4, 32, 32], 8, 64)
    assert largest["fields"] == ["caption"]


def test_memory_is_a_multiple_of_the_weights(largest: dict[str, object]) -> None:
    first, second = 83_653_863, 872_300_484 + 581_994_042
    adversary = recipe("txt2img-1p4b").first_stage.loss.adversary
    assert adversary is not None
    with hollow():
        judge, features = map(_values, (PatchDiscriminator(adversary, image_channels=3), VGG16Taps()))
    assert largest["memory"] == {
        "weights": 4 * (first + second),
        "train_first_stage": 4 * (4 * (first + judge) + features),  # no average of the weights
        "train_denoiser": 4 * (first + 5 * second),
    }
    stored = describe(recipe("txt2img-1p4b", overrides=["denoiser.train.averages.every=1000"]))
    assert stored["memory"]["train_denoiser"] == 4 * (first + 7 * second)  # two averages to choose from afterwards


def _values(module: torch.nn.Module) -> int:
    return sum(each.numel() for each in module.parameters())


@pytest.mark.parametrize("name", ["tiny-text", "tiny-class", "tiny-uncond", "tiny-vq", "bsr_sr"])
def test_both_counters_agree(name: str) -> None:
    spec = recipe(name).model_spec()
    assert spec is not None
    assert count(recipe(name)) == count_parameters(spec)


def test_operations_of_a_first_stage_are_those_of_its_layers() -> None:
    read = recipe("tiny-vq")
    model = build_first_stage(read.first_stage.model)
    done: list[int] = []

    def note(layer: torch.nn.Module, _: object, output: torch.Tensor) -> None:
        assert isinstance(layer, torch.nn.Conv2d)
        done.append(output[0, 0].numel() * layer.weight.numel())

    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(note)
    with torch.no_grad():
        model.moments(torch.zeros(1, 3, 32, 32))
        encode = sum(done)
        model.decode(torch.zeros(1, 4, 8, 8))
    flops = describe(read)["flops"]
    assert (flops["encode"], flops["decode"]) == (encode, sum(done) - encode)


def test_pixels_need_no_first_stage() -> None:
    found = describe(recipe("ldm-1", overrides=["data.size=64"]))
    assert found["parameters"]["first_stage"] == 0
    assert found["flops"]["encode"] == found["flops"]["decode"] == 0
    assert found["flops"]["network"] > 1e10
    assert found["latent"] == [3, 64, 64]


def test_a_first_stage_alone_has_no_denoiser() -> None:
    found = describe(recipe("vq-f4"))
    assert found["parameters"]["network"] == found["flops"]["network"] == 0
    assert found["fields"] == []
    assert found["memory"]["train_denoiser"] == 0
    assert (found["schedule"], found["sampling"], found["size_multiple"]) == (None, None, 4)


@pytest.mark.parametrize("name", ["tiny-text", "tiny-class", "tiny-uncond", "tiny-vq"])
def test_miniatures_are_small_and_can_be_built(name: str) -> None:
    read = recipe(name)
    spec = read.model_spec()
    assert spec is not None
    counted = count(read)
    assert 0.3e6 < counted["first_stage"] < 0.6e6
    assert 1e6 < counted["network"] < 2e6
    model = LatentDiffusion(spec)
    assert sum(p.numel() for p in model.parameters()) == sum(counted.values())


def test_a_model_tells_what_its_recipe_tells() -> None:
    made = recipe("tiny-class")
    spec = made.model_spec()
    assert spec is not None
    whole, model = describe(made), describe_model(spec)
    assert model["parameters"] == whole["parameters"]
    assert model["flops"] == whole["flops"]
    assert model["memory"]["weights"] == whole["memory"]["weights"]
