"""The inverse of `layout_ids`, for tests alone."""

from jaxtyping import Int
from torch import Tensor

from darkroom.conditioning.layout import LayoutTokensSpec


def layout_boxes(ids: Int[Tensor, " l"], *, scheme: LayoutTokensSpec) -> list[tuple[int, tuple[float, ...]]]:
    """(category, box) of each object that the ids (l,) name: boxes as exact as the grid is fine."""
    found: list[tuple[int, tuple[float, ...]]] = []
    for category, first, last in ids[: 3 * scheme.slots].unflatten(0, (-1, 3)).tolist():
        if category == scheme.filler:
            continue
        (top, left), (bottom, right) = divmod(first, scheme.grid), divmod(last, scheme.grid)
        steps = scheme.grid - 1
        found.append((category, (left / steps, top / steps, (right - left) / steps, (bottom - top) / steps)))
    return found
