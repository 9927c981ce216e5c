"""What a recipe would cost on this machine, and fitting one into a time; measured, then written down."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from darkroom.autoencoder.losses import FirstStageLossSpec
from darkroom.autoencoder.model import Autoencoder, AutoencoderSpec
from darkroom.core.compute import training_compute
from darkroom.core.shapes import Number
from darkroom.core.spec import parse, parse_yaml
from darkroom.data.loader import Batch
from darkroom.diffusion.model import LatentDiffusion, ModelSpec
from darkroom.nn.vgg import present
from darkroom.recipes.describe import describe
from darkroom.recipes.resolve import resolve
from darkroom.recipes.run import RECIPE, open_recipe_data
from darkroom.recipes.schema import FirstStageRecipe, Recipe
from darkroom.train.first_stage import only_decoder
from darkroom.train.loop import Losses, train
from darkroom.train.optim import TrainSpec, build_optimizer
from darkroom.train.stages import DenoiserObjective, LatentBatch, first_stage_objective, opponent_of
from darkroom.train.state import Training

FIRST_STAGE_SHARE, OVERHEAD = 0.3, 0.08
WARM, TIMED = 2, 5
LARGE = 100_000_000


def plan_of(recipe: Recipe, *, device: str = "auto") -> dict[str, Any]:
    """Pictures, parameters, memory, steps, and seconds of each stage, measured by a few steps on this machine.

    A model of more than 100 million parameters is not tried, nor one that needs a network which is not here yet; its
    seconds are None, and `untried` says why.
    """
    splits = open_recipe_data(recipe.data, seed=recipe.seed)
    fitted = resolve(recipe, splits.train).recipe
    facts = describe(fitted)
    untried = _untried(fitted, sum(facts["parameters"].values()))
    measured = {} if untried else _step_seconds(fitted, device=device)
    stages = {
        stage: {
            "steps": spec.steps,
            "batch": spec.batch,
            "seconds": None if untried else round(measured[stage][1] * spec.steps, 1),
        }
        for stage, spec in _trained(fitted).items()
    }
    return {
        "recipe": fitted.name,
        "summary": fitted.summary,
        "data": {
            "source": fitted.data.source,
            "train": len(splits.train),
            "test": len(splits.test),
            "skipped": len(splits.train.skipped),
            "size": fitted.data.size,
        },
        "parameters": facts["parameters"],
        "flops": facts["flops"],
        "memory": facts["memory"],
        "stages": stages,
        "untried": untried,
        "seconds": None if untried else round(sum(each["seconds"] for each in stages.values()), 1),
    }


def _untried(recipe: Recipe, parameters: int) -> str | None:
    """Why a few steps are not made to see how long they take, or None."""
    loss = recipe.first_stage.loss
    if parameters > LARGE:
        return "too large"
    if recipe.first_stage.train is not None and loss.perceptual_weight and loss.perceptual == "lpips" and not present():
        return "LPIPS would have to be downloaded first"
    return None


def told(plan: dict[str, Any]) -> str:
    """The plan in words."""
    data, parameters = plan["data"], plan["parameters"]
    lines = [
        f"{plan['recipe']}: {plan['summary']}",
        f"data        {data['train']} training and {data['test']} test pictures at {data['size']} px"
        + (f", {data['skipped']} left out" if data["skipped"] else ""),
        "parameters  " + ", ".join(f"{name} {count / 1e6:.2f} M" for name, count in parameters.items() if count),
        "operations  "
        + ", ".join(f"{name} {count / 1e6:.0f} M" for name, count in plan["flops"].items() if count)
        + " multiply-adds a picture",
        "memory      "
        + ", ".join(f"{name} {count / 1e6:.0f} MB" for name, count in plan["memory"].items() if count)
        + ", and activations",
    ]
    for stage, cost in plan["stages"].items():
        seconds = cost["seconds"]
        time_ = f"not tried here: {plan['untried']}" if seconds is None else f"about {seconds / 60:.1f} minutes here"
        lines.append(f"{stage:<11} {cost['steps']} steps of {cost['batch']} pictures, {time_}")
    return "\n".join(lines)


def fit(recipe: Recipe, *, minutes: Number, folder: Path, device: str = "auto") -> Recipe:
    """The recipe with steps that take about `minutes` here: 30 % for the first stage, 8 % kept for looking and saving.

    A run already begun in `folder` keeps the steps it has written down.
    """
    path = folder / RECIPE
    if path.exists():
        before = parse(Recipe, parse_yaml(path.read_text(encoding="utf-8"), where=str(path)), where=str(path))
        wanted = _trained(recipe)  # a run of other stages is refused by name when it is opened
        counts = {stage: spec.steps for stage, spec in _trained(before).items() if stage in wanted}
    else:
        splits = open_recipe_data(recipe.data, seed=recipe.seed)
        measured = _step_seconds(resolve(recipe, splits.train).recipe, device=device)
        budget = minutes * 60 * (1 - OVERHEAD)
        shares = _shares(list(measured))
        counts = {stage: max(20, int(budget * shares[stage] / seconds)) for stage, (_, seconds) in measured.items()}
    values = recipe.plain()
    for stage, steps in counts.items():
        spec = values[stage]["train"]
        spec["steps"] = steps
        spec["warmup"] = min(spec["warmup"], steps // 10)
        spec["sample_every"] = min(spec["sample_every"], max(1, steps // 4))
        spec["save_every"] = min(spec["save_every"], max(1, steps // 10))
    return parse(Recipe, values, where=f"recipe {recipe.name!r}")


def _shares(stages: list[str]) -> dict[str, float]:
    if len(stages) == 1:
        return {stages[0]: 1.0}
    return {"first_stage": FIRST_STAGE_SHARE, "denoiser": 1 - FIRST_STAGE_SHARE}


def _trained(recipe: Recipe) -> dict[str, TrainSpec]:
    found: dict[str, TrainSpec] = {}
    if recipe.first_stage.train is not None and isinstance(recipe.first_stage.model, AutoencoderSpec):
        found["first_stage"] = recipe.first_stage.train
    if recipe.denoiser is not None and recipe.denoiser.train is not None:
        found["denoiser"] = recipe.denoiser.train
    return found


def _step_seconds(recipe: Recipe, *, device: str) -> dict[str, tuple[TrainSpec, float]]:
    found: dict[str, tuple[TrainSpec, float]] = {}
    for stage, spec in _trained(recipe).items():
        timed = spec.model_copy(update={"steps": WARM + TIMED})
        model = recipe.model_spec()
        if stage == "first_stage":
            seconds = _time_first_stage(recipe.first_stage, timed, size=recipe.data.size, device=device)
        else:
            assert model is not None
            seconds = _time_denoiser(model, timed, device=device)
        found[stage] = spec, seconds
    return found


def _time_first_stage(part: FirstStageRecipe, spec: TrainSpec, *, size: int, device: str) -> float:
    """Seconds of a mean step: those before an adversary begins and those after it cost differently."""
    adversary = part.loss.adversary
    if adversary is None or part.train is None:
        return _time_first_stage_with(part.loss, part, spec=spec, size=size, device=device)
    alone, against = (
        _time_first_stage_with(
            part.loss.model_copy(update={"adversary": each}), part, spec=spec, size=size, device=device
        )
        for each in (None, adversary.model_copy(update={"start": 0}))
    )
    start = adversary.begins(part.train.steps).start
    share = min(1.0, start / part.train.steps) if isinstance(start, int) else 0.0  # a plateau may come at once
    return share * alone + (1 - share) * against


def _time_first_stage_with(
    loss: FirstStageLossSpec, part: FirstStageRecipe, *, spec: TrainSpec, size: int, device: str
) -> float:
    assert isinstance(part.model, AutoencoderSpec)
    compute = training_compute(device, spec.precision)
    model = compute.host(Autoencoder(part.model))
    if part.only is not None:
        only_decoder(model)
    images = torch.randint(256, (spec.batch, part.model.image_channels, size, size), dtype=torch.uint8)
    indices = list(range(spec.batch))
    batch = Batch(images, indices, indices)
    losses = first_stage_objective(model, loss, train=spec, compute=compute, seed=0)
    opponent = opponent_of(losses, spec)
    return _time(model, lambda: batch, losses=losses, spec=spec, device=device, opponent=opponent)


def _time_denoiser(model_spec: ModelSpec, spec: TrainSpec, *, device: str) -> float:
    compute = training_compute(device, spec.precision)
    model = compute.host(LatentDiffusion(model_spec))
    side = model_spec.image_size
    latents = torch.randn(spec.batch, *model.latent_shape((side, side)))
    fields: dict[str, torch.Tensor] = {}
    for each in model_spec.conditioners:
        if each.field == "caption":
            fields["caption"] = torch.zeros(spec.batch, each.encoder.length, dtype=torch.long)
        else:
            fields[each.field] = torch.zeros(spec.batch, dtype=torch.long)
    batch = LatentBatch(latents, fields, list(range(spec.batch)))
    losses = DenoiserObjective(model, compute, 0)
    return _time(model, lambda: batch, losses=losses, spec=spec, device=device)


def _time(
    model: torch.nn.Module,
    batch: Callable[[], Any],
    *,
    losses: Losses[Any],
    spec: TrainSpec,
    device: str,
    opponent: torch.optim.Optimizer | None = None,
) -> float:
    """Median seconds of a step after warm-up."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    training = Training(model.train(), build_optimizer(parameters, spec), None, opponent)
    compute = training_compute(device, spec.precision)
    ends = [time.perf_counter()]
    for _ in train(training, iter(batch, None), losses=losses, spec=spec, compute=compute):
        ends.append(time.perf_counter())
    steps = sorted(after - before for before, after in zip(ends[WARM:-1], ends[WARM + 1 :], strict=True))
    return steps[len(steps) // 2]
