"""`darkroom train`: from a folder of pictures or a recipe to a model."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

Stage = Literal["both", "first"]
EXAMPLE = """
darkroom train my_pictures minutes=60
darkroom train tiny-text --out runs/first
darkroom train my_pictures --stage first
darkroom train my_pictures denoiser.train.steps=20000 --plan
"""


def run(
    source: Annotated[str, typer.Argument(metavar="DATA_OR_RECIPE", help="A folder, a recipe's name or its YAML.")],
    changes: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE ...]", help="Changes to it.")] = None,
    *,
    out: Annotated[Path | None, typer.Option(help="Run folder; runs/NAME-SEED without.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of weights, order, noise: all that is drawn. [0]")] = None,
    start_from: Annotated[str | None, typer.Option("--from", help="Fine-tune this model (not there yet).")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Only say what would be done.")] = False,
    stage: Annotated[Stage, typer.Option(help="both, or first alone, for a later --first-stage.")] = "both",
    first_stage: Annotated[str | None, typer.Option(help="A model whose first stage is used as it is.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="With --plan: answer in JSON.")] = False,
) -> None:
    """Train both stages, or the first; run the same command again to go on where it stopped."""
    from darkroom.cli.watch import watch
    from darkroom.core.errors import NotYetError
    from darkroom.nn.vgg import present
    from darkroom.recipes.check import check_trainable
    from darkroom.recipes.given import first_stage_alone, with_first_stage
    from darkroom.recipes.plan import fit, plan_of, told
    from darkroom.recipes.run import Run
    from darkroom.tasks.first_stage import trained_size
    from darkroom.tasks.load import find, read

    if start_from is not None:
        raise NotYetError("fine-tuning with --from is not there yet; a first stage can be taken with --first-stage")
    seeded = [] if seed is None else [f"seed={seed}"]
    recipe, minutes = _recipe(source, [*(changes or []), *seeded])
    if stage == "first":
        recipe = first_stage_alone(recipe)
    folder = out or Path("runs") / f"{recipe.name}-{recipe.seed}"
    given = None if first_stage is None else read(find(first_stage))
    if given is not None:
        sized = any(change.startswith("data.size=") for change in changes or [])
        recipe = with_first_stage(recipe, given, size=None if sized else trained_size(given))
    if recipe.first_stage.only is not None:  # a plan, too, needs to know the first stage
        check_trainable(recipe, given=given is not None)
    if minutes is not None:
        recipe = fit(recipe, minutes=minutes, folder=folder, device=device)
    if plan:
        found = plan_of(recipe, device=device)
        typer.echo(json.dumps(found, indent=2) if as_json else told(found))
        return
    loss = recipe.first_stage.loss
    if recipe.first_stage.train is not None and loss.perceptual_weight and loss.perceptual == "lpips" and not present():
        typer.echo("fetching the weights of LPIPS (528 MB, once) ...", err=True)
    run = Run(recipe, folder, device=device, first_stage=given)
    if Path(source).is_dir() and not run.begun:  # a person's folder: say what will happen
        typer.echo("measuring how fast this machine is (a few steps of each stage) ...", err=True)
        typer.echo(told(plan_of(run.recipe, device=device)), err=True)
    watch(lambda tell: run.develop(tell=tell))
    typer.echo(f"the run is in {folder}")


def _recipe(source: str, changes: list[str]) -> tuple[Any, float | None]:
    """The recipe meant, and the minutes it shall take, if any were given."""
    from darkroom.core.errors import SpecError
    from darkroom.data.sources import SCENES
    from darkroom.recipes.read import recipe

    overrides = [change for change in changes if not change.startswith("minutes=")]
    minutes = [_minutes(change) for change in changes if change.startswith("minutes=")]
    file = source.endswith((".yaml", ".yml"))
    folder = source in SCENES or Path(source).is_dir() or source.endswith(".tar") or len(Path(source).parts) > 1
    if folder and not file:
        return _of_folder(source, overrides), minutes[-1] if minutes else None
    try:
        found = recipe(source, overrides=overrides)
    except SpecError as error:
        unknown = str(error).startswith("unknown recipe")
        raise SpecError(f"{source}: no such folder, and {error}" if unknown else str(error)) from None
    return found, minutes[-1] if minutes else None


def _of_folder(place: str, overrides: list[str]) -> Any:
    from darkroom.core.spec import override, parse
    from darkroom.data.sources import open_data
    from darkroom.data.summary import summary
    from darkroom.recipes.folder import SIZE, recipe_for_folder
    from darkroom.recipes.schema import DataSpec, Recipe

    wanted = override({"data": {"size": SIZE}}, overrides)["data"]
    asked = parse(DataSpec, wanted, where=f"the data of {place}")
    found = summary(open_data(place, caption_field=asked.caption_field).train)
    chosen = any(each.startswith("data.size=") for each in overrides)
    made = recipe_for_folder(
        found, place=str(Path(place)), channels=asked.channels, size=asked.size if chosen else None
    )
    return parse(Recipe, override(made.plain(), overrides), where=f"the recipe for {place}")


def _minutes(change: str) -> float:
    from darkroom.core.errors import SpecError

    value = change.removeprefix("minutes=")
    try:
        minutes = float(value)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes < float("inf"):
        raise SpecError(f"{change!r}: minutes is a number above 0, e.g. minutes=60")
    return minutes
