"""`darkroom study`: one of the paper's experiments on your data, beside what the paper printed."""

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = """
darkroom study solvers shapes
darkroom study compression my-pictures minutes=600 --out studies/mine
darkroom study compression shapes minutes=120 factors=1,4,8 bottlenecks=kl --plan
darkroom study inpainting my-pictures minutes=300
"""


def run(
    name: Annotated[str, typer.Argument(help="compression, speed, super-resolution, inpainting, guidance, solvers.")],
    of: Annotated[str, typer.Argument(metavar="DATA_OR_MODEL", help="Pictures; for guidance and solvers a model.")],
    *,
    changes: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="minutes=60, count=256, seed=0, ...")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the study; studies/NAME-DATA without.")] = None,
    features: Annotated[
        list[str] | None, typer.Option(help="Networks to see sets through: judge, inception, a folder of weights.")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Only say which cells there are, and their time here.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Carry out one of the paper's experiments; run again to go on where it stopped.

    minutes= is shared over all trainings; measuring takes what it takes. Each study ends in tables beside the paper's
    own numbers and in plots: study.md, results.json, study.html and SVG files.
    """
    from darkroom.cli.answers import say, say_json, say_words
    from darkroom.cli.watch import watch
    from darkroom.core.record import read_json
    from darkroom.data.place import called
    from darkroom.studies.carry import begun, carry_out, finished
    from darkroom.studies.choose import build_study
    from darkroom.studies.cost import costs, told
    from darkroom.studies.page import markdown

    study = build_study(name, of, changes=changes or (), features=features or ())
    folder = out or Path("studies") / f"{name}-{called(of).removesuffix('.safetensors').replace(':', '-') or 'data'}"
    if plan:
        found = costs(begun(study, folder), folder, device=device)
        say(told(found), [each.plain() for each in found], as_json=as_json)
        return
    watch(lambda tell: carry_out(study, folder, device=device, tell=tell))
    if as_json:
        say_json(read_json(folder / "results.json"))
        return
    found = finished(begun(study, folder), folder)
    say_words(markdown(study, study.read(found), plots=()))
    say_words(f"the study is in {folder}")
