"""What is in a data set, as a plain dict: for `darkroom inspect` and for the plan of a run."""

from collections.abc import Callable, Iterable
from typing import Any, Final

import numpy as np
from jaxtyping import Int64

from darkroom.data.examples import Source

_EMPTY: Final = 0  # the hash of no text
Numbers = Int64[np.ndarray, "_n"]


def summary(source: Source) -> dict[str, Any]:
    """Count, sizes, fields, classes with their counts, pictures left out with reasons; nothing is decoded.

    width, height: {min, median, max} in pixels · captioned: pictures whose caption is not empty, captions: how many
    different ones there are (only with captions) · classes: name -> count (only with labels) · captions_of_a_class: the
    most that one class has (only with both) · objects: {min, median, max} of a picture (only with objects).
    """
    sides = _numbers(source, source.size, each=2)
    result: dict[str, Any] = {
        "name": source.name,
        "count": len(source),
        "fields": sorted(source.fields),
        "width": _range(sides[:, 0]),
        "height": _range(sides[:, 1]),
    }
    captions = _captions(source) if "caption" in source.fields and len(source) else None
    if captions is not None:
        there = captions[captions != _EMPTY]
        result["captioned"] = len(there)
        result["captions"] = len(np.unique(there))
    if "label" in source.fields:
        labels = _numbers(source, lambda row: [_label(source, row)])[:, 0]
        counts = np.bincount(labels, minlength=len(source.classes))
        result["classes"] = {name: int(counts[place]) for place, name in enumerate(source.classes)}
        if captions is not None:
            pairs = np.unique(np.stack([labels, captions], axis=1), axis=0)
            result["captions_of_a_class"] = int(np.bincount(pairs[:, 0]).max())
    if "objects" in source.fields:
        result["objects"] = _range(_numbers(source, lambda row: [len(source.objects(row) or ())])[:, 0])
    if source.categories:
        result["categories"] = list(source.categories)
    if source.map_classes:
        result["map_classes"] = list(source.map_classes)
    result["left_out"] = [{"name": name, "reason": reason} for name, reason in source.left_out]
    return result


def _range(values: Numbers) -> dict[str, int]:
    return {"min": int(values.min()), "median": int(np.median(values)), "max": int(values.max())}


def _numbers(source: Source, of: Callable[[int], Iterable[int]], *, each: int = 1) -> Int64[np.ndarray, "_n _each"]:
    """So many numbers of each row."""
    found = (value for row in range(len(source)) for value in of(row))
    return np.fromiter(found, np.int64, each * len(source)).reshape(len(source), each)


def _captions(source: Source) -> Numbers:
    """A number for each row's caption, equal for equal ones."""
    texts = (source.caption(row) or "" for row in range(len(source)))
    return np.fromiter((hash(text) if text else _EMPTY for text in texts), np.int64, len(source))


def _label(source: Source, row: int) -> int:
    label = source.label(row)
    return 0 if label is None else label
