"""What training holds on a device, however large the batch: weights, gradients, moments, averages, and who judges."""

import functools
from typing import Final

from torch import nn

from darkroom.autoencoder.adversary import AdversarySpec, PatchDiscriminator
from darkroom.autoencoder.model import Autoencoder, AutoencoderSpec
from darkroom.conditioning.conditioner import ConditionerSpec, Conditioning
from darkroom.core.hollow import hollow, parameters_of
from darkroom.network.unet import UNet, UNetSpec
from darkroom.nn.feature_file import SHIPPED, load_features
from darkroom.nn.pyramids import PlainSpec, ResidualSpec, pyramid
from darkroom.nn.vgg import VGG16Taps
from darkroom.recipes.schema import DenoiserRecipe, FirstStageRecipe
from darkroom.train.first_stage import only_decoder
from darkroom.train.optim import TrainSpec, moments
from darkroom.train.parted import units

FLOAT: Final = 4  # bytes of a float32 weight
CAST: Final = "cast_weights"  # a second copy, in two bytes each, that autocast keeps


def held_by_denoiser(part: DenoiserRecipe, *, trained: int, first_stage: int, parts: int = 1) -> dict[str, int]:
    """Bytes by what they are for; of several parts, a device's shares and what is whole there at a time.

    trained, first_stage: parameters of network and conditioners, and of the first stage, which decodes previews · the
    copy that autocast keeps is there with FSDP only where the backward pass needs it, which does not where it works
    activations out again.
    """
    train = part.train
    assert train is not None
    values = {"weights": 1, "gradients": 1, "averages": _averages(train)}
    if part.distill is not None:
        values |= {"teacher": 1, "follower": 1}
    alone = parts == 1
    # Of parts adamw's, for muon does not work on them.
    kept = _denoiser_moments(part.network, part.conditioners, train=train) if alone else 2 * trained
    held = {name: FLOAT * trained * copies // parts for name, copies in values.items()}
    held["optimizer"] = FLOAT * kept // parts
    if not alone:
        held["whole_at_a_time"] = FLOAT * _whole_at_a_time(part)
    uncast = train.precision == "float32" or (not alone and part.network.recompute)
    return {**held, CAST: 0 if uncast else FLOAT // 2 * trained, "first_stage": FLOAT * first_stage}


def held_by_first_stage(part: FirstStageRecipe, *, whole: int) -> dict[str, int]:
    """Bytes by what they are for. whole: parameters of the first stage, of which a decoder alone may be trained.

    An adversary has gradients and moments of its own, and no average · features: of the network that compares pictures.
    """
    train, only = part.train, part.only is not None
    assert train is not None
    assert isinstance(part.model, AutoencoderSpec)
    judge = _judge(part.loss.adversary, channels=part.model.image_channels)
    moved = _decoder(part.model) if only else whole
    remembered = _first_stage_moments(part.model, train=train, only=only)
    return {
        "weights": FLOAT * (whole + judge),
        "gradients": FLOAT * (moved + judge),
        "optimizer": FLOAT * (remembered + 2 * judge),
        "averages": FLOAT * moved * _averages(train),
        CAST: 0 if train.precision == "float32" else FLOAT // 2 * (moved + judge),
        "features": FLOAT * _features(part.loss.perceptual) if part.loss.perceptual_weight else 0,
    }


def looking_spec(perceptual: str) -> PlainSpec | ResidualSpec | None:
    """Of the network whose features are compared, by its name in a loss; None for VGG16."""
    return load_features(SHIPPED / "small.safetensors").spec if perceptual == "small" else None


def looking(spec: PlainSpec | ResidualSpec | None) -> nn.Module:
    """That network."""
    return (VGG16Taps() if spec is None else pyramid(spec)).requires_grad_(False)


def _averages(train: TrainSpec) -> int:
    """How many averages of the weights are kept."""
    return int(train.ema > 0) + (0 if train.averages is None else len(train.averages.widths))


def _whole_at_a_time(part: DenoiserRecipe) -> int:
    """Values of what no unit owns and of the largest unit, with gradients; the next unit's are fetched meanwhile."""
    with hollow():
        modules = (UNet(part.network), Conditioning(part.conditioners))
    sizes = [parameters_of(unit) for module in modules for unit in units(module)]
    rest = sum(map(parameters_of, modules)) - sum(sizes)
    return 2 * rest + 3 * max(sizes)


@functools.cache
def _denoiser_moments(network: UNetSpec, conditioners: tuple[ConditionerSpec, ...], *, train: TrainSpec) -> int:
    with hollow():
        return moments(UNet(network), train) + moments(Conditioning(conditioners), train)


@functools.cache
def _first_stage_moments(model: AutoencoderSpec, *, train: TrainSpec, only: bool) -> int:
    with hollow():
        return moments(only_decoder(Autoencoder(model)) if only else Autoencoder(model), train)


@functools.cache
def _decoder(model: AutoencoderSpec) -> int:
    with hollow():
        return parameters_of(only_decoder(Autoencoder(model)))


@functools.cache
def _judge(adversary: AdversarySpec | None, *, channels: int) -> int:
    if adversary is None:
        return 0
    with hollow():
        return parameters_of(PatchDiscriminator(adversary, image_channels=channels))


@functools.cache
def _features(perceptual: str) -> int:
    spec = looking_spec(perceptual)
    with hollow():
        return parameters_of(looking(spec))
