"""Keeping a codebook alive: codes that are no longer used are put where latents are (Dhariwal et al. 2020, Jukebox).

A code without latents near it gets no gradient and never comes back by itself: the codebook collapses.
"""

from typing import final

import torch
from einops import rearrange
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from darkroom.autoencoder.bottleneck import effective
from darkroom.core import seeds
from darkroom.core.parallel import mean_over_ranks, rows_of_all_ranks
from darkroom.core.shapes import Latent
from darkroom.core.spec import Spec


class RevivalSpec(Spec):
    """When a code counts as dead.

    below: use under this share of even use · memory: decay per step of the average that use is measured by ·
    until: share of all steps after which codes stay where they are.
    """

    below: float = Field(default=0.1, gt=0, lt=1)
    memory: float = Field(default=0.99, gt=0, lt=1)
    until: float = Field(default=0.8, ge=0, le=1)


@final
class Revival(nn.Module):
    """How much each code is used, as a share of even use, and the revival of codes that are not used.

    use: decides, and is set to even use for a revived code · counted: the use as it was seen · revived: how many codes
    were moved so far.

    All codes count as dead before the first batch: the codebook begins as latents of the data.
    """

    use: Float[Tensor, " codes"]
    counted: Float[Tensor, " codes"]
    steps: Int[Tensor, ""]
    revived: Int[Tensor, ""]

    def __init__(self, spec: RevivalSpec, *, codes: int, steps: int, seed: int) -> None:
        super().__init__()
        self.spec, self.last, self.seed = spec, int(spec.until * steps), seed
        for name in ("use", "counted"):
            self.register_buffer(name, torch.zeros(codes))
        for name in ("steps", "revived"):
            self.register_buffer(name, torch.zeros((), dtype=torch.int64))
        self._seen = torch.empty(0)
        self._pieces = list[tuple[Tensor, Tensor]]()

    @property
    def perplexity(self) -> Float[Tensor, ""]:
        """exp(entropy) of the averaged use as it was counted, without what revival grants: codes in effective use."""
        return effective(self.counted)

    @torch.no_grad()
    def watch(self, latents: Latent, indices: Int[Tensor, "b h w"], *, of: int = 1) -> None:
        """Take in one batch, or one of so many pieces of it: what the encoder answered, and the codes chosen for it."""
        counted = torch.bincount(indices.flatten(), minlength=len(self.use)).to(self.use.dtype)
        self._pieces.append((counted, rearrange(latents.detach(), "b c h w -> (b h w) c")))
        if len(self._pieces) < of:
            return
        counts, seen = zip(*self._pieces, strict=True)
        self._pieces.clear()
        count = mean_over_ranks(torch.stack(counts).sum(0))
        share = count * (len(self.use) / count.sum())
        for average in (self.use, self.counted):
            average.lerp_(share, 1 - self.spec.memory)
        self._seen = torch.cat(seen)

    @torch.no_grad()
    def revive(self, codes: Float[Tensor, "codes c"]) -> Int[Tensor, " dead"]:
        """Move dead codes, in place, onto random latents of the batch last seen; answers which codes moved."""
        first = int(self.steps) == 0
        self.steps += 1
        dead = torch.nonzero(self.use < (torch.inf if first else self.spec.below))[:, 0]
        if len(dead) == 0 or (int(self.steps) > self.last and not first):
            return dead[:0]
        pool = rows_of_all_ranks(self._seen).to(codes.dtype)
        codes[dead] = pool[self._choice(len(dead), of=len(pool)).to(pool.device)]
        self.use[dead] = 1.0
        self.revived += len(dead)
        return dead

    def _choice(self, count: int, *, of: int) -> Int[Tensor, " dead"]:
        """`count` rows drawn without repetition as long as there are enough; a function of seed and step."""
        draw = seeds.generator(self.seed, int(self.steps), purpose="revival")
        rounds = [torch.randperm(of, generator=draw) for _ in range(-(-count // of))]
        return torch.cat(rounds)[:count]
