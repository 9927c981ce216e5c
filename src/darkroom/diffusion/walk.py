"""The only sampling loop: from noise to data, one step at a time."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias, final

import torch
from jaxtyping import Float
from torch import Tensor

from darkroom.core import seeds
from darkroom.core.conditions import Conditions
from darkroom.core.errors import InputError
from darkroom.core.shapes import Latent, Number, Time
from darkroom.diffusion.denoiser import AnyDiffusion, Denoise, Denoiser
from darkroom.diffusion.guidance import Guided, GuidedByEach, LimitedGuidance, RescaledGuidance
from darkroom.diffusion.solvers.choose import build_solver
from darkroom.diffusion.solvers.ddim import noise_amplitude
from darkroom.diffusion.solvers.solver import Evaluation, Moment, Point, Solver
from darkroom.diffusion.windows import windowed
from darkroom.process.schedule import Schedule
from darkroom.process.times import Times, choose_times

Constraint: TypeAlias = Callable[[Latent, Time, int], Latent]
Wrap: TypeAlias = Callable[[Denoise], Denoise]
StepNoise: TypeAlias = Callable[[int], Latent]
Noises: TypeAlias = Float[Tensor, "steps b c h w"] | Sequence[Tensor]  # each (b, c, h, w); see `_recorded`
_REMEMBERED = 3  # evaluations that the longest multistep formula (PLMS) looks back at


@final
@dataclass(frozen=True, eq=False)
class Step:
    """After a step: x at its end, the x0 predicted in it, the time t it was predicted at, and its index."""

    x: Latent
    x0: Latent
    t: int | float
    index: int


def walk(
    model: AnyDiffusion,
    noise: Latent,
    *,
    conditions: Conditions | None = None,
    null: Conditions | Sequence[Conditions] | None = None,
    solver: str = "ddim",
    steps: int = 50,
    eta: Number = 0.0,
    guidance: Number | Sequence[Number] = 1.0,
    guidance_interval: tuple[Number, Number] | None = None,
    guidance_rescale: Number = 0.0,
    times: str | Tensor | Times | None = None,
    noises: Noises | None = None,
    step_noise: StepNoise | None = None,
    constraint: Constraint | None = None,
    temperature: Number = 1.0,
    wrap: Wrap | None = None,
    window: tuple[int, int] | None = None,
) -> Iterator[Step]:
    """Yields each step from `noise`, which stands at the first visited time, to the end of the grid.

    noise: (b, c, h, w); its type and device are those of the walk · conditions, null: ports of batch size b · guidance:
    1 is none, else `null` is needed; several, each with a null that says more (`GuidedByEach`) · guidance_interval:
    (low, high] in noise level sigma / alpha · guidance_rescale: 0..1, see `RescaledGuidance` · times, steps: see
    `choose_times` · noises: one (b, c, h, w) for each step, in order, also where a step multiplies it by zero ·
    step_noise: instead, index of the step to (b, c, h, w), see `seeded_noise`; default seed 0 by place in the batch ·
    constraint: applied to x before every step as (x, t, index), t (b,) on the CPU; the same arguments must give the
    same answer, for UniPC asks twice · wrap: turns the guided denoiser into another, e.g. `GuidedByScore` · window:
    height and width in latent cells of overlapping windows that are denoised one by one (`Windowed`). `InputError`, at
    once, for what does not fit.
    """
    method = build_solver(solver, eta=float(eta), temperature=float(temperature))
    denoise = _denoiser(
        model,
        null=null,
        guidance=guidance,
        interval=guidance_interval,
        rescale=float(guidance_rescale),
        window=window,
    )
    denoise = denoise if wrap is None else wrap(denoise)
    path = _path(model.schedule, choose_times(model.schedule, times, steps=steps))
    _check_eta(path, eta=float(eta))
    if noises is not None:
        draw = _recorded(noises, like=noise, steps=len(path) - 1)
    elif method.stochastic:
        draw = step_noise or seeded_noise(noise.shape[1:], seed=0, indices=range(len(noise)))
    else:
        draw = None
    return _walk(
        denoise,
        noise,
        conditions=conditions or Conditions(),
        path=path,
        solver=method,
        draw=draw,
        constraint=constraint,
    )


def check_walk(
    schedule: Schedule, *, solver: str, steps: int, eta: float = 0.0, times: str | Tensor | Times | None = None
) -> None:
    """`InputError` for what every walk with these would refuse: solver, grid, more noise than its times hold."""
    build_solver(solver, eta=eta)
    _check_eta(_path(schedule, choose_times(schedule, times, steps=steps)), eta=eta)


def sample_latents(
    model: AnyDiffusion,
    noise: Latent,
    *,
    conditions: Conditions | None = None,
    null: Conditions | Sequence[Conditions] | None = None,
    solver: str = "ddim",
    steps: int = 50,
    eta: Number = 0.0,
    guidance: Number | Sequence[Number] = 1.0,
    guidance_interval: tuple[Number, Number] | None = None,
    guidance_rescale: Number = 0.0,
    times: str | Tensor | Times | None = None,
    noises: Noises | None = None,
    step_noise: StepNoise | None = None,
    constraint: Constraint | None = None,
    temperature: Number = 1.0,
    wrap: Wrap | None = None,
    window: tuple[int, int] | None = None,
) -> Latent:
    """The last x of `walk`, which see for the arguments and errors."""
    x = noise
    for step in walk(
        model,
        noise,
        conditions=conditions,
        null=null,
        solver=solver,
        steps=steps,
        eta=eta,
        guidance=guidance,
        guidance_interval=guidance_interval,
        guidance_rescale=guidance_rescale,
        times=times,
        noises=noises,
        step_noise=step_noise,
        constraint=constraint,
        temperature=temperature,
        wrap=wrap,
        window=window,
    ):
        x = step.x
    return x


def seeded_noise(shape: Sequence[int], *, seed: int | Sequence[int], indices: Sequence[int]) -> StepNoise:
    """Noise of a step, (len(indices), *shape) float32: sample k of a seed gets the same in any batch.

    seed: one for all samples, or one for each.
    """

    def draw(index: int) -> Tensor:
        return seeds.normal(shape, seed=seed, indices=indices, purpose=f"step {index}")

    return draw


def _walk(
    denoise: Denoise,
    noise: Latent,
    *,
    conditions: Conditions,
    path: Sequence[Point],
    solver: Solver,
    draw: StepNoise | None,
    constraint: Constraint | None,
) -> Iterator[Step]:
    def evaluate(at: Latent, point: Point) -> Evaluation:
        return Evaluation(point, at, denoise(at, _batch_time(point, len(at)), conditions))

    x = noise
    history: tuple[Evaluation, ...] = ()
    for index, (now, following) in enumerate(itertools.pairwise(path)):

        def constrain(at: Latent, now: Point = now, index: int = index) -> Latent:
            return at if constraint is None else constraint(at, _batch_time(now, len(at)), index)

        with torch.no_grad():  # never across the yield: whoever watches keeps their own mode
            moment = Moment(
                x=constrain(x),
                now=now,
                following=following,
                final=index == len(path) - 2,
                history=history,
                noise=None if draw is None else draw(index).to(x),
                evaluate=evaluate,
                constrain=constrain,
            )
            advance = solver.step(moment)
        x, history = advance.x, (*history, advance.kept)[-_REMEMBERED:]
        yield Step(x=x, x0=advance.x0, t=now.t, index=index)


def _denoiser(
    model: AnyDiffusion,
    *,
    null: Conditions | Sequence[Conditions] | None,
    guidance: Number | Sequence[Number],
    interval: tuple[Number, Number] | None,
    rescale: float,
    window: tuple[int, int] | None,
) -> Denoise:
    plain = windowed(Denoiser(model.network, model.schedule, model.prediction), window)
    if guidance == 1:
        return plain
    guided = _guided(plain, null=null, guidance=guidance, rescale=rescale)
    if interval is None:
        return guided
    low, high = interval
    if not low <= high:
        raise InputError(f"guidance_interval=({low:g}, {high:g}) does not fit: two noise levels do, the lower first")
    return LimitedGuidance(plain, guided=guided, schedule=model.schedule, low=float(low), high=float(high))


def _guided(
    plain: Denoise,
    *,
    null: Conditions | Sequence[Conditions] | None,
    guidance: Number | Sequence[Number],
    rescale: float,
) -> Denoise:
    if isinstance(guidance, Sequence):
        if not isinstance(null, Sequence) or len(null) != len(guidance):
            raise InputError(f"{len(guidance)} scales of guidance need as many `null`, each saying more than the last")
        if rescale != 0:
            raise InputError("guidance_rescale works with one scale of guidance")
        return GuidedByEach(plain, steps=tuple(null), scales=tuple(float(scale) for scale in guidance))
    if not isinstance(null, Conditions):
        raise InputError(f"guidance={guidance:g} needs `null`, the conditions that say nothing; or use guidance=1")
    if not 0 <= rescale <= 1:
        raise InputError(f"guidance_rescale={rescale:g} does not fit: 0 (not at all) to 1 (wholly) does")
    if rescale == 0:
        return Guided(plain, null=null, scale=float(guidance))
    return RescaledGuidance(plain, null=null, scale=float(guidance), amount=rescale)


def _path(schedule: Schedule, grid: Times) -> list[Point]:
    end = torch.tensor([grid.end], dtype=grid.visited.dtype, device="cpu")
    t = torch.cat([grid.visited.cpu(), end])
    columns = (t.tolist(), schedule.alpha(t).tolist(), schedule.sigma(t).tolist())
    return [Point(time, alpha, sigma) for time, alpha, sigma in zip(*columns, strict=True)]


def _batch_time(point: Point, count: int) -> Time:
    kind = torch.int64 if isinstance(point.t, int) else torch.float64
    return torch.full((count,), point.t, dtype=kind, device="cpu")


def _check_eta(path: Sequence[Point], *, eta: float) -> None:
    """`InputError` when eta asks for more noise than some step of the path holds."""
    for now, following in itertools.pairwise(path):
        noise_amplitude(now, following, eta=eta)


def _recorded(noises: Noises, *, like: Latent, steps: int) -> StepNoise:
    """The noises in order; `InputError` for too few, and for one that is not as large as what it is added to."""
    if len(noises) < steps:
        raise InputError(f"noises has {len(noises)} entries and {steps} steps are taken; give one for each")
    for index in range(steps):
        if noises[index].shape != like.shape:
            came, fits = (tuple(each.shape) for each in (noises[index], like))
            raise InputError(
                f"noises[{index}] has shape {came}, and what it is added to {fits}; give one for each sample"
            )

    def draw(index: int) -> Tensor:
        return noises[index]

    return draw
