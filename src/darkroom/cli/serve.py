"""`darkroom serve`: one engine that draws for many, over HTTP."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

EXAMPLE = """
darkroom serve
darkroom serve runs/photos runs/maps --data gallery --port 8080
darkroom serve --follow runs/photos
darkroom serve --models runs --host 0.0.0.0 --token "$TOKEN" --limit steps=50 --limit queue=200
"""
SHARE = 0.5  # of the memory where they will be, for weights


def run(
    models: Annotated[
        list[str] | None, typer.Argument(help="Models to offer, the first is the default; else all built-in ones.")
    ] = None,
    *,
    folder: Annotated[Path | None, typer.Option("--models", help="Also offer every model in this folder.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen at; this machine alone without.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at; 0 is any free one.")] = 8000,
    token: Annotated[
        list[str] | None,
        typer.Option(envvar="DARKROOM_TOKEN", help="Whoever asks must send it; repeat it for one each."),
    ] = None,
    without_token: Annotated[bool, typer.Option("--open", help="Listen beyond this machine without a token.")] = False,
    data: Annotated[Path, typer.Option(help="Folder of jobs and pictures, which survive a restart.")] = Path("served"),
    batch: Annotated[int, typer.Option(min=1, help="Pictures drawn together, at the model's own size.")] = 8,
    memory: Annotated[
        float | None, typer.Option(min=0.01, help="GB for weights; half of the GPU's or machine's.")
    ] = None,
    decoder: Annotated[list[str] | None, typer.Option(help="A tiny decoder, for previews of what it fits.")] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=VALUE: body, bodies, sending, picture, pixels, windows, steps, count, prompt, objects, queue, "
            "share, seconds, connections, kept."
        ),
    ] = None,
    studio: Annotated[bool, typer.Option(help="The page for browsers, at /studio, where gradio is installed.")] = True,
    follow: Annotated[Path | None, typer.Option(help="Folder of a training to show there while it runs.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto (float32), float32, bfloat16, float16.")] = "auto",
    running: Annotated[
        str, typer.Option("--engine", help="What runs the networks: auto (eager), eager, compiled, openvino.")
    ] = "auto",
) -> None:
    """Serve models until Ctrl-C: a studio for browsers, jobs with previews, images as OpenAI's clients ask for them."""
    from darkroom.cli.answers import say_words
    from darkroom.cli.options import refuse
    from darkroom.core.compute import sampling_compute
    from darkroom.core.errors import InputError
    from darkroom.core.spec import override, parse
    from darkroom.diffusion.engine import build_engine

    if not studio:
        refuse({"follow": follow}, why="trainings are followed in the studio, and --no-studio is without")
    try:
        from darkroom.serve import api, server
    except ModuleNotFoundError as error:
        raise InputError(f"darkroom serve needs {error.name}: pip install 'darkroom[serve]'") from None
    from darkroom.serve.engine import Engine
    from darkroom.serve.guard import LOCAL, is_loopback
    from darkroom.serve.limits import Limits
    from darkroom.serve.shelf import stocked
    from darkroom.serve.store import Store

    tokens = _tokens(token)
    local = is_loopback(host)
    if not local and not tokens and not without_token:
        raise InputError(f"--host {host} can be reached from elsewhere: give a --token, or --open if all may come in")
    limits = parse(Limits, override({}, limit or []), where="--limit")
    compute = sampling_compute(device, precision)
    build_engine(running, compute=compute)  # refuses one that cannot be had here
    shelf = stocked(
        models or [],
        folder=folder,
        memory=int((memory or SHARE * _memory(compute.device)) * 2**30),
        decoders=decoder or [],
        device=device,
        dtype=precision,
        engine=running,
    )
    at = server.listening(host, port)
    engine = Engine(shelf, Store(data), limits=limits, batch=batch)
    app = api.build(engine, tokens=tokens, hosts=(*LOCAL, host) if local else None)
    without = _studio(app, engine, follow=follow, tokens=tokens) if studio else "no studio (--no-studio)"
    address = server.address_of(at)
    say_words(f"serving {', '.join(shelf.offers)} at {address}; jobs and pictures are in {data}; Ctrl-C ends it")
    typer.echo(without or f"the studio is at {address}/studio/")
    server.run(app, engine, at=at)
    typer.echo("stopped; jobs that wait go on when it is started again")


def _studio(app: Any, engine: Any, *, follow: Path | None, tokens: Sequence[str] = ()) -> str | None:
    """Put the studio into the application; a sentence where it is not installed, an `InputError` if it must follow."""
    from darkroom.core.errors import InputError

    try:
        from darkroom.studio.mount import mount
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("darkroom"):
            raise
        sentence = f"no studio, for {error.name} is missing: pip install 'darkroom[studio]'"
        if follow is not None:
            raise InputError(f"--follow: {sentence}") from None
        return sentence
    mount(app, engine, follow=follow, tokens=tokens)
    return None


def _tokens(given: list[str] | None) -> list[str]:
    """Those given, or the words of DARKROOM_TOKEN; `InputError` for one that anybody could guess or no header holds."""
    from darkroom.core.errors import InputError

    for each in given or []:
        if len(each) < 8 or not each.isascii() or not each.isprintable() or " " in each:
            raise InputError("a token has 8 printable ASCII characters or more, and no spaces")
    return list(dict.fromkeys(given or []))


def _memory(device: Any) -> float:
    """GB of memory where the weights will be: of the GPU, else of this machine, 4 where that is not known."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory / 2**30
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, OSError, ValueError):
        return 4.0
