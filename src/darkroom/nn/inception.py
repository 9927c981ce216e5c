"""The Inception network that FID and the inception score are defined with, as the weights of 2015 want it.

Szegedy et al. 2016, in the version whose graph was published for the inception score (Salimans et al. 2016): averages
over 3 x 3 count no padding, the last block takes the maximum instead, there are 1008 classes, and pictures are made
299 x 299 by the bilinear filter of early TensorFlow, which lays pixel i of the result over place i · (in / out).
Modules are named as in the published file, a table of tensors.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from darkroom.core.errors import ModelFileError
from darkroom.core.fetch import PublishedFile

SIDE: Final = 299
CLASSES: Final = 1008
WIDTH: Final = 2048
PUBLISHED: Final = PublishedFile(
    url="https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
    digest="sha256:6726825d",
    limit=120_000_000,
)
_BATCH_NORM_EPS: Final = 1e-3
Size = int | tuple[int, int]


class _Conv(NamedTuple):
    """A convolution with what follows it. pad: None for as much as keeps the size."""

    name: str
    width: int
    size: Size = 1
    stride: int = 1
    pad: int | None = None


Chain = tuple[_Conv, ...]


class _Fork(NamedTuple):
    """Two convolutions of the same input side by side."""

    first: _Conv
    second: _Conv


class _Pool(NamedTuple):
    """What a block's last branch begins with. kind: mean, largest or halve (the largest with stride 2)."""

    kind: str
    then: Chain = ()


Branch = tuple[_Conv | _Fork, ...] | _Pool


def _plain(pool: int) -> tuple[Branch, ...]:
    """Mixed_5b to 5d."""
    return (
        (_Conv("branch1x1", 64),),
        (_Conv("branch5x5_1", 48), _Conv("branch5x5_2", 64, 5)),
        (_Conv("branch3x3dbl_1", 64), _Conv("branch3x3dbl_2", 96, 3), _Conv("branch3x3dbl_3", 96, 3)),
        _Pool("mean", (_Conv("branch_pool", pool),)),
    )


def _long(inner: int) -> tuple[Branch, ...]:
    """Mixed_6b to 6e: 7 x 7 as 1 x 7 and 7 x 1."""
    across, down = (1, 7), (7, 1)
    return (
        (_Conv("branch1x1", 192),),
        (_Conv("branch7x7_1", inner), _Conv("branch7x7_2", inner, across), _Conv("branch7x7_3", 192, down)),
        (
            _Conv("branch7x7dbl_1", inner),
            _Conv("branch7x7dbl_2", inner, down),
            _Conv("branch7x7dbl_3", inner, across),
            _Conv("branch7x7dbl_4", inner, down),
            _Conv("branch7x7dbl_5", 192, across),
        ),
        _Pool("mean", (_Conv("branch_pool", 192),)),
    )


def _wide(pool: str) -> tuple[Branch, ...]:
    """Mixed_7b and 7c: 3 x 3 as 1 x 3 beside 3 x 1."""
    across, down = (1, 3), (3, 1)
    return (
        (_Conv("branch1x1", 320),),
        (
            _Conv("branch3x3_1", 384),
            _Fork(_Conv("branch3x3_2a", 384, across), _Conv("branch3x3_2b", 384, down)),
        ),
        (
            _Conv("branch3x3dbl_1", 448),
            _Conv("branch3x3dbl_2", 384, 3),
            _Fork(_Conv("branch3x3dbl_3a", 384, across), _Conv("branch3x3dbl_3b", 384, down)),
        ),
        _Pool(pool, (_Conv("branch_pool", 192),)),
    )


_STEM: Final = (
    _Conv("Conv2d_1a_3x3", 32, 3, stride=2, pad=0),
    _Conv("Conv2d_2a_3x3", 32, 3, pad=0),
    _Conv("Conv2d_2b_3x3", 64, 3),
    _Pool("halve"),
    _Conv("Conv2d_3b_1x1", 80),
    _Conv("Conv2d_4a_3x3", 192, 3, pad=0),
    _Pool("halve"),
)
_BLOCKS: Final[Mapping[str, tuple[Branch, ...]]] = {
    "Mixed_5b": _plain(32),
    "Mixed_5c": _plain(64),
    "Mixed_5d": _plain(64),
    "Mixed_6a": (
        (_Conv("branch3x3", 384, 3, stride=2, pad=0),),
        (
            _Conv("branch3x3dbl_1", 64),
            _Conv("branch3x3dbl_2", 96, 3),
            _Conv("branch3x3dbl_3", 96, 3, stride=2, pad=0),
        ),
        _Pool("halve"),
    ),
    "Mixed_6b": _long(128),
    "Mixed_6c": _long(160),
    "Mixed_6d": _long(160),
    "Mixed_6e": _long(192),
    "Mixed_7a": (
        (_Conv("branch3x3_1", 192), _Conv("branch3x3_2", 320, 3, stride=2, pad=0)),
        (
            _Conv("branch7x7x3_1", 192),
            _Conv("branch7x7x3_2", 192, (1, 7)),
            _Conv("branch7x7x3_3", 192, (7, 1)),
            _Conv("branch7x7x3_4", 192, 3, stride=2, pad=0),
        ),
        _Pool("halve"),
    ),
    "Mixed_7b": _wide("mean"),
    "Mixed_7c": _wide("largest"),
}


