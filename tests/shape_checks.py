"""Shapes in signatures, checked while tests run: what is checked, and what would only cost time."""

import functools
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType
from typing import Any, no_type_check

from beartype import beartype
from jaxtyping import install_import_hook

HOT = {f"darkroom.scenes.{name}" for name in ("draw", "fit", "outlines")}  # tens of thousands of small calls a picture


def check_shapes(source: Path) -> None:
    """From now on modules below `source` are imported with their shapes checked."""
    install_import_hook(with_shapes(source), "shape_checks.checked")


def with_shapes(source: Path) -> list[str]:
    """Modules whose signatures may have shapes; to check every call of all others would take longer than the tests."""
    files = (path for path in source.rglob("*.py") if re.search("jaxtyping|shapes import", path.read_text("utf-8")))
    return sorted({".".join(path.relative_to(source).with_suffix("").parts) for path in files} - HOT)


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """The typechecker of the import hook: one for signatures that have shapes, none for others."""
    return beartype(function) if has_shapes(function) else function


def has_shapes(function: Callable[..., Any]) -> bool:
    """Does a shape stand in the signature, also within a union, a tuple or a callable?"""
    return "jaxtyping." in str(function.__annotations__)


def leave_the_others() -> None:
    """Two calls in three are of functions without a shape: they are no longer wrapped up to find nothing to check."""
    for function in wrapped():
        if not has_shapes(function):
            no_type_check(function)


def wrapped() -> Iterator[FunctionType]:
    """Functions and methods of the package that stand in a wrapper, as they were written, of what is imported."""
    for name, module in list(sys.modules.items()):
        if name.startswith("darkroom."):
            classes = [each for each in vars(module).values() if inspect.isclass(each) and each.__module__ == name]
            for member in [each for holder in (module, *classes) for each in vars(holder).values()]:
                called = callable_of(member)
                found = inspect.unwrap(called) if callable(called) else None
                if isinstance(found, FunctionType) and found is not called:
                    yield found


def callable_of(member: object) -> object:
    """What is called where a member is used."""
    match member:
        case staticmethod() | classmethod():
            return member.__func__
        case property():
            return member.fget
        case functools.cached_property():
            return member.func
        case _:
            return member
