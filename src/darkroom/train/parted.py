"""For a denoiser that does not fit one device: ranks hold its weights in parts, by PyTorch's fully_shard (FSDP2).

Each block of the network and each layer of an encoder is put together on every rank when its turn comes, forwards and
backwards, and freed after it. Gradients, averages and the optimiser's moments stay in parts, as the weights do.
"""

import contextlib
import copy
from collections.abc import Iterator, Sequence
from typing import Any, Final, final

import torch
import torch.distributed as dist
from einops import rearrange
from torch import Tensor, nn

from darkroom.core.compute import Compute
from darkroom.core.parallel import is_first, whole, world_size
from darkroom.diffusion.model import LatentDiffusion
from darkroom.network.blocks import Block
from darkroom.nn.resample import Downsample, Upsample
from darkroom.nn.residual import ResidualBlock
from darkroom.nn.transformer import EncoderLayer
from darkroom.train.optim import TrainSpec
from darkroom.train.ranks import Doing

UNITS: Final = (Block, ResidualBlock, Downsample, Upsample, EncoderLayer)


@final
class Parted:
    """A twin of a model that trains on weights in parts; all ranks call each method together.

    trained: the twin · doing: what its work is done in (see `Ranks`). The model that was given is for looking and
    writing: it has no trained weights but while they are shown, and then on the first rank alone.
    """

    def __init__(self, model: LatentDiffusion, *, compute: Compute) -> None:
        self._compute, self._shown = compute, model.denoising_parameters
        for parameter in self._shown:
            parameter.data = parameter.data.contiguous()  # fully_shard takes no other
            dist.broadcast(parameter.data, src=0)  # all ranks begin with the weights of the first
        self.trained = _twin(model)
        self.doing = _sharded(self.trained, device=compute.device)
        model.eval()
        self._let_go()

    @contextlib.contextmanager
    def showing(self, values: Sequence[Tensor] | None = None) -> Iterator[None]:
        """Within the block the first rank's model holds these weights, whole (None: those that train)."""
        self.show(values)
        try:
            yield
        finally:
            self._let_go()

    @torch.no_grad()
    def show(self, values: Sequence[Tensor] | None = None) -> None:
        """As `showing`, for good."""
        for parameter, value in zip(self._shown, values or self.trained.denoising_parameters, strict=True):
            found = whole(value)  # on every rank for a moment
            if is_first():
                parameter.data = self._compute.place(found)

    def _let_go(self) -> None:
        for parameter in self._shown:
            parameter.data = parameter.data.new_empty(0)


def shared_out(model: LatentDiffusion, *, train: TrainSpec, compute: Compute) -> Parted | None:
    """The model in parts, where the spec asks for that and there are several ranks."""
    return Parted(model, compute=compute) if train.strategy == "fsdp" and world_size() > 1 else None


def units(module: nn.Module) -> Iterator[nn.Module]:
    """The submodules that are put together one at a time: the outermost of `UNITS`."""
    for child in module.children():
        if isinstance(child, UNITS):
            yield child
        else:
            yield from units(child)


def _twin(model: LatentDiffusion) -> LatentDiffusion:
    """The same modules again, around the same tensors."""
    shared = (model.first_stage, *model.parameters(), *model.buffers())
    return copy.deepcopy(model, {id(each): each for each in shared})


def _sharded(model: LatentDiffusion, *, device: torch.device) -> Doing:
    """Cut the trained weights into parts; answers what puts together those outside of units while it works."""
    from torch.distributed.device_mesh import init_device_mesh  # noqa: PLC0415  (slow imports, for this alone)
    from torch.distributed.fsdp import fully_shard  # noqa: PLC0415

    mesh = init_device_mesh(device.type, (world_size(),))
    for unit in [*units(model.network), *units(model.conditioning)]:
        fully_shard(unit, mesh=mesh)
        unit.register_forward_pre_hook(_in_channels_last)
        unit.register_forward_hook(_forget_casts)
    doing = Doing(model)
    fully_shard(doing, mesh=mesh, ignored_params=set(model.first_stage.parameters()))
    return doing


def _in_channels_last(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Feature maps in channels_last again: FSDP's hooks make a view, which of a batch of one loses that layout."""
    x, *others = inputs
    if x.ndim != 4 or len(x) > 1:
        return inputs
    _, c, h, w = x.shape
    return rearrange(rearrange(x, "b c h w -> (b h w c)"), "(b h w c) -> b c h w", c=c, h=h, w=w), *others


def _forget_casts(*_: object) -> None:
    """Else autocast would keep the cast weights of every unit until all are through."""
    torch.clear_autocast_cache()