@final
class Convolution(nn.Module):
    """Convolution without bias, batch norm, ReLU."""

    def __init__(self, inputs: int, wanted: _Conv) -> None:
        super().__init__()
        size = wanted.size if isinstance(wanted.size, tuple) else (wanted.size, wanted.size)
        pad = tuple(side // 2 if wanted.pad is None else wanted.pad for side in size)
        self.conv = nn.Conv2d(inputs, wanted.width, size, stride=wanted.stride, padding=pad, bias=False)
        self.bn = nn.BatchNorm2d(wanted.width, eps=_BATCH_NORM_EPS)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d _h _w"]:
        """(b, c, h, w) to (b, width, h', w')."""
        return F.relu(self.bn(self.conv(x)))


@final
class Block(nn.Module):
    """Branches that look at the same map side by side. width: of all of them together."""

    def __init__(self, inputs: int, branches: tuple[Branch, ...]) -> None:
        super().__init__()
        self.branches, self.width = branches, 0
        for branch in branches:
            width = inputs
            for step in branch.then if isinstance(branch, _Pool) else branch:
                parts = (step,) if isinstance(step, _Conv) else step
                for part in parts:
                    self.add_module(part.name, Convolution(width, part))
                width = sum(part.width for part in parts)
            self.width += width

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d _h _w"]:
        """(b, c, h, w) to (b, width, h', w')."""
        return torch.cat([self._along(branch, x) for branch in self.branches], dim=1)

    def _along(self, branch: Branch, x: Tensor) -> Tensor:
        if isinstance(branch, _Pool):
            x, branch = pooled(x, branch.kind), branch.then
        for step in branch:
            parts = (step,) if isinstance(step, _Conv) else step
            x = torch.cat([self.get_submodule(part.name)(x) for part in parts], dim=1)
        return x


@final
class Inception(nn.Module):
    """Pictures with levels 0..255 to 2048 features and the logits of 1008 classes."""

    def __init__(self) -> None:
        super().__init__()
        width = 3
        for step in _STEM:
            if isinstance(step, _Conv):
                self.add_module(step.name, Convolution(width, step))
                width = step.width
        for name, branches in _BLOCKS.items():
            block = Block(width, branches)
            self.add_module(name, block)
            width = block.width
        self.fc = nn.Linear(width, CLASSES)

    def forward(self, levels: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b classes"]]:
        """Pictures of any size; the logits are without their bias, as the inception score has them."""
        x = (resized(levels) - 128) / 128
        for step in _STEM:
            x = self.get_submodule(step.name)(x) if isinstance(step, _Conv) else pooled(x, step.kind)
        for name in _BLOCKS:
            x = self.get_submodule(name)(x)
        features = x.mean((2, 3))
        return features, features @ self.fc.weight.T


def pooled(x: Float[Tensor, "b c h w"], kind: str) -> Float[Tensor, "b c _h _w"]:
    """Over 3 x 3: `mean` without the padding, `largest`, or `halve`, the largest with stride 2."""
    match kind:
        case "mean":
            return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
        case "largest":
            return F.max_pool2d(x, 3, stride=1, padding=1)
        case _:
            return F.max_pool2d(x, 3, stride=2)


def resized(levels: Float[Tensor, "b c h w"], side: int = SIDE) -> Float[Tensor, "b c _side _side"]:
    """Bilinear as early TensorFlow has it: pixel i of the result lies at i · (in / out), and nothing is averaged."""
    for dim in (-2, -1):
        size = levels.shape[dim]
        at = torch.arange(side, device=levels.device, dtype=torch.float32) * (size / side)
        low = at.floor().long().clamp(max=size - 1)
        high = (low + 1).clamp(max=size - 1)
        share = (at - low).view([-1 if place == dim % levels.ndim else 1 for place in range(levels.ndim)])
        first, second = (levels.index_select(dim, each) for each in (low, high))
        levels = first + (second - first) * share
    return levels


def inception(weights: Mapping[str, Tensor], *, where: str) -> Inception:
    """The network with these weights, frozen; `ModelFileError` names what is missing, foreign or misshapen."""
    network = Inception()
    own = network.state_dict()
    needed = {name for name in own if not name.endswith("num_batches_tracked")}
    lacking = sorted(needed - weights.keys())
    if lacking:
        raise ModelFileError(f"{where}: no weights of the Inception network of FID, {lacking[0]!r} is missing")
    for name in needed:
        if weights[name].shape != own[name].shape:
            came, fits = tuple(weights[name].shape), tuple(own[name].shape)
            raise ModelFileError(f"{where}: {name} has shape {came}, {fits} fits the Inception network of FID")
    network.load_state_dict({name: weights[name] for name in needed}, strict=False)
    return network.eval().requires_grad_(False)
