"""The two training tasks: many labels at once for the small network, recognising one picture again for the judge."""

from typing import final

import torch
import torch.nn.functional as F
from degradations import STRONGEST, Kind, at_psnr, degradation, trim
from einops import rearrange, reduce
from feature_corpus import DIGITS, NOTHING, NUCLEI_CLASSES, SCENE_CLASSES, Crops
from jaxtyping import Float, Int
from procedural import fractal
from ranking import contrasts, ranking_loss, trial
from torch import Generator, Tensor, nn

from darkroom.core.shapes import Images
from darkroom.nn.pyramids import PlainPyramid, ResidualPyramid

KINDS: tuple[Kind, ...] = tuple(STRONGEST)
ORDER_WEIGHT = 8.0  # below, the labels alone decide what the features are and the order gets worse


@final
class ManyLabels(nn.Module):
    """Class maps, source, digit, and where, how and how much a picture was spoilt; and the order of distances.

    The parts outside the network serve training only. The weights of the taps are learnt with it (softplus).
    """

    mixed = None  # crops come from all pools

    def __init__(self, network: PlainPyramid, *, widths: tuple[int, ...], sources: int, eps: float) -> None:
        super().__init__()
        self.network, self.eps = network, eps
        outputs = SCENE_CLASSES + NUCLEI_CLASSES + len(KINDS) + 1 + 1
        self.dense = nn.ModuleList(nn.Conv2d(width, outputs, 1) for width in widths)
        self.whole = nn.Linear(widths[-1], sources + DIGITS)
        self.raw_heads = nn.ParameterList(torch.zeros(width) for width in widths)
        self.sources = sources

    def heads(self) -> list[Tensor]:
        """Weights of the taps, positive."""
        return [F.softplus(raw) for raw in self.raw_heads]

    def forward(self, crops: Crops, pairs: Images | None, generator: Generator) -> dict[str, Tensor]:
        """Losses; `crops` and `pairs` (with margin) differ, `pairs` are photographs and dead leaves, if any."""
        spoilt, kinds, strength = _spoil(crops.pictures, generator)
        taps = self.network(spoilt)
        dense = sum(_to_half(layer(tap), spoilt.shape[2]) for layer, tap in zip(self.dense, taps, strict=True))
        maps, what, much = dense.split([SCENE_CLASSES + NUCLEI_CLASSES, len(KINDS) + 1, 1], dim=1)
        source, digit = self.whole(reduce(taps[-1], "b c h w -> b c", "mean")).split([self.sources, DIGITS], dim=1)
        return {
            "maps": _known(maps, trim(crops.maps[:, None])[:, 0, ::2, ::2]),
            "what": F.cross_entropy(what, kinds),
            "much": (much[:, 0] - strength).square().mean(),
            "source": F.cross_entropy(source, crops.source),
            "digit": _known(digit, crops.labels),
        } | ({} if pairs is None else {"order": self._order(pairs, generator)})

    def _order(self, pairs: Images, generator: Generator) -> Tensor:
        trial_ = trial(pairs, kinds=4, stronger=1, generator=generator)
        return ORDER_WEIGHT * ranking_loss(contrasts(self.network, trial_, eps=self.eps), self.heads(), trial_=trial_)


