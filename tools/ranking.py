"""What people mind more, as a loss: ratios of distances at equal PSNR, and growth with strength."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from degradations import ORDER, STRONGEST, Kind, at_psnr, trim
from einops import repeat
from jaxtyping import Bool, Float
from torch import Generator, Tensor, nn

from darkroom.core.shapes import Images
from darkroom.nn.taps import unit

MARGIN = 0.25  # of log distances, between two degradations of which one is minded more
STRONGER = 4.0  # dB
KINDS: tuple[Kind, ...] = tuple(STRONGEST)


@final
@dataclass(frozen=True, eq=False)
class Trial:
    """Clean pictures, and the same degraded: `kinds` at equal PSNR, then those of `stronger` at 4 dB less.

    degraded: (kinds + stronger) * b pictures, kind by kind · reached: where the PSNR was met.
    """

    clean: Images
    degraded: Images
    reached: Bool[Tensor, "k b"]
    kinds: tuple[Kind, ...]
    stronger: tuple[Kind, ...]


def trial(pictures: Images, *, kinds: int = len(KINDS), stronger: int = 2, generator: Generator) -> Trial:
    """Pictures (with margin) degraded in that many ways, drawn anew each time, at a PSNR of 20..34 dB each."""
    psnr = 20 + 14 * torch.rand(len(pictures), generator=generator)
    chosen = tuple(KINDS[k] for k in torch.randperm(len(KINDS), generator=generator)[:kinds].tolist())
    made = [at_psnr(kind, pictures, psnr=psnr, generator=generator) for kind in chosen]
    made += [at_psnr(kind, pictures, psnr=psnr - STRONGER, generator=generator) for kind in chosen[:stronger]]
    degraded, reached = zip(*made, strict=True)
    return Trial(trim(pictures), torch.cat(degraded), torch.stack(reached), chosen, chosen[:stronger])


def contrasts(network: nn.Module, trial_: Trial, *, eps: float) -> list[Float[Tensor, "n c"]]:
    """For each tap, the squared differences of unit features from the clean picture's, averaged over positions."""
    count = len(trial_.clean)
    taps = network(torch.cat([trial_.clean, trial_.degraded]))
    units = [unit(tap, eps=eps) for tap in taps]
    copies = len(trial_.degraded) // count
    return [(u[count:] - repeat(u[:count], "b c h w -> (k b) c h w", k=copies)).square().mean((2, 3)) for u in units]


def ranking_loss(parts: Sequence[Float[Tensor, "n c"]], heads: Sequence[Tensor], *, trial_: Trial) -> Tensor:
    """Mean softplus of how far each pair of `ORDER`, and each stronger copy, is from the right order by a margin."""
    total = sum(part @ head for part, head in zip(parts, heads, strict=True))
    logs = (total + 1e-6).log().view(-1, len(trial_.clean))
    pairs = [(trial_.kinds.index(a), trial_.kinds.index(b)) for a, b in ORDER if {a, b} <= set(trial_.kinds)]
    pairs += [(place, len(trial_.kinds) + place) for place in range(len(trial_.stronger))]
    terms = [logs[mild] - logs[bad] for mild, bad in pairs]
    valid = [trial_.reached[mild] & trial_.reached[bad] for mild, bad in pairs]
    late, counts = torch.stack(terms), torch.stack(valid).float()
    return (F.softplus(6 * (late + MARGIN)) / 6 * counts).sum() / counts.sum().clamp(min=1)
