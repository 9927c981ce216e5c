"""What a stranger's file says, as a spec."""

from typing import TypeVar

from darkroom.core.errors import ModelFileError, SpecError
from darkroom.core.spec import Spec, parse

S = TypeVar("S", bound=Spec)


def parsed(kind: type[S], values: object, *, where: str) -> S:
    """A spec from plain values; `ModelFileError` names the unknown or missing key, or what came and what fits."""
    try:
        return parse(kind, values, where=where)
    except SpecError as error:
        raise ModelFileError(str(error)) from None
