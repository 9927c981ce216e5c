"""What a picture costs in training, of memory and work: counted on tensors without memory, nothing is tried."""

import functools
import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from darkroom.autoencoder.adversary import PatchDiscriminator
from darkroom.autoencoder.losses import FirstStageLossSpec
from darkroom.autoencoder.model import Autoencoder, AutoencoderSpec
from darkroom.conditioning.conditioner import Conditioning
from darkroom.conditioning.spatial import MapSpec, MaskedSpec
from darkroom.core.hollow import hollow
from darkroom.diffusion.model import ModelSpec
from darkroom.network.unet import UNet
from darkroom.nn.taps import as_rgb, tap_distance
from darkroom.recipes.describe import latent_shape
from darkroom.recipes.held import looking, looking_spec
from darkroom.recipes.pace import like
from darkroom.recipes.schema import DenoiserRecipe, Recipe
from darkroom.train.first_stage import only_decoder

PASSES: Final = 3  # as many operations as the forward pass: it, and two products for each in the backward pass
AGAIN: Final = 4  # where activations are worked out again
LOOKS: Final = 3  # at features: of both pictures, and back to the one that is made
JUDGED: Final = 7  # a made picture forwards, back to it and back to the judge's weights; a real one without the second


@final
@dataclass(frozen=True)
class Step:
    """What a picture costs in training: bytes kept for the backward pass (float32); multiply-adds of the model's
    forward pass (flops), and of all that is done (work).
    """

    kept: int
    flops: int
    work: int


def step_of(recipe: Recipe) -> Step:
    """A picture's cost in network and conditioners."""
    model, part = recipe.model_spec(), recipe.denoiser
    assert model is not None
    assert part is not None
    kept, flops = _denoised(model, latent_shape(recipe))
    return Step(kept, flops, flops * ((AGAIN if part.network.recompute else PASSES) + _asked_too(part)))


def first_stage_step(recipe: Recipe) -> Step:
    """A picture's cost in a first stage, its features and its adversary, which is taken to have begun."""
    part = recipe.first_stage
    assert isinstance(part.model, AutoencoderSpec)
    return _reconstructed(part.model, part.loss, decoder_alone=part.only is not None, size=recipe.data.size)


def _asked_too(part: DenoiserRecipe) -> int:
    """Forward passes of those that a student learns from: its average, and its teacher, twice where it is guided."""
    if part.distill is None:
        return 0
    return 2 if part.distill.guidance == 1 else 3


@functools.lru_cache(maxsize=8)
def _denoised(model: ModelSpec, latent: tuple[int, int, int]) -> tuple[int, int]:
    """Bytes kept and multiply-adds of a forward pass."""
    with hollow(), _Alive() as alive:
        network, conditioning = UNet(model.network).train(), Conditioning(model.conditioners).train()
        fields = blank(model, latent=latent)
        x, t = torch.empty(1, *latent), torch.zeros(1, dtype=torch.long)
        return _counted(lambda: network(x, t, conditioning(fields)), alive)


@functools.lru_cache(maxsize=8)
def _reconstructed(model: AutoencoderSpec, loss: FirstStageLossSpec, *, decoder_alone: bool, size: int) -> Step:
    """Features and adversary are looked at one after the other, so that only the dearer one's activations count.

    Choosing codes is left out: its distances are a matter of the codebook, and none is kept.
    """
    spec = looking_spec(loss.perceptual)
    with hollow(), _Alive() as alive:
        images = torch.empty(1, model.image_channels, size, size)
        made = torch.empty_like(images, requires_grad=True)
        trained = Autoencoder(model).train()
        if decoder_alone:
            only_decoder(trained)
        kept, flops = _counted(lambda: trained.decode_raw(trained.moments(images)[0]), alive)
        _, encoding = _counted(lambda: trained.moments(images), alive)
        work, beside = PASSES * flops - 2 * encoding * decoder_alone, [0]
        if loss.perceptual_weight:
            network = looking(spec)
            bytes_, each = _counted(lambda: _compared(network, images, made), alive)
            beside, work = [*beside, bytes_], work + LOOKS * each // 2
        if loss.adversary is not None:
            judge = PatchDiscriminator(loss.adversary, image_channels=model.image_channels)
            bytes_, each = _counted(lambda: (judge(made), judge(images)), alive)
            beside, work = [*beside, bytes_], work + JUDGED * each // 2
    return Step(kept + max(beside), flops, work)


def _compared(network: nn.Module, images: Tensor, made: Tensor) -> Tensor:
    with torch.no_grad():
        wanted = network(as_rgb(images))
    found = network(as_rgb(made))
    return tap_distance(found, wanted, heads=[torch.empty(each.shape[1]) for each in found], eps=0.1)


def _counted(work: Callable[[], object], alive: "_Alive") -> tuple[int, int]:
    """Bytes that the answer of some work keeps alive, and half of what torch counts: to it a multiplication and an
    addition are two.
    """
    before = alive.bytes()
    with FlopCounterMode(display=False) as counter:
        answer = work()
    kept = alive.bytes() - before
    del answer
    return kept, counter.get_total_flops() // 2


def blank(model: ModelSpec, *, latent: tuple[int, int, int], batch: int = 1) -> dict[str, Tensor]:
    """What conditioners read, prepared, all of it zeros. latent: (c, h, w)."""
    side = model.image_size
    fields: dict[str, Tensor] = {}
    for each in model.conditioners:
        match each:
            case MapSpec():
                fields[each.field] = torch.zeros(batch, each.classes, side, side)
            case MaskedSpec():
                fields[each.field] = torch.zeros(batch, each.channels, *latent[1:])
            case _:
                fields[each.field] = like(each, model, batch=batch, latent=latent)
    return fields


@final
class _Alive(TorchDispatchMode):
    """Knows the memory of every tensor made inside that something still holds."""

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:  # ids are looked at, and here all are 0
            return 0
        answer = func(*args, **(kwargs or {}))
        for each in answer if isinstance(answer, (tuple, list)) else (answer,):
            if isinstance(each, Tensor):
                storage = each.untyped_storage()
                self._made[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        return answer

    def bytes(self) -> int:
        """Of all that is alive."""
        gc.collect()
        return sum(size for reference, size in self._made.values() if not reference.expired())
