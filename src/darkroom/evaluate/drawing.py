"""The pictures of a request shared among ranks: each draws and looks at its own, and all get every answer."""

from collections.abc import Callable
from typing import TypeVar

from PIL import Image

from darkroom.core.parallel import of_all, own_rows, world_size
from darkroom.tasks.generate import generate
from darkroom.tasks.model import Model
from darkroom.tasks.request import Request

T = TypeVar("T")


def drawn_by_all(
    model: Model,
    request: Request,
    *,
    batch: int,
    look: Callable[[Image.Image], T],
    on_picture: Callable[[int, int], None] | None,
    before: int = 0,
    of: int | None = None,
) -> list[T]:
    """The answers of a look at each picture of a settled request, in order; batches are those of one process.

    on_picture: called with (pictures done, of), as if other ranks were as far; `before` and `of` when this is a part of
    more.
    """
    own, seen = own_rows(request.total, batch=batch), list[T]()
    for each in generate(model, request, batch=batch, places=own):
        seen.append(look(each.picture))
        if on_picture is not None:
            on_picture(before + min(len(seen) * world_size(), request.total), of or request.total)
    return [each for part in of_all(seen) for each in part]
