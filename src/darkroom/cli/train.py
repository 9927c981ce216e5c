"""`darkroom train`: from a folder of pictures or a recipe to a model."""

import functools
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from darkroom.checkpoint.store import StoredModel
    from darkroom.data.sources import Splits
    from darkroom.recipes.asked import Asked
    from darkroom.recipes.pace import Pace
    from darkroom.recipes.run import Run
    from darkroom.recipes.schema import Recipe

Stage = Literal["both", "first"]
NO_STAGE = ("pixels", "patches")  # of no first stage: what a denoiser works on instead
EXAMPLE = """
darkroom train my-pictures minutes=60
darkroom train tiny-text --out runs/first
darkroom train my-pictures --stage first
darkroom train my-drawings --from emoji minutes=10
darkroom train my-pictures --distill runs/my-pictures-0
darkroom train my-pictures denoiser.train.steps=20000 --plan
darkroom train shapes-text --plan gpus=8 gpu=h200
"""


def run(
    source: Annotated[
        str,
        typer.Argument(
            metavar="DATA_OR_RECIPE", help="A folder of pictures, shards, shapes, or a recipe: its name or YAML."
        ),
    ],
    changes: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="minutes=60, task=text, any key of the recipe."),
    ] = None,
    *,
    out: Annotated[Path | None, typer.Option(help="Run folder; runs/NAME-SEED without.")] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of weights, order, noise: all that is drawn; the recipe's without.")
    ] = None,
    start_from: Annotated[
        str | None,
        typer.Option("--from", help="Begin with this model: fine-tune it, or teach it another task (task=)."),
    ] = None,
    distill: Annotated[
        str | None, typer.Option(help="Begin with this model and learn to draw in few steps what it draws in many.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML of an original checkpoint that --from, --distill or --first-stage names.")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Only say what would be done, and how long it takes.")] = False,
    stage: Annotated[Stage, typer.Option(help="both, or first alone, for a later --first-stage.")] = "both",
    first_stage: Annotated[
        str | None, typer.Option(help="A model whose first stage is used as it is; for none: pixels, patches.")
    ] = None,
    keep: Annotated[
        int, typer.Option(min=0, help="States of so many looks at the samples that stay, besides the last two.")
    ] = 0,
    best: Annotated[
        bool, typer.Option("--best", help="Keep the model with the least held-out loss, too: RUN/best.safetensors.")
    ] = False,
    track: Annotated[
        str | None, typer.Option(help="Show the logs elsewhere, too: tensorboard (RUN/tensorboard) or wandb.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="With --plan: answer in JSON.")] = False,
) -> None:
    """Train both stages, or the first; run the same command again to go on where it stopped."""
    from darkroom.cli.answers import say_words
    from darkroom.cli.options import refuse
    from darkroom.cli.watch import watch
    from darkroom.core.parallel import on_first
    from darkroom.recipes.asked import Asked
    from darkroom.recipes.clock import RECIPE
    from darkroom.recipes.given import check_begin
    from darkroom.recipes.plan import fit, plan_of, told
    from darkroom.recipes.resolve import resolve
    from darkroom.recipes.run import Run, open_recipe_data
    from darkroom.recipes.track import check_tracker, tracked
    from darkroom.tasks.find import find, read_stage, read_whole

    began = time.monotonic()
    words = (*(changes or []), *([] if seed is None else [f"seed={seed}"]))
    asked = Asked(source=source, changes=words, distill=distill is not None)
    _check_together(asked, start_from, distill, stage=stage, first_stage=first_stage, config=config, plan=plan)
    refuse({"json": as_json and not plan}, why="it is how --plan answers")
    if track is not None:
        check_tracker(track)
    begin, named = start_from or distill, None if first_stage in NO_STAGE else first_stage
    start = None if begin is None else read_whole(begin, config=config)
    given = None if named is None else read_stage(find(named), config=config)
    recipe = _recipe(asked, start, begin=begin or "", stage=stage, given=given, first_stage=first_stage)
    refuse({"best": best and recipe.denoiser is None}, why="it keeps denoisers, and this trains a first stage alone")
    if asked.machine is not None:
        _plan_for(recipe, asked.machine, as_json=as_json)
        return
    folder = out or _own_folder(recipe)
    _check_apart(folder, recipe.data.source)
    if plan or not (folder / RECIPE).exists():  # a run that goes on has its weights; told before a pace is measured
        check_begin(recipe.first_stage)
    splits = on_first(lambda: open_recipe_data(recipe.data, seed=recipe.seed))  # one fetches shards, all see the same

    def fitted() -> "Recipe":
        return resolve(recipe, splits.train, start=start, held_out=splits.test).recipe

    measure = functools.cache(lambda: _measured(fitted(), device=device))
    minutes = asked.minutes or recipe.minutes
    if minutes is not None:
        kept = None if plan else folder
        fits = fit(recipe, minutes=minutes, folder=kept, measure=measure, spent=lambda: time.monotonic() - began)
        recipe = on_first(lambda: fits)  # one machine's pace holds for all
    if plan:
        _plan_here(fitted(), splits, folder=folder, measure=measure, as_json=as_json)
        return
    _announce_download(recipe)
    spent = time.monotonic() - began
    run = Run(
        recipe,
        folder,
        device=device,
        first_stage=given,
        start=start,
        splits=splits,
        spent=spent,
        keep=keep,
        best=best,
    )
    if asked.of_folder and not run.begun:  # a person's pictures: say what will happen
        say_words(told(plan_of(run.recipe, splits, measure=measure)), aside=True)
    watch(lambda tell: run.develop(tell=tell) if track is None else tracked(run.develop(tell=tell), folder, name=track))
    say_words(f"the run is in {folder}")
    for line in _afterwards(run):
        typer.echo(line)


def _afterwards(run: "Run") -> list[str]:
    """What to type next, as the report says it, with a prompt or label of these pictures."""
    from darkroom.data.inputs import captions
    from darkroom.recipes.report.commands import Example, own_commands

    part, names = run.recipe.denoiser, run.resolved.names
    prompts = () if part is None else part.sample.prompts
    if run.resolved.tokenizer is not None and not prompts:
        prompts = captions(run.splits.test, most=1)
    prompt, label = (" ".join(next(iter(each), "").split()) for each in (prompts, names.classes))
    if not f"{prompt}{label}".isprintable():  # a stranger's captions and folders shall not steer a terminal
        return []
    example = Example(prompt or "a picture", label or "0")
    return [f"{each.does.lower()}: {each.line}" for each in own_commands(run.folder, run.recipe, example=example)]


def _check_together(
    asked: "Asked",
    start_from: str | None,
    distill: str | None,
    *,
    stage: Stage,
    first_stage: str | None,
    config: Path | None,
    plan: bool,
) -> None:
    """`InputError` for options that do not go together, before a file is read."""
    from darkroom.cli.options import refuse
    from darkroom.core.errors import InputError

    whole = {"--from": start_from, "--distill": distill}
    words = [word for word, model in whole.items() if model is not None]
    if len(words) > 1:
        raise InputError("--from trains a model further and --distill makes one of few steps of it; give one of them")
    if words and (first_stage is not None or stage == "first"):
        raise InputError(
            f"{words[0]} begins with a whole model, its first stage too; leave --first-stage and --stage away"
        )
    if not words and first_stage in (None, *NO_STAGE):
        refuse({"config": config}, why="it belongs to a checkpoint that --from, --distill or --first-stage names")
    if asked.machine is not None and not plan:
        raise InputError("gpus= and gpu= are for --plan; torchrun starts a training on several GPUs")
    if asked.machine is not None and asked.minutes is not None:
        raise InputError("minutes= fits a run to the machine it is on; a plan for GPUs tells how long its steps take")


def _own_folder(recipe: "Recipe") -> Path:
    """Where a run goes without --out; `InputError` where a stranger's recipe has a name that leads out of `runs`."""
    from darkroom.core.errors import InputError

    name = f"{recipe.name}-{recipe.seed}"
    if Path(name).name != name or "\0" in name:
        raise InputError(
            f"recipe {recipe.name!r:.100}: no folder can have this name; choose one with --out, or give name=NAME"
        )
    return Path("runs") / name


def _check_apart(folder: Path, source: str | None) -> None:
    """`InputError` for a run in the very folder of its pictures: what it draws would be taken for some of them."""
    from darkroom.core.errors import InputError
    from darkroom.data.sources import SCENES

    if (
        source is not None
        and source not in SCENES
        and folder.is_dir()
        and os.path.realpath(folder) == os.path.realpath(source)
    ):
        raise InputError(
            f"{folder}: the pictures lie in this folder, and a run needs one of its own; choose another --out"
        )


def _plan_here(
    recipe: "Recipe", splits: "Splits", *, folder: Path, measure: "Callable[[], Pace]", as_json: bool
) -> None:
    """Say what the recipe would take on this machine, whatever lies in its folder."""
    from darkroom.cli.answers import note, say
    from darkroom.recipes.clock import RECIPE
    from darkroom.recipes.plan import plan_of, told

    if (folder / RECIPE).exists():
        note(f"a run was begun in {folder}; this is the plan of a new one")
    found = plan_of(recipe, splits, measure=measure)
    say(told(found), found, as_json=as_json)


def _plan_for(recipe: "Recipe", machine: tuple[int, str], *, as_json: bool) -> None:
    """Say what the recipe would take on GPUs that are not here."""
    from darkroom.cli.answers import say
    from darkroom.recipes.cluster import plan_for, told_for

    found = plan_for(recipe, gpus=machine[0], gpu=machine[1])
    say(told_for(found), found, as_json=as_json)


def _recipe(
    asked: "Asked",
    start: "StoredModel | None",
    *,
    begin: str,
    stage: Stage,
    given: "StoredModel | None",
    first_stage: str | None,
) -> "Recipe":
    """The recipe for these stages. begin, first_stage: what `start` and `given` were called, or `pixels`, `patches`."""
    from darkroom.core.errors import InputError
    from darkroom.recipes.asked import recipe_asked
    from darkroom.recipes.check import check_trainable
    from darkroom.recipes.given import first_stage_alone, on_pixels, pictures_of, with_first_stage
    from darkroom.tasks.find import name_of
    from darkroom.tasks.first_stage import trained_size

    recipe = recipe_asked(asked, start=start, name=name_of(begin) if start is not None else "")
    if stage == "first":
        recipe = first_stage_alone(recipe)
        if given is not None and recipe.first_stage.only is None:
            raise InputError("--stage first trains a first stage and --first-stage gives one; leave one of them away")
    if given is not None and first_stage is not None:
        pictures = None if asked.names_pictures else pictures_of(first_stage)  # a decoder learns from them
        recipe = with_first_stage(recipe, given, size=asked.size or trained_size(given), source=pictures)
    if recipe.first_stage.only is not None:  # a plan, too, needs to know the first stage
        check_trainable(recipe, given=given is not None)
    return on_pixels(recipe, patches=first_stage == "patches") if first_stage in NO_STAGE else recipe


def _measured(recipe: "Recipe", *, device: str) -> "Pace":
    """The pace of a recipe here; whoever waits is told why."""
    from darkroom.cli.answers import note
    from darkroom.recipes.pace import busy, pace

    crowded = busy()
    if crowded is not None:
        note(crowded)
    typer.echo("measuring how fast this machine is (a few steps of each stage) ...", err=True)
    return pace(recipe, device=device)


def _announce_download(recipe: "Recipe") -> None:
    from darkroom.nn.vgg import present

    part = recipe.first_stage
    if part.train is not None and part.loss.perceptual_weight and part.loss.perceptual == "lpips" and not present():
        typer.echo("fetching the weights of LPIPS (528 MB, once) ...", err=True)
