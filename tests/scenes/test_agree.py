"""Agreement of objects with objects and with captions; captions parsed are captions described."""

import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darkroom.core.errors import InputError
from darkroom.scenes.agree import agrees, intersection_over_union, obeys
from darkroom.scenes.draw import Scene, draw
from darkroom.scenes.read import read
from darkroom.scenes.vocabulary import COLOURS, RELATIONS, SHAPES, SIZES, SceneObject, describe, parse_caption

CAT = SceneObject("circle", "red", "small", (0.1, 0.1, 0.25, 0.25))
DOG = SceneObject("star", "blue", "large", (0.5, 0.15, 0.4, 0.4))


@functools.cache
def scenes() -> list[Scene]:
    return [draw(41, index) for index in range(100)]


def test_objects_agree_with_themselves_in_any_order():
    for scene in scenes():
        assert agrees(scene.objects, scene.objects[::-1])
        assert not agrees(scene.objects[:-1], scene.objects)
        assert not agrees([*scene.objects, CAT], scene.objects)


@pytest.mark.parametrize(
    "other",
    [
        SceneObject("ring", "red", "small", CAT.box),
        SceneObject("circle", "pink", "small", CAT.box),
        SceneObject("circle", "red", "large", CAT.box),
        SceneObject("circle", "red", "small", (0.16, 0.1, 0.25, 0.25)),
    ],
    ids=["shape", "colour", "size", "box"],
)
def test_every_property_counts(other: SceneObject):
    assert agrees([CAT, DOG], [DOG, CAT])
    assert not agrees([other, DOG], [CAT, DOG])
    assert other.box == CAT.box or agrees([other], [CAT], overlap=0.5)


def test_overlap_of_boxes():
    assert intersection_over_union(CAT.box, CAT.box) == pytest.approx(1)
    assert intersection_over_union((0.0, 0.0, 0.5, 0.5), (0.25, 0.0, 0.5, 0.5)) == pytest.approx(1 / 3)
    assert intersection_over_union((0.0, 0.0, 0.2, 0.2), (0.5, 0.5, 0.2, 0.2)) == 0


def test_scenes_obey_their_own_captions_and_hardly_any_other():
    found = [read(scene.image) for scene in scenes()]
    assert all(obeys(things, scene.caption) for things, scene in zip(found, scenes(), strict=True))
    others = scenes()[1:] + scenes()[:1]
    assert not any(agrees(things, scene.objects) for things, scene in zip(found, others, strict=True))
    assert sum(obeys(things, scene.caption) for things, scene in zip(found, others, strict=True)) <= 1


@pytest.mark.parametrize(
    ("caption", "true"),
    [
        ("a red circle left of a blue star", True),
        ("a small red circle left of a large blue star", True),
        ("a blue star right of a red circle", True),
        ("a large red circle left of a blue star", False),
        ("a red circle right of a blue star", False),
        ("a red circle above a blue star", False),
        ("a red circle", False),
        ("a red circle left of a red circle", False),
        ("a red circle left of a blue star left of a blue star", False),
    ],
)
def test_what_a_caption_claims(caption: str, true: bool):
    assert obeys([CAT, DOG], caption) == true


def test_objects_that_go_unnamed_must_be_allowed():
    assert not obeys([CAT, DOG], "a red circle")
    assert obeys([CAT, DOG], "a red circle", unnamed=1)
    assert not obeys([], "a red circle", unnamed=1)


def test_larger_canvases_obey_with_objects_unnamed():
    scene = draw(41, 0, size=128)
    assert obeys(read(scene.image), scene.caption, unnamed=len(scene.objects) - 3)


@given(
    things=st.lists(
        st.builds(
            SceneObject,
            st.sampled_from(SHAPES),
            st.sampled_from(COLOURS),
            st.sampled_from(SIZES),
            st.tuples(*[st.floats(0, 1)] * 4),
        ),
        min_size=1,
        max_size=3,
    ),
    sized=st.lists(st.booleans(), min_size=3, max_size=3),
)
@settings(max_examples=60, deadline=None)
def test_a_caption_says_what_was_described(things: list[SceneObject], sized: list[bool]):
    caption = describe(things, sized=sized[: len(things)])
    claim = parse_caption(caption)
    assert [(said.shape, said.colour) for said in claim.things] == [(thing.shape, thing.colour) for thing in things]
    assert [said.size for said in claim.things] == [
        thing.size if said else None for thing, said in zip(things, sized, strict=False)
    ]
    assert len(claim.relations) == len(things) - 1
    assert set(claim.relations) <= set(RELATIONS)
    assert obeys(things, caption)


@pytest.mark.parametrize(
    "caption",
    [
        "",
        "red circle",
        "a circle",
        "a red cat",
        "a Red circle",
        "a red circle on a blue star",
        "a red circle above",
        "a red circle above a blue star below",
        " above ".join(["a red circle"] * 4),
        "a red circle\n",
    ],
)
def test_captions_outside_the_grammar_are_refused(caption: str):
    with pytest.raises(InputError, match="not in the words of `shapes`"):
        obeys([CAT], caption)
