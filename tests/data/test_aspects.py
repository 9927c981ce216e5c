"""Pictures that keep their aspects: which shapes there are, that batches are of one, that nothing is lost or moved."""

from collections import Counter
from collections.abc import Sequence
from itertools import accumulate, islice, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from picture_folders import annotate, picture
from PIL import Image

from darkroom.conditioning.layout import LayoutTokensSpec
from darkroom.core.errors import SpecError
from darkroom.core.parallel import Share
from darkroom.core.pictures import from_bytes, to_bytes
from darkroom.core.spec import parse
from darkroom.data.aspects import rows_by_shape, shapes_for
from darkroom.data.degrade import BicubicSpec
from darkroom.data.inputs import LowRes, Masked, boxes_drawn, layouts, maps, pictures
from darkroom.data.latents import LatentTables, cache_latents
from darkroom.data.loader import batches, still_batches
from darkroom.data.masks import MasksSpec
from darkroom.data.order import OrderByGroups
from darkroom.data.parts import Subset, subset
from darkroom.data.sources import open_data
from darkroom.data.transforms import Shape, TransformSpec, seen_of, still, transform
from darkroom.data.write_shards import write_shards

SIZES = [(40, 24), (24, 40), (32, 32), (48, 24), (80, 48), (24, 48), (64, 64), (20, 90), (41, 23)]  # width, height
SPEC = TransformSpec(size=32, flip=True, shapes=shapes_for(32, multiple=8, widest=2.0))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of several aspects; each says in its levels where its map has which id, and one of them has a box."""
    folder = tmp_path_factory.mktemp("aspects")
    (folder / "maps").mkdir()
    rows = []
    for number in range(27):
        width, height = SIZES[number % len(SIZES)]
        ids = np.random.default_rng(number).integers(0, 3, (height, width), dtype=np.uint8)
        ids[2:9, 1:5] = 3
        Image.fromarray(np.stack([ids * 80, ids * 40, 255 - ids * 80], 2)).save(folder / f"{number:02}.png")
        Image.fromarray(ids).save(folder / "maps" / f"{number:02}.png")
        objects = {"bbox": [[1, 2, 4, 7]], "categories": ["cell"]}
        names = {"file_name": f"{number:02}.png", "map_file_name": f"maps/{number:02}.png"}
        rows.append({**names, "objects": objects, "caption": f"picture {number}"})
    return annotate(folder, rows)


def test_the_shapes_of_a_size() -> None:
    assert shapes_for(32, multiple=8, widest=2.0) == ((24, 48), (24, 40), (32, 32), (40, 24), (48, 24))
    with pytest.raises(SpecError, match="only the square of 32 fits"):
        shapes_for(32, multiple=32, widest=2.0)
    with pytest.raises(SpecError, match="turn is for squares"):
        parse(TransformSpec, {"size": 32, "turn": True, "shapes": [[24, 40]]}, where="x")


@given(size=st.integers(4, 64), multiple=st.sampled_from([8, 16, 64]), widest=st.floats(1.1, 4))
def test_shapes_fit_the_network_and_the_square(size: int, multiple: int, widest: float) -> None:
    size *= multiple
    try:
        found = shapes_for(size, multiple=multiple, widest=widest)
    except SpecError:
        return
    assert (size, size) in found
    assert set(found) == {(width, height) for height, width in found}
    for height, width in found:
        assert height % multiple == width % multiple == 0
        assert max(height, width) <= widest * min(height, width)
        assert 0.8 <= height * width / size**2 <= 1.2


@given(sides=st.tuples(st.integers(8, 90), st.integers(8, 90)), crop=st.sampled_from(["centre", "random"]))
@settings(max_examples=40, deadline=None)
def test_a_picture_takes_the_shape_most_like_it(sides: tuple[int, int], crop: str) -> None:
    spec = parse(TransformSpec, {**SPEC.plain(), "crop": crop, "scale": (1.0, 1.5)}, where="x")
    image = picture(1, size=sides)
    shape = spec.shape_of(sides)
    assert transform(image, spec, seed=3, index=5).shape == (3, *shape)
    assert still(image, spec).shape == (3, *shape)
    (_, _, across, down), (height, width) = seen_of(sides, shape), shape
    assert max(across, down) == 1
    assert across * sides[0] / (down * sides[1]) == pytest.approx(width / height)


def test_a_picture_of_just_such_a_shape_stays_as_it_is() -> None:
    for width, height in ((40, 24), (24, 48), (32, 32)):
        image = picture(3, size=(width, height))
        assert torch.equal(still(image, SPEC), to_bytes(image))
        assert seen_of((width, height), SPEC.shape_of((width, height))) == (0, 0, 1, 1)


@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    batch=st.integers(1, 12),
    seed=st.integers(0, 9),
)
@settings(max_examples=60, deadline=None)
def test_batches_of_one_group_and_each_row_in_its_turn(counts: list[int], batch: int, seed: int) -> None:
    groups = [range(start, end) for start, end in pairwise(accumulate(counts, initial=0))]
    order, epochs = OrderByGroups(groups, batch_size=batch, seed=seed), 3
    steps = sum(epochs * count // batch for count in counts)
    rows = [order.row(index) for index in range(steps * batch)]
    owner = {row: number for number, group in enumerate(groups) for row in group}
    for start in range(0, len(rows), batch):
        assert len({owner[row] for row in rows[start : start + batch]}) == 1
    seen = Counter(rows)
    for group in groups:
        drawn = epochs * len(group) // batch * batch
        assert sum(seen[row] for row in group) == drawn
        assert {seen[row] for row in group} <= {drawn // len(group), -(-drawn // len(group))}
    anew = OrderByGroups(groups, batch_size=batch, seed=seed)
    for index in reversed(range(len(rows))):  # from wherever a run goes on
        assert anew.row(index) == rows[index]


def shapes_of(folder: Path) -> dict[Shape, Sequence[int]]:
    return rows_by_shape(open_data(folder).train, SPEC)


def test_ranks_and_resumed_runs_see_the_same_batches(folder: Path, tmp_path: Path) -> None:
    train, _ = open_data(folder)
    whole = list(islice(batches(train, SPEC, batch_size=4, seed=3), 20))
    assert {tuple(batch.images.shape[-2:]) for batch in whole} == shapes_of(folder).keys()
    for batch in whole[:6]:
        for image, row, index in zip(batch.images, batch.rows, batch.indices, strict=True):
            assert torch.equal(image, transform(train.example(row).picture, SPEC, seed=3, index=index))
    later = list(islice(batches(train, SPEC, batch_size=4, seed=3, start=28, memory=0), 13))
    halves = [
        list(islice(batches(train, SPEC, batch_size=4, seed=3, start=28, share=Share(each, 2)), 13)) for each in (0, 1)
    ]
    for wanted, found, one, other in zip(whole[7:], later, *halves, strict=True):
        assert found.rows == wanted.rows == one.rows + other.rows
        assert torch.equal(found.images, wanted.images)
        assert torch.equal(torch.cat([one.images, other.images]), wanted.images)
    write_shards(open_data(folder), tmp_path / "shards", samples=5)
    shards, _ = open_data(tmp_path / "shards")
    assert {tuple(batch.images.shape[-2:]) for batch in islice(batches(shards, SPEC, batch_size=4, seed=3), 20)}


def test_every_row_once_without_chance(folder: Path) -> None:
    train, _ = open_data(folder)
    found = list(still_batches(train, SPEC, batch_size=4))
    assert sorted(row for batch in found for row in batch.rows) == list(range(len(train)))
    some = [
        row for batch in still_batches(train, SPEC, batch_size=4, rows=range(0, len(train), 3)) for row in batch.rows
    ]
    assert sorted(some) == list(range(0, len(train), 3))


def test_latents_of_several_shapes_are_one_table(folder: Path, tmp_path: Path) -> None:
    train, _ = open_data(folder)

    def encode(images: torch.Tensor) -> tuple[torch.Tensor, None]:
        return torch.nn.functional.avg_pool2d(images, 4), None

    groups = rows_by_shape(train, SPEC)
    tables = tuple(
        cache_latents(
            encode,
            subset(train, rows),
            spec=SPEC.only(shape),
            batch_size=4,
            folder=tmp_path / str(shape),
            key="x",
            dtype=torch.float32,
        )
        for shape, rows in groups.items()
    )
    whole = LatentTables(tables, tuple(groups.values()))
    assert len(whole) == len(train)
    for rows in groups.values():
        chosen = [rows[-1], rows[0]]
        found = whole.sample(chosen, [50, 51], seed=4)
        for latent, row, index in zip(found, chosen, (50, 51), strict=True):
            sample = from_bytes(transform(train.example(row).picture, SPEC, seed=4, index=index)[None])
            torch.testing.assert_close(latent, encode(sample)[0][0], atol=1e-5, rtol=0)
    every = torch.cat([part.flatten() for table in tables for part in table.mean])
    assert whole.statistics().whole == pytest.approx(float(every.std(correction=0)), rel=1e-5)
    assert whole.statistics().pictures == len(train)


def test_what_steers_shows_what_samples_show(folder: Path) -> None:
    train, _ = open_data(folder)
    scheme = LayoutTokensSpec(categories=1, slots=1, grid=64, crop=False)
    for batch in islice(batches(train, SPEC, batch_size=4, seed=3), 12):
        rows, indices, images = batch.rows, batch.indices, from_bytes(batch.images)
        exact = [row for row in rows if train.size(row) == (images.shape[3], images.shape[2])]
        ids = maps(train, SPEC).take(rows, indices, seed=3)
        assert ids.shape == images.shape[:1] + images.shape[2:]
        drawn = boxes_drawn(train, SPEC, known=1, factor=4).take(rows, indices, seed=3)
        assert drawn.shape[-2:] == (images.shape[2] // 4, images.shape[3] // 4)
        assert layouts(train, SPEC, scheme=scheme).take(rows, indices, seed=3).shape[0] == 4
        low = LowRes(pictures(train, SPEC), BicubicSpec(factor=4), views=SPEC.views).take(rows, indices, seed=3)
        assert low.shape[-2:] == drawn.shape[-2:]
        masked = Masked(pictures(train, SPEC), MasksSpec(), views=SPEC.views).take(rows, indices, seed=3)
        torch.testing.assert_close(masked[:, :3], images)
        for place, row in enumerate(rows):
            if row in exact:
                assert torch.equal(ids[place], (batch.images[place, 0] // 80).long())
                there = (ids[place, 2:9] == 3).float().sum(0).argmax() // 4
                assert drawn[place, 0, :, there].max() > 0


def test_a_subset_of_a_subset_is_one(folder: Path) -> None:
    train, _ = open_data(folder)
    part = subset(subset(train, [5, 3, 9]), [2, 0])
    assert part == Subset(train, (9, 5))
