"""How one stage is optimised; the learning rate is the number written, nothing multiplies it."""

import math
from collections.abc import Collection, Sequence
from typing import Annotated, ClassVar, Final, Literal, final

import torch
from pydantic import Field, model_validator
from torch import nn

from darkroom.core.compute import Compute, Precision
from darkroom.core.spec import Spec
from darkroom.train.muon import Muon, is_hidden

WIDEST: Final = 0.2886  # of what power functions have: the deviation of a plain mean is 1/sqrt(12)
Width = Annotated[float, Field(gt=0, lt=WIDEST)]
Decay = Annotated[float, Field(ge=0, lt=1)]


@final
class AveragesSpec(Spec):
    """Averages of the weights that are stored along the way, so that their width can be chosen afterwards.

    every: steps from snapshot to snapshot, each as large as the weights times the number of widths; some thirty of them
    in a run are good · widths: deviations of their profiles, as shares of training.
    """

    every: int = Field(gt=0)
    widths: tuple[Width, Width] = (0.05, 0.1)


@final
class TrainSpec(Spec):
    """How one stage is trained.

    batch: pictures per step, over all processes · micro: pictures that a process takes at a time; a step that has more
    goes through in equal pieces whose gradients are added (None: all at once), which saves memory and changes nothing
    else · warmup: steps over which the learning rate rises from 0 · decay: what it does then ·
    optimizer: `muon` moves matrices and kernels by the orthogonal part of their momentum, all else is adamw's ·
    clip: largest gradient norm · ema: decay of the averaged weights (0: none), itself warmed up ·
    averages: others, stored to choose from afterwards (`darkroom convert RUN OUT --ema WIDTH`) ·
    strategy: what several processes share out: `ddp` the batch, `fsdp` also a denoiser's weights, gradients, averages
    and moments, for what does not fit one device; it changes nothing of what is learnt ·
    compiled: the denoiser's network is compiled for its steps, which costs a minute and needs a C++ compiler (a first
    stage cannot be) · precision: float16 is for GPUs without
    bfloat16, and not for adversaries; float64 is slow and for checks · log_every, save_every, sample_every: in steps.
    """

    written_where_used: ClassVar = frozenset({"micro", "averages", "strategy", "optimizer"})

    steps: int = Field(gt=0)
    batch: int = Field(gt=0)
    micro: int | None = Field(default=None, gt=0)
    learning_rate: float = Field(gt=0)
    warmup: int = Field(default=100, ge=0)
    decay: Literal["constant", "cosine"] = "constant"
    optimizer: Literal["adamw", "muon"] = "adamw"
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    weight_decay: float = Field(default=0.01, ge=0)
    clip: float = Field(default=1.0, gt=0)
    ema: Decay = 0.9999
    averages: AveragesSpec | None = None
    strategy: Literal["ddp", "fsdp"] = "ddp"
    precision: Precision = "auto"
    compiled: bool = False
    log_every: int = Field(default=50, gt=0)
    save_every: int = Field(default=500, gt=0)
    sample_every: int = Field(default=1000, gt=0)

    @model_validator(mode="after")
    def _consistent(self) -> "TrainSpec":
        if self.strategy == "fsdp" and self.compiled:
            raise ValueError("strategy fsdp does not go with compiled, which needs whole weights; keep one of both")
        if self.strategy == "fsdp" and self.optimizer == "muon":
            raise ValueError("strategy fsdp does not go with optimizer muon, which needs whole matrices; take adamw")
        return self


def build_optimizer(
    parameters: Sequence[nn.Parameter],
    spec: TrainSpec,
    *,
    tables: Collection[nn.Parameter] = (),
    dtype: torch.dtype = torch.float32,
    betas: tuple[float, float] | None = None,
    share: float = 1.0,
) -> torch.optim.AdamW:
    """What the spec names; weight decay acts on matrices and kernels, not on biases, norms and other vectors.

    tables: which are looked up in, row by row, so that muon leaves them to adamw · dtype: what muon computes in ·
    betas: instead of the spec's · share: of the spec's learning rate at every step.
    """
    hidden = _turned(parameters, spec, tables=tables)
    apart = {id(each) for each in hidden}
    others = [p for p in parameters if id(p) not in apart]
    groups = [
        {"params": [p for p in others if p.ndim > 1], "weight_decay": spec.weight_decay, "share": share},
        {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0, "share": share},
    ]
    rate, decays = spec.learning_rate, betas or spec.betas
    if spec.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=rate, betas=decays, fused=True)
    turning = {"params": hidden, "weight_decay": spec.weight_decay, "share": share, "orthogonal": True}
    return Muon([*groups, turning], dtype=dtype, lr=rate, betas=decays)


def optimizer_of(
    module: nn.Module, parameters: Sequence[nn.Parameter], *, spec: TrainSpec, compute: Compute
) -> torch.optim.AdamW:
    """The optimiser of a module's parameters, where and as precisely as they are trained."""
    half = compute.dtype == torch.float16  # which has too narrow a range for products of products
    return build_optimizer(parameters, spec, tables=_tables(module), dtype=torch.float32 if half else compute.dtype)


def moments(module: nn.Module, spec: TrainSpec) -> int:
    """How many values the optimiser of all its parameters keeps: two for each weight, one where muon moves it."""
    parameters = list(module.parameters())
    turned = _turned(parameters, spec, tables=_tables(module))
    return 2 * sum(each.numel() for each in parameters) - sum(each.numel() for each in turned)


def _tables(module: nn.Module) -> list[nn.Parameter]:
    return [each.weight for each in module.modules() if isinstance(each, nn.Embedding)]


def _turned(
    parameters: Sequence[nn.Parameter], spec: TrainSpec, *, tables: Collection[nn.Parameter]
) -> list[nn.Parameter]:
    """What muon moves orthogonally."""
    apart = {id(each) for each in tables}
    return [p for p in parameters if spec.optimizer == "muon" and is_hidden(p) and id(p) not in apart]


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Every group takes its share of the rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["share"]


def parameters_of(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """All that an optimiser moves."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def learning_rate(spec: TrainSpec, step: int) -> float:
    """The rate of a step: a linear rise over `warmup` steps, then constant, or half a cosine down to 1 %."""
    rise = min(1.0, (step + 1) / spec.warmup) if spec.warmup else 1.0
    if spec.decay == "constant" or step < spec.warmup:
        return spec.learning_rate * rise
    done = (step - spec.warmup) / max(1, spec.steps - spec.warmup)
    return spec.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))
