"""The measurable part of the house style. No single figure tells good code from bad: these go together."""

import ast
import functools
import re
import subprocess
from pathlib import Path

import pytest

Function = ast.FunctionDef | ast.AsyncFunctionDef

LINES_OF_A_FILE = 400
LINES_OF_A_FUNCTION = 30
# Spelt in pieces, so that this file does not find itself.
MACHINE_PATHS = [f"/{place}/".encode() for place in ("work", "root", "home")]
UNFINISHED = re.compile("|".join(["TO" + "DO", "FIX" + "ME", "X" * 3]))
TEXT = {".py", ".md", ".toml", ".txt", ".yaml", ".yml", ".json", ".cfg", ""}


def sources(root: Path) -> list[Path]:
    return sorted((root / "src").rglob("*.py"))


def files_of_tests(root: Path) -> list[Path]:
    return sorted((root / "tests").rglob("*.py"))


def kept(root: Path) -> list[Path]:
    """Files that belong to the project: known to git, or about to be; without git, the folders we keep."""
    asked = ["git", "-C", str(root), "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()
        paths = [root / name for name in listed]
    except (OSError, subprocess.CalledProcessError):
        folders = [root / name for name in ("src", "tests", "docs", ".ci")]
        paths = [*root.glob("*"), *(path for folder in folders for path in folder.rglob("*"))]
        paths = [path for path in paths if "__pycache__" not in path.parts]
    return [path for path in paths if path.is_file()]


@functools.cache
def functions(tree: ast.AST) -> tuple[Function, ...]:
    return tuple(node for node in ast.walk(tree) if isinstance(node, Function))


def positional(function: Function) -> list[str]:
    """Arguments that may be given by place, self and cls left out."""
    names = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
    return names[1:] if names[:1] in (["self"], ["cls"]) else names


def too_many_places(tree: ast.AST) -> list[str]:
    """Functions with more than two positional arguments.

    `forward` and `network` (the contract `(x_t, t, conditions)`), operators and functions made inside another function
    follow the contract of whoever calls them. A private helper, read beside its only callers, may take one more.
    """
    inner = {each for outer in functions(tree) for each in functions(outer) if each is not outer}
    return [
        f"{function.name} takes {len(positional(function))} arguments by place"
        for function in functions(tree)
        if len(positional(function)) > (3 if function.name.startswith("_") else 2)
        and function not in inner
        and function.name not in ("forward", "network")
        and not function.name.startswith("__")
    ]


def habits(tree: ast.AST) -> list[str]:
    """`**kwargs` in a signature, `hasattr`, and torchvision."""
    found = [f"{each.name} takes **{each.args.kwarg.arg}" for each in functions(tree) if each.args.kwarg]
    for node in ast.walk(tree):
        match node:
            case ast.Name(id="hasattr"):
                found.append(f"hasattr in line {node.lineno}")
            case ast.Import(names=aliases) if any(a.name.startswith("torchvision") for a in aliases):
                found.append(f"torchvision in line {node.lineno}")
            case ast.ImportFrom(module=str(module)) if module.startswith("torchvision"):
                found.append(f"torchvision in line {node.lineno}")
            case _:
                pass
    return found


def length(function: Function) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def test_two_positional_arguments_at_most(root: Path) -> None:
    package = root / "src" / "darkroom"
    wrong = [f"{path.relative_to(package)}: {each}" for path in sources(root) for each in too_many_places(parsed(path))]
    assert not wrong, "\n".join(wrong)


def test_no_travelling_keywords_no_hasattr_no_torchvision(root: Path) -> None:
    wrong = [f"{path.relative_to(root)}: {each}" for path in sources(root) for each in habits(parsed(path))]
    assert not wrong, "\n".join(wrong)


def test_torchvision_is_nowhere_required(root: Path) -> None:
    wanted = [(root / name).read_text(encoding="utf-8") for name in ("pyproject.toml", "constraints.txt")]
    assert not any("torchvision" in text for text in wanted)


def test_a_file_is_a_sitting(root: Path) -> None:
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in sources(root) + files_of_tests(root)}
    long = [f"{path.relative_to(root)}: {count}" for path, count in lines.items() if count >= LINES_OF_A_FILE]
    assert not long, "\n".join(long)


def test_nine_functions_in_ten_fit_a_glance(root: Path) -> None:
    lengths = [length(each) for path in sources(root) for each in functions(parsed(path))]
    short = sum(lines < LINES_OF_A_FUNCTION for lines in lengths)
    assert short >= 0.9 * len(lengths), f"{short} of {len(lengths)} functions are short"


def test_no_path_of_a_machine(root: Path) -> None:
    wrong = [
        f"{path.relative_to(root)}: {place.decode()}"
        for path in kept(root)
        for place in MACHINE_PATHS
        if place in path.read_bytes()
    ]
    assert not wrong, "\n".join(wrong)


def test_nothing_is_left_for_later(root: Path) -> None:
    texts = [path for path in kept(root) if path.suffix in TEXT and path.name != "LICENSE"]
    wrong = [path.name for path in texts if UNFINISHED.search(path.read_text(encoding="utf-8"))]
    assert not wrong


@pytest.mark.parametrize(
    ("source", "complaints"),
    [
        ("def f(a, b, c): ...", 1),
        ("def f(a, b, *, c): ...", 0),
        ("class A:\n    def f(self, a, b): ...\n    def forward(self, a, b, c): ...", 0),
        ("class A:\n    def __exit__(self, a, b, c): ...\n    def g(self, a, b, c): ...", 1),
        ("def f(a, /, b, c=1): ...", 1),
        ("def f(a):\n    def g(b, c, d): ...", 0),
    ],
)
def test_the_counter_of_places(source: str, complaints: int) -> None:
    assert len(too_many_places(ast.parse(source))) == complaints


@pytest.mark.parametrize(
    ("source", "complaints"),
    [
        ("def f(**kwargs): ...", 1),
        ("f(**values)", 0),
        ("hasattr(a, 'b')", 1),
        ("import torchvision.ops", 1),
        ("def f():\n    from torchvision.transforms import v2", 1),
        ("from . import torch", 0),
    ],
)
def test_the_finder_of_habits(source: str, complaints: int) -> None:
    assert len(habits(ast.parse(source))) == complaints


def test_no_two_files_of_tests_have_one_name(root: Path) -> None:
    """Pytest imports them without their folders."""
    names = [path.name for path in files_of_tests(root) if path.name != "conftest.py"]
    assert sorted(names) == sorted(set(names))