@final
class SamePicture(nn.Module):
    """InfoNCE (van den Oord et al. 2018): two crops of a picture against others, and against its own spoilt copy."""

    mixed = 2  # pools a batch: among pictures of one kind it takes more to tell which is the same

    def __init__(self, network: ResidualPyramid, *, widths: tuple[int, ...], sources: int) -> None:
        super().__init__()
        self.network = network
        self.project = nn.Sequential(nn.Linear(widths[-1], 192), nn.SiLU(), nn.Linear(192, 96))
        self.whole = nn.Linear(widths[-1], sources + DIGITS)
        self.sources = sources

    def forward(self, crops: Crops, pairs: Images | None, generator: Generator) -> dict[str, Tensor]:
        """Losses; `pairs` is not used."""
        first, second = _view(crops.pictures, generator), _view(crops.pictures, generator)
        pooled = self._pooled([first, second, _spoilt_copy(crops.pictures, generator)])
        z = F.normalize(self.project(pooled), dim=1)
        one, two, bad = z.chunk(3)
        among = torch.cat([one @ two.T, one @ bad.T], dim=1) / 0.1
        back = torch.cat([two @ one.T, two @ bad.T], dim=1) / 0.1
        right = torch.arange(len(one))
        source, digit = self.whole(pooled[: len(one)]).split([self.sources, DIGITS], dim=1)
        return {
            "same": (F.cross_entropy(among, right) + F.cross_entropy(back, right)) / 2,
            "source": 0.2 * F.cross_entropy(source, crops.source),
            "digit": 0.2 * _known(digit, crops.labels),
        }

    def _pooled(self, views: list[Images]) -> Float[Tensor, "n d"]:
        return reduce(self.network(torch.cat(views))[-1], "b c h w -> b c", "mean")


def _known(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy where the label is known; 0 when none is."""
    if not (labels != NOTHING).any():
        return logits.sum() * 0
    return F.cross_entropy(logits, labels, ignore_index=NOTHING)


def _to_half(x: Float[Tensor, "b c h w"], size: int) -> Float[Tensor, "b c h2 w2"]:
    """A map at half the resolution of the picture."""
    if x.shape[2] == size:
        return F.avg_pool2d(x, 2)
    return F.interpolate(x, size=(size // 2, size // 2), mode="bilinear", align_corners=False)


def _spoil(pictures: Images, generator: Generator) -> tuple[Images, Int[Tensor, "b h w"], Float[Tensor, "b h w"]]:
    """Pictures spoilt in one region each (every eighth in none); per 2 x 2 pixels the kind (0: none) and strength."""
    count = len(pictures)
    strength = 0.1 + 0.5 * torch.rand(count, generator=generator)
    field = fractal(count, channels=1, size=pictures.shape[2], generator=generator)
    smooth = F.avg_pool2d(field, 9, stride=1, padding=4)
    where = trim((smooth > 0.3 * torch.randn(count, 1, 1, 1, generator=generator)).float())
    spoilt, kinds = trim(pictures).clone(), torch.zeros(count, dtype=torch.long)
    order = torch.randperm(count, generator=generator)
    for number, kind in enumerate(KINDS, start=1):
        rows = order[number :: len(KINDS) + 1]
        worse = trim(degradation(kind, pictures[rows], generator=generator)(strength[rows] * STRONGEST[kind]))
        spoilt[rows] += where[rows] * (worse - spoilt[rows])
        kinds[rows] = number
    inside = where[:, 0, ::2, ::2]
    known = rearrange(kinds, "b -> b 1 1") * inside.long()
    return spoilt, known, rearrange(strength, "b -> b 1 1") * (known > 0)


def _view(pictures: Images, generator: Generator) -> Images:
    """A crop moved by up to the margin, brightness, contrast and colour changed mildly."""
    height, width = trim(pictures).shape[2:]
    room = pictures.shape[2] - height + 1
    places = torch.randint(0, room, (len(pictures), 2), generator=generator).tolist()
    crops = [p[:, top : top + height, left : left + width] for p, (top, left) in zip(pictures, places, strict=True)]
    colour = 0.1 * torch.randn(len(pictures), 3, 1, 1, generator=generator)
    gain = 1 + 0.1 * torch.randn(len(pictures), 1, 1, 1, generator=generator)
    return (torch.stack(crops) * gain + colour).clamp(-1, 1)


def _spoilt_copy(pictures: Images, generator: Generator) -> Images:
    """Copies made worse in ways that people mind, at 16..30 dB."""
    kinds: tuple[Kind, ...] = ("noise", "blur", "blocks")
    psnr = 16 + 14 * torch.rand(len(pictures), generator=generator)
    spoilt = trim(pictures).clone()
    for number, kind in enumerate(kinds):
        rows = slice(number, None, len(kinds))
        spoilt[rows] = at_psnr(kind, pictures[rows], psnr=psnr[rows], generator=generator)[0]
    return spoilt
