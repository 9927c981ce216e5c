"""Does what was read agree with what was wanted: object by object, or with a caption."""

from collections.abc import Sequence
from itertools import permutations
from typing import TypeVar

from darkroom.scenes.vocabulary import Box, Claim, SceneObject, parse_caption, relation

K = TypeVar("K")


def agrees(found: Sequence[SceneObject], wanted: Sequence[SceneObject], *, overlap: float = 0.8) -> bool:
    """Are these the same objects, one to one: shape, colour and size equal, boxes with an IoU of at least `overlap`?

    Boxes of one scene do not overlap each other, so the first partner that fits is the only one.
    """
    rest = list(found)
    for thing in wanted:
        partner = next((other for other in rest if _same(thing, other, overlap=overlap)), None)
        if partner is None:
            return False
        rest.remove(partner)
    return not rest


def obeys(found: Sequence[SceneObject], caption: str, *, unnamed: int = 0) -> bool:
    """Is the caption true of these objects: all it names are there, sized and related as it says?

    unnamed: so many further objects may be there, as on larger canvases, whose captions name only three · raises
    `InputError` for a caption outside the grammar.
    """
    claim = parse_caption(caption)
    if not 0 <= len(found) - len(claim.things) <= unnamed:
        return False
    return any(_holds(claim, chosen) for chosen in permutations(found, len(claim.things)))


def shows(found: Sequence[SceneObject], caption: str) -> bool:
    """Are these the objects that the caption names, and no others, wherever they lie?"""
    claim = parse_caption(caption)
    anywhere = Claim(claim.things, ())
    return len(found) == len(claim.things) and any(_holds(anywhere, chosen) for chosen in permutations(found))


def intersection_over_union(first: Box, second: Box) -> float:
    """Shared area of two boxes over the area of both, 0..1."""
    across = min(first[0] + first[2], second[0] + second[2]) - max(first[0], second[0])
    down = min(first[1] + first[3], second[1] + second[3]) - max(first[1], second[1])
    shared = max(across, 0.0) * max(down, 0.0)
    both = first[2] * first[3] + second[2] * second[3] - shared
    return shared / both if both > 0 else 0.0


def best_overlap(found: Sequence[tuple[K, Box]], *, kind: K, box: Box) -> tuple[bool, float]:
    """Is what overlaps this box most of its kind, and by how much does it overlap (False and 0 for none)?"""
    overlaps = [(intersection_over_union(box, other), kind == what) for what, other in found]
    overlap, right = max(overlaps, default=(0.0, False))
    return (right, overlap) if overlap > 0 else (False, 0.0)


def _same(one: SceneObject, other: SceneObject, *, overlap: float) -> bool:
    alike = (one.shape, one.colour, one.size) == (other.shape, other.colour, other.size)
    return alike and intersection_over_union(one.box, other.box) >= overlap


def _holds(claim: Claim, chosen: Sequence[SceneObject]) -> bool:
    """Is the claim true when its things are these objects, in this order?"""
    kinds = all(
        (thing.shape, thing.colour) == (said.shape, said.colour) and said.size in (None, thing.size)
        for said, thing in zip(claim.things, chosen, strict=True)
    )
    places = zip(claim.relations, chosen, chosen[1:], strict=False)
    return kinds and all(relation(first.box, second.box) == word for word, first, second in places)
