"""`darkroom vote`: people choose between two pictures in a browser, and their votes are counted."""

from pathlib import Path
from typing import Annotated, Any

import typer

EXAMPLE = """
darkroom vote samples/latents samples/pixels --between small-pictures
darkroom vote samples/latents my-pictures --real --host 0.0.0.0 --port 8080
darkroom vote samples/latents samples/pixels --between small-pictures --tally
"""
ASKS = {
    (False, False): "Which of the two pictures is better?",
    (False, True): "Which of the two pictures is the better version of the one in the middle?",
    (True, False): "Which of the two pictures is real?",
    (True, True): "Which of the two pictures is the better version of the one in the middle?",
}


def run(
    first: Annotated[Path, typer.Argument(help="Folder of pictures: those of a method.")],
    second: Annotated[Path, typer.Argument(help="Another folder: of another method, or real ones.")],
    *,
    real: Annotated[bool, typer.Option("--real", help="The second are real pictures.")] = False,
    between: Annotated[
        Path | None, typer.Option(help="Folder of what each pair was made from, shown in the middle.")
    ] = None,
    question: Annotated[str | None, typer.Option(help="What is asked; what suits the pictures without.")] = None,
    shown: Annotated[float, typer.Option(min=0.05, max=60, help="Seconds that pictures are seen.")] = 3.0,
    questions: Annotated[int, typer.Option(min=1, help="Of each voter at most, checks not counted.")] = 50,
    checks: Annotated[float, typer.Option(min=0, max=1, help="Checks of attention, for each question.")] = 0.1,
    seed: Annotated[int, typer.Option(min=0, help="Of orders, sides and checks.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder of the votes; votes/FIRST-SECOND without.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen at; this machine alone without.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at; 0 is any free one.")] = 8000,
    tally: Annotated[bool, typer.Option("--tally", help="Only count the votes that are there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Serve a page on which people choose between two pictures, until Ctrl-C, then count their votes.

    Pictures are paired by name (in order, where no name is shared), seen for three seconds on sides drawn at random,
    and chosen by key or button. Now and then one of both is broken: voters who miss that are left out of the count.
    Every vote is in votes.sqlite before its voter goes on; the same words go on after a stop. Whoever knows the address
    may vote.
    """
    from darkroom.cli.answers import say
    from darkroom.core.errors import InputError
    from darkroom.core.spec import parse
    from darkroom.serve.ballot import Poll, find_pairs, hashes
    from darkroom.serve.tally import count, told
    from darkroom.serve.votes import FILE, Votes

    pairs = find_pairs(first, second, between=between)
    asks = question or ASKS[real, between is not None]
    one, other = first.resolve().name, second.resolve().name
    values = {"first": one, "second": other if other != one else f"{other}-2", "real": real, "question": asks}
    values |= {"shown": shown, "questions": questions, "checks": checks, "seed": seed, "pairs": hashes(pairs)}
    poll = parse(Poll, values, where="what is asked")
    folder = out or Path("votes") / f"{poll.first}-{poll.second}"
    if tally and not (folder / FILE).exists():
        raise InputError(f"{folder}: no votes are kept here; the same words without --tally ask for them")
    votes = Votes(folder, poll)
    if not tally:
        _serve(pairs, votes, host=host, port=port, folder=folder)
    found = count(poll, votes.all())
    say(told(poll, found), found.plain(), as_json=as_json)
    votes.close()


def _serve(pairs: Any, votes: Any, *, host: str, port: int, folder: Path) -> None:
    """Until Ctrl-C or TERM."""
    from darkroom.cli.answers import say_words
    from darkroom.core.errors import InputError

    try:
        from darkroom.serve import server, voting
    except ModuleNotFoundError as error:
        raise InputError(f"darkroom vote needs {error.name}: pip install 'darkroom[serve]'") from None
    from darkroom.serve.guard import LOCAL, is_loopback

    at = server.listening(host, port)
    app = voting.build_voting(voting.Booth(pairs, votes), hosts=(*LOCAL, host) if is_loopback(host) else None)
    where = f"{server.address_of(at)}; votes are in {folder}"
    say_words(f"{len(pairs)} pairs are asked about at {where}; Ctrl-C ends it", aside=True)
    server.run_alone(app, at=at)
