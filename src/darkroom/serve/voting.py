"""The page on which people choose between two pictures, and what it asks the server."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any, Final, Literal, final

from fastapi import APIRouter, FastAPI
from fastapi.responses import Response
from pydantic import Field, FiniteFloat
from starlette.middleware import Middleware

from darkroom import __version__
from darkroom.core.spec import Spec
from darkroom.serve.ballot import Pair, Question, Side, picture, sheet
from darkroom.serve.counts import Counts
from darkroom.serve.guard import Guard, refusing
from darkroom.serve.limits import Limits, Refused
from darkroom.serve.votes import Votes

BODY: Final = 4096  # bytes of a vote
KEPT: Final = 64  # pictures that stay in memory
LONGEST: Final = 86_400.0  # seconds of a choice
# The page loads nothing from elsewhere and runs no script but its own.
POLICY: Final = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'"
ASSETS: Final = {"vote.js": "text/javascript", "vote.css": "text/css"}


@final
class VoteGiven(Spec):
    """A choice. question: its number · seconds: since the pictures were seen."""

    question: int = Field(ge=0, lt=2**31)
    side: Side
    seconds: FiniteFloat = Field(ge=0, le=LONGEST)


@final
@dataclass(frozen=True, eq=False)
class Booth:
    """Where people vote: the pairs, in the order of `votes.poll.pairs`, and the votes."""

    pairs: Sequence[Pair]
    votes: Votes

    def enter(self) -> dict[str, Any]:
        """Somebody new."""
        name = self.votes.enter()
        return {"voter": name, **self.following(name)}

    def following(self, name: str) -> dict[str, Any]:
        """What a voter is asked next: its number and pictures, or that nothing is left."""
        number, asked = self._asked(name)
        given, poll = self.votes.given(number), self.votes.poll
        left = [each for each in asked if each.number not in given]
        told = {"of": len(asked), "given": len(asked) - len(left)}
        if not left:
            return {**told, "question": None}
        at = f"/voters/{name}/questions/{left[0].number}"
        between = self.pairs[left[0].pair].between is not None
        return {
            **told,
            "question": left[0].number,
            "asks": poll.question,
            "shown": poll.shown,
            **{side: f"{at}/{side}" for side in ("left", "right", *(["between"] if between else []))},
        }

    def take(self, name: str, vote: VoteGiven) -> dict[str, Any]:
        """Keep a choice; what is answered afterwards is on the disk. The first of a question counts."""
        number, asked = self._asked(name)
        self._question(asked, vote.question)
        kept = self.votes.vote(number, vote.question, side=vote.side, seconds=vote.seconds)
        return {"kept": kept, **self.following(name)}

    def shown(self, name: str, number: int, *, place: Literal["left", "right", "between"]) -> bytes:
        """A picture of a question, as PNG."""
        _, asked = self._asked(name)
        question = self._question(asked, number)
        pair = self.pairs[question.pair]
        if place == "between":
            if pair.between is None:
                raise Refused("nothing lies between these pictures", status=404, code="no_picture")
            return _drawn(pair, "between")
        return _drawn(pair, question.chose(place))

    def _asked(self, name: str) -> tuple[int, tuple[Question, ...]]:
        number = self.votes.voter(name)
        if number is None:
            raise Refused("nobody of this name came here; open the page again", status=404, code="no_voter")
        return number, sheet(self.votes.poll, voter=number)

    def _question(self, asked: Sequence[Question], number: int) -> Question:
        if not 0 <= number < len(asked):
            raise Refused(f"there is no question {number}, there are {len(asked)}", status=404, code="no_question")
        return asked[number]


_drawn = lru_cache(maxsize=KEPT)(picture)


def build_voting(booth: Booth, *, hosts: Sequence[str] | None = None) -> FastAPI:
    """The application. hosts: names under which it may be called, None for any (see `Guard`)."""
    limits = Limits(body=BODY)
    app = FastAPI(
        title="Darkroom: which is better?",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        middleware=[Middleware(Guard, limits=limits, counts=Counts(), tokens=(), hosts=hosts)],
    )
    app.include_router(_page())
    app.include_router(_voters(booth))
    refusing(app)
    return app


def _page() -> APIRouter:
    """The page, its script and style, read once: names are looked up in a table, never in a folder."""
    router, folder = APIRouter(), files("darkroom.serve").joinpath("assets")
    page = {name: folder.joinpath(name).read_bytes() for name in ("vote.html", *ASSETS)}

    @router.get("/")
    def home() -> Response:
        return _plain(page["vote.html"], "text/html; charset=utf-8")

    @router.get("/assets/{name}")
    def asset(name: str) -> Response:
        if name not in ASSETS:
            raise Refused("there is no such file", status=404, code="no_page")
        return _plain(page[name], ASSETS[name])

    return router


def _voters(booth: Booth) -> APIRouter:
    """Who comes, what they are asked, and what they choose."""
    router = APIRouter(prefix="/voters")

    @router.post("", status_code=201)
    def enter() -> dict[str, Any]:
        return booth.enter()

    @router.get("/{name}")
    def following(name: str) -> dict[str, Any]:
        return booth.following(name)

    @router.post("/{name}/votes")
    def take(name: str, vote: VoteGiven) -> dict[str, Any]:
        return booth.take(name, vote)

    @router.get("/{name}/questions/{number}/{place}")
    def shown(name: str, number: int, place: Literal["left", "right", "between"]) -> Response:
        return _plain(booth.shown(name, number, place=place), "image/png")

    return router


def _plain(body: bytes, kind: str) -> Response:
    """Nothing is kept by browsers: the same address must not show what another voter saw."""
    return Response(body, media_type=kind, headers={"Cache-Control": "no-store", "Content-Security-Policy": POLICY})
