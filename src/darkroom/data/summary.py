"""What is in a data set, as a plain dict: for `darkroom inspect` and for the plan of a run."""

import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

from darkroom.data.examples import Source


def summary(source: Source) -> dict[str, Any]:
    """Count, sizes, fields, classes with their counts, skipped pictures with reasons; nothing is decoded.

    width, height: {min, median, max} in pixels · captioned: pictures whose caption is not empty, captions: how many
    different ones there are (only with captions) · classes: name -> count (only with labels) · captions_of_a_class: the
    most that one class has (only with both) · objects: {min, median, max} of a picture (only with objects).
    """
    sizes = [source.size(row) for row in range(len(source))]
    result: dict[str, Any] = {
        "name": source.name,
        "count": len(source),
        "fields": sorted(source.fields),
        "width": _range([width for width, _ in sizes]),
        "height": _range([height for _, height in sizes]),
    }
    captions = [source.caption(row) or "" for row in range(len(source))] if "caption" in source.fields else []
    if captions:
        result["captioned"] = sum(map(bool, captions))
        result["captions"] = len(set(filter(None, captions)))
    if "label" in source.fields:
        counts = Counter(source.label(row) for row in range(len(source)))
        result["classes"] = {name: counts[place] for place, name in enumerate(source.classes)}
    if captions and "label" in source.fields:
        pairs = {(source.label(row), caption) for row, caption in enumerate(captions)}
        result["captions_of_a_class"] = max(Counter(label for label, _ in pairs).values())
    if "objects" in source.fields:
        result["objects"] = _range([len(source.objects(row) or ()) for row in range(len(source))])
    if source.categories:
        result["categories"] = list(source.categories)
    if source.map_classes:
        result["map_classes"] = list(source.map_classes)
    result["skipped"] = [{"name": name, "reason": reason} for name, reason in source.skipped]
    return result


def _range(values: Sequence[int]) -> dict[str, int]:
    return {"min": min(values), "median": int(statistics.median(values)), "max": max(values)}
