"""The house: arrows only point down, and rooms on one floor never import each other. Every import is read."""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

import darkroom

FLOORS = {
    "cli": 10,
    "studio": 9,
    "serve": 8,
    "studies": 8,
    "recipes": 7,
    "train": 6,
    "evaluate": 6,
    "tasks": 5,
    "data": 4,
    "checkpoint": 4,
    "metrics": 4,
    "diffusion": 3,
    "autoencoder": 2,
    "network": 2,
    "conditioning": 2,
    "process": 1,
    "nn": 1,
    "scenes": 1,
    "pages": 1,
    "core": 0,
}
NEVER_FROM_SERVE = {"train", "evaluate", "recipes", "studies"}
PACKAGE = Path(darkroom.__file__).parent


def names_imported(tree: ast.AST, *, package: str) -> Iterator[str]:
    """Dotted names of this package that a module imports anywhere, also inside functions and by string."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=aliases):
                yield from (alias.name for alias in aliases)
            case ast.ImportFrom(module=module, names=aliases, level=level):
                above = package.split(".")[: len(package.split(".")) - level + 1] if level else []
                base = ".".join([*above, *([module] if module else [])])
                yield from (f"{base}.{alias.name}" for alias in aliases)
            case ast.Call(func=ast.Name(id="import_module") | ast.Attribute(attr="import_module"), args=args):
                yield from (a.value for a in args if isinstance(a, ast.Constant) and isinstance(a.value, str))
            case _:
                pass


def rooms_entered(tree: ast.AST, *, package: str) -> set[str]:
    """Rooms that a module imports from; a public name counts as the room where it lives."""
    rooms: set[str] = set()
    for name in names_imported(tree, package=package):
        top, _, rest = name.partition(".")
        if top != "darkroom":
            continue
        first = rest.partition(".")[0]
        home = darkroom._HOMES.get(first)
        rooms.add(home.split(".")[1] if home else first)
    return rooms - {"__version__"}


def offences(room: str, *, entered: set[str]) -> list[str]:
    """One sentence for each import that does not point down."""
    wrong: list[str] = []
    for other in sorted(entered - {room}):
        if other not in FLOORS:
            wrong.append(f"{room} imports {other or 'the whole package'!r}, which is no room")
        elif FLOORS[other] > FLOORS[room]:
            wrong.append(f"{room} (floor {FLOORS[room]}) imports {other} (floor {FLOORS[other]}), upwards")
        elif FLOORS[other] == FLOORS[room]:
            wrong.append(f"{room} imports {other}, its neighbour on floor {FLOORS[room]}")
    return wrong


def modules() -> list[Path]:
    """Every module that stands in a room; the package's own `__init__` only names homes."""
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@functools.cache
def read(path: Path) -> tuple[str, set[str]]:
    """The room of a module, and the rooms it enters."""
    parts = path.relative_to(PACKAGE).parts
    package = ".".join(["darkroom", *parts[:-1]])
    return parts[0], rooms_entered(ast.parse(path.read_text(encoding="utf-8")), package=package)


def test_every_module_stands_in_a_room() -> None:
    astray = [path.name for path in modules() if path.relative_to(PACKAGE).parts[0] not in FLOORS]
    assert not astray


def test_arrows_only_point_down() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)}: {sentence}"
        for path in modules()
        for room, entered in [read(path)]
        for sentence in offences(room, entered=entered)
    ]
    assert not wrong, "\n".join(wrong)


def test_serving_never_reaches_training() -> None:
    arrows: dict[str, set[str]] = {room: set() for room in FLOORS}
    for path in modules():
        room, entered = read(path)
        arrows[room] |= entered & FLOORS.keys()
    assert not (reach("serve", arrows=arrows) | reach("studio", arrows=arrows)) & NEVER_FROM_SERVE


def reach(start: str, *, arrows: dict[str, set[str]]) -> set[str]:
    """All rooms that can be come to from one."""
    seen: set[str] = set()
    ahead = [start]
    while ahead:
        room = ahead.pop()
        ahead += arrows.get(room, set()) - seen
        seen |= arrows.get(room, set())
    return seen


@pytest.mark.parametrize(
    ("room", "source", "complaint"),
    [
        ("process", "import darkroom.diffusion.walk", "upwards"),
        ("network", "def f():\n    from darkroom.conditioning.text import Text", "neighbour"),
        ("network", "from ..tasks import load", "upwards"),
        ("core", "from importlib import import_module\nimport_module('darkroom.nn.embed')", "upwards"),
        ("diffusion", "from darkroom import load", "upwards"),
        ("diffusion", "import darkroom", "no room"),
        ("diffusion", "from darkroom.network.unet import UNet\nfrom .walk import walk", None),
    ],
)
def test_the_reader_of_imports_sees_them_all(room: str, source: str, complaint: str | None) -> None:
    entered = rooms_entered(ast.parse(source), package=f"darkroom.{room}")
    found = offences(room, entered=entered)
    assert [complaint in sentence for sentence in found] == ([True] if complaint else [])


def test_reach_follows_more_than_one_arrow() -> None:
    assert reach("serve", arrows={"serve": {"tasks"}, "tasks": {"train"}}) == {"tasks", "train"}
