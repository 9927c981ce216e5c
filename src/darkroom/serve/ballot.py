"""What people are asked: pairs of pictures, in an order, with sides and checks of each voter's own, by a seed.

The preference study of the paper (Tab. 4, appendix E.3.6, after Saharia et al. 2021): of two pictures, seen for three
seconds, one is chosen. Checks are pairs of a picture with a broken copy of itself, which nobody prefers who looks.
"""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, final

from PIL import Image, ImageOps
from pydantic import Field, FiniteFloat

from darkroom.core.errors import InputError
from darkroom.core.spec import Spec
from darkroom.data.decode import check, decode
from darkroom.data.metadata import pictures_in

Side = Literal["left", "right"]
Shown = Literal["first", "second", "broken first", "broken second"]
TILES: Final = 8  # a side, that a broken copy is cut into


@final
@dataclass(frozen=True)
class Pair:
    """Two pictures that belong together, and what lies between them on the page, if anything."""

    name: str
    first: Path
    second: Path
    between: Path | None = None


@final
class Poll(Spec):
    """All that decides what voters are asked.

    first, second: what the two kinds of pictures are called · real: the second ones are real, so that half of the
    choices is the best that the first can have · shown: seconds · questions: of each voter at most, checks not
    counted · checks: for each question, on average · pairs: hash of the pictures, by the name of the pair.
    """

    first: str
    second: str
    real: bool = False
    question: str = Field(min_length=1, max_length=500)
    shown: FiniteFloat = Field(default=3.0, gt=0, le=60)
    questions: int = Field(default=50, gt=0)
    checks: FiniteFloat = Field(default=0.1, ge=0, le=1)
    seed: int = Field(default=0, ge=0, lt=2**63)
    pairs: dict[str, str]


@final
@dataclass(frozen=True)
class Question:
    """Of one voter. number: from 0, in the order in which it is asked · pair: its number."""

    number: int
    pair: int
    left: Shown
    right: Shown

    @property
    def check(self) -> bool:
        """Is one of both broken?"""
        return self.left.startswith("broken") or self.right.startswith("broken")

    def chose(self, side: Side) -> Shown:
        """What lies on that side."""
        return self.left if side == "left" else self.right


def find_pairs(first: Path, second: Path, *, between: Path | None = None) -> tuple[Pair, ...]:
    """Pictures of two folders by the names that both have, without their ends; where no name is shared, in order.

    between: a folder with a third picture for each name, such as what was enlarged or painted into. `InputError` for
    folders without pictures, names that come twice or are shared by none, and two pictures of different sizes, by which
    voters would tell them apart.
    """
    ones, others = _by_name(first), _by_name(second)
    shared = sorted(ones.keys() & others.keys())
    if between is not None:
        middles = _by_name(between)
        shared = [name for name in shared if name in middles]
        if not shared:
            raise InputError(f"{between}: no name of a picture is shared by it and both {first} and {second}")
        found = [Pair(name, ones[name], others[name], middles[name]) for name in shared]
    elif shared:
        found = [Pair(name, ones[name], others[name]) for name in shared]
    else:
        found = [Pair(one, ones[one], others[other]) for one, other in zip(sorted(ones), sorted(others), strict=False)]
    for pair in found:
        sizes = [_size(path) for path in (pair.first, pair.second)]
        if sizes[0] != sizes[1]:
            told = " and ".join(f"{wide}x{tall}" for wide, tall in sizes)
            raise InputError(f"{pair.first} and {pair.second} are {told}: voters would tell them apart by their sizes")
    return tuple(found)


def hashes(pairs: Sequence[Pair]) -> dict[str, str]:
    """Of the pictures of each pair, by its name."""
    return {pair.name: _hash([pair.first, pair.second, *([pair.between] if pair.between else [])]) for pair in pairs}


def sheet(poll: Poll, *, voter: int) -> tuple[Question, ...]:
    """All that a voter is asked, in order: a function of the poll and of the voter's number."""
    count = len(poll.pairs)
    asked = _drawn(poll, voter, "order", count=count)[: poll.questions]
    checks = 0 if poll.checks == 0 else max(1, round(poll.checks * len(asked)))
    checked = _drawn(poll, voter, "check", count=count)
    sides: list[tuple[int, Shown, Shown]] = [(pair, "first", "second") for pair in asked]
    for place in range(checks):
        pair = checked[place % count]
        of_first = _number(poll, voter, "whose", place=place) % 2 == 0
        sides.append((pair, "first", "broken first") if of_first else (pair, "second", "broken second"))
    found: list[Question] = []
    for number, place in enumerate(_drawn(poll, voter, "place", count=len(sides))):
        pair, one, other = sides[place]
        turned = _number(poll, voter, "side", place=place) % 2 == 1
        found.append(Question(number, pair, *((other, one) if turned else (one, other))))
    return tuple(found)


def picture(pair: Pair, shown: Shown | Literal["between"]) -> bytes:
    """A picture of a question as a PNG without metadata, which would tell where it comes from."""
    if shown == "between":
        assert pair.between is not None
        return _png(decode(pair.between))
    whole = decode(pair.first if shown.endswith("first") else pair.second)
    return _png(broken(whole) if shown.startswith("broken") else whole)


def broken(whole: Image.Image) -> Image.Image:
    """Its tiles in another order, every other one in its opposite colours: worse in any picture, also of one colour."""
    wide, tall = (max(1, side // TILES) for side in whole.size)
    places = [(x, y) for y in range(0, whole.height, tall) for x in range(0, whole.width, wide)]
    order = sorted(range(len(places)), key=lambda place: hashlib.blake2b(f"tile {place}".encode()).digest())
    found = whole.convert("RGB")
    flat = found.copy()
    for number, (place, other) in enumerate(zip(places, order, strict=True)):
        x, y = places[other]
        tile = flat.crop((x, y, x + wide, y + tall))
        found.paste(ImageOps.invert(tile) if number % 2 else tile, place)
    return found


def _by_name(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of pictures")
    found: dict[str, Path] = {}
    for path in sorted(pictures_in(folder)):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            raise InputError(f"{folder}: {found[name].name} and {path.name} have one name; pictures are paired by it")
        found[name] = path
    if not found:
        raise InputError(f"{folder}: no pictures here")
    return found


def _size(path: Path) -> tuple[int, int]:
    """Width and height, from the header."""
    found = check(path)
    if isinstance(found, str):
        raise InputError(f"{path}: the picture cannot be used ({found})")
    return found


def _png(shown: Image.Image) -> bytes:
    buffer = io.BytesIO()
    Image.frombytes(shown.mode, shown.size, shown.tobytes()).save(buffer, format="PNG")  # without notes of its file
    return buffer.getvalue()


def _hash(paths: Sequence[Path]) -> str:
    whole = hashlib.sha256()
    for path in paths:
        whole.update(hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()[:16]


def _number(poll: Poll, voter: int, purpose: str, *, place: int = 0) -> int:
    digest = hashlib.blake2b(f"{purpose}/{poll.seed}/{voter}/{place}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _drawn(poll: Poll, voter: int, purpose: str, *, count: int) -> list[int]:
    """0 .. count - 1 in an order of this voter's own."""
    return sorted(range(count), key=lambda place: _number(poll, voter, purpose, place=place))
