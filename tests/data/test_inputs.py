"""What steers a sample shows what its latent shows: the same square, mirrored when that is."""

import json
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from darkroom.conditioning.layout import LayoutTokensSpec
from darkroom.core.errors import DataError, InputError
from darkroom.core.names import numbers_of
from darkroom.core.pictures import from_bytes
from darkroom.data.degrade import BicubicSpec
from darkroom.data.inputs import (
    Fixed,
    Kept,
    LowRes,
    Masked,
    boxes_drawn,
    check_maps,
    highest_id,
    layouts,
    maps,
    pictures,
    seen_things,
)
from darkroom.data.latents import LatentTable
from darkroom.data.loader import still_batches
from darkroom.data.masks import MasksSpec
from darkroom.data.sources import ShapesSource, open_data
from darkroom.data.transforms import TransformSpec, mirrored
from read_layout import layout_boxes

SOURCE = ShapesSource(count=6)
SPEC = TransformSpec(size=64, flip=True)
SCHEME = LayoutTokensSpec(categories=8, slots=3, grid=64, crop=False)
ROWS, INDICES = [0, 3, 5, 5], [20, 21, 22, 23]
TURNED = mirrored(seed=7, indices=INDICES).tolist()


def test_both_ways_round_are_drawn() -> None:
    assert set(TURNED) == {True, False}


def test_pictures_that_do_not_fit_into_memory_are_made_several_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = LowRes(pictures(SOURCE, SPEC), BicubicSpec(factor=4)).take(ROWS, INDICES, seed=7)
    monkeypatch.setattr("darkroom.data.inputs.MEMORY", 1)
    anew = pictures(SOURCE, SPEC)
    assert anew.shelf is None
    assert torch.equal(LowRes(anew, BicubicSpec(factor=4)).take(ROWS, INDICES, seed=7), plain)
    together = threading.Barrier(2, timeout=60)

    def make(row: int) -> torch.Tensor:
        together.wait()
        return torch.tensor(row)

    assert Kept(make, None, threads=2).rows([4, 2, 9, 7]) == [4, 2, 9, 7]


def test_fixed_values_by_row() -> None:
    values = torch.arange(12).reshape(6, 2)
    assert Fixed(values).take(ROWS, INDICES, seed=7).tolist() == values[ROWS].tolist()


def test_layouts_follow_the_mirror_and_are_shuffled() -> None:
    ids = layouts(SOURCE, SPEC, scheme=SCHEME).take(ROWS, INDICES, seed=7)
    for row, turned, each in zip(ROWS, TURNED, ids, strict=True):
        scene = SOURCE.example(row)
        assert scene.objects is not None
        wanted = sorted((thing.category, *thing.box) for thing in scene.objects)
        if turned:
            wanted = sorted((category, 1 - x - width, y, width, height) for category, x, y, width, height in wanted)
        found = sorted((category, *box) for category, box in layout_boxes(each, scheme=SCHEME))
        np.testing.assert_allclose(found, wanted, atol=1.01 / 63)
    many = layouts(SOURCE, SPEC, scheme=SCHEME).take([5] * 40, list(range(40)), seed=7)
    assert len({tuple(each[0::3].tolist()) for each in many}) > 1


def test_maps_lie_on_the_pictures() -> None:
    ids = maps(SOURCE, SPEC).take(ROWS, INDICES, seed=7)
    for row, turned, each in zip(ROWS, TURNED, ids, strict=True):
        wanted = SOURCE.example(row).map
        assert wanted is not None
        assert np.array_equal(each.numpy(), wanted[:, ::-1] if turned else wanted)
    moved = maps(SOURCE, SPEC, numbers=[0, *range(2, 10)]).take([3], [21], seed=7)
    assert torch.equal(moved, torch.where(ids[1:2] > 0, ids[1:2] + 1, 0))


def test_ids_beyond_the_classes_are_named() -> None:
    check_maps(SOURCE, classes=9)
    highest = highest_id(SOURCE)
    with pytest.raises(DataError, match=f"there are {highest} classes"):
        check_maps(SOURCE, classes=highest)


def test_ids_of_sixteen_bits_stay_what_they_are(tmp_path: Path) -> None:
    for name in ("a", "b"):
        Image.new("RGB", (40, 20)).save(tmp_path / f"{name}.png")
        Image.fromarray(np.full((20, 40), 300, np.uint16)).save(tmp_path / f"{name}-map.png")
    rows = [{"file_name": f"{name}.png", "map_file_name": f"{name}-map.png"} for name in ("a", "b")]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    train, _ = open_data(tmp_path)
    assert highest_id(train) == 300
    assert maps(train, TransformSpec(size=16)).take([0], [0], seed=0).unique().tolist() == [300]


def test_categories_take_the_numbers_of_a_model() -> None:
    known = ["new", *SOURCE.categories]
    numbers = numbers_of(SOURCE.categories, known, what="category")
    scheme = SCHEME.model_copy(update={"categories": 9})
    ids = layouts(SOURCE, SPEC, scheme=scheme, numbers=numbers).take([3], [21], seed=7)
    plain = layouts(SOURCE, SPEC, scheme=scheme).take([3], [21], seed=7)
    kept = plain[0, 0::3] != scheme.filler
    assert torch.equal(ids[0, 0::3][kept], plain[0, 0::3][kept] + 1)
    with pytest.raises(InputError, match="unknown category 'circle'"):
        numbers_of(SOURCE.categories, ["star"], what="category")


def test_every_view_shows_the_same_of_picture_map_and_boxes() -> None:
    """Boxes land where what they hold lands, and what steers is drawn in the view of the latent."""
    spec = SPEC.model_copy(update={"turn": True})
    assert len(set(spec.views.drawn(range(64), seed=7))) == len(spec.views.each) == 8
    image = torch.zeros(1, 16, 16)
    image[0, 2:5, 8:14] = 1
    for view in spec.views.each:
        left, top, width, height = (round(16 * side) for side in view.of_box((8 / 16, 2 / 16, 6 / 16, 3 / 16)))
        ink = torch.zeros(1, 16, 16)
        ink[0, top : top + height, left : left + width] = 1
        assert torch.equal(view.of(image), ink)
    kept = pictures(SOURCE, spec)
    masked = Masked(kept, MasksSpec(), views=spec.views).take(ROWS, INDICES, seed=7)[:, :3]
    seen = [from_bytes(torch.stack([view.of(kept(row)) for row in range(6)])) for view in spec.views.each]
    table = LatentTable([torch.stack(seen, 1)], None, "key", spec.views)
    assert torch.equal(table.sample(ROWS, INDICES, seed=7), masked)
    ids = layouts(SOURCE, spec, scheme=SCHEME).take(ROWS, INDICES, seed=7)
    for row, number, each in zip(ROWS, spec.views.drawn(INDICES, seed=7), ids, strict=True):
        turned = [spec.views.each[number].of_box(thing.box) for thing in SOURCE.objects(row) or ()]
        found = sorted(box for _, box in layout_boxes(each, scheme=SCHEME))
        np.testing.assert_allclose(found, sorted(turned), atol=1.01 / 63)
    drawn = boxes_drawn(SOURCE, spec, known=8, factor=4).take(ROWS, INDICES, seed=7)
    plain = boxes_drawn(SOURCE, TransformSpec(size=64), known=8, factor=4).take(ROWS, INDICES, seed=7)
    torch.testing.assert_close(drawn, spec.views.taken(plain, INDICES, seed=7))


def test_low_resolution_and_masked_pictures_show_the_picture() -> None:
    plain = next(still_batches(SOURCE, SPEC, batch_size=6)).images
    wanted = torch.stack(
        [plain[row].flip(-1) if turned else plain[row] for row, turned in zip(ROWS, TURNED, strict=True)]
    )
    small = LowRes(pictures(SOURCE, SPEC), BicubicSpec(factor=4), views=SPEC.views).take(ROWS, INDICES, seed=7)
    assert small.shape == (4, 3, 16, 16)
    means = torch.nn.functional.avg_pool2d(from_bytes(wanted), 4)
    assert float((small - means).abs().mean()) < 0.05
    masked = Masked(pictures(SOURCE, SPEC), MasksSpec(), views=SPEC.views).take(ROWS, INDICES, seed=7)
    assert torch.equal(masked[:, :3], from_bytes(wanted))
    assert set(masked[:, 3].unique().tolist()) == {0.0, 1.0}


def folder(place: Path) -> Path:
    """One wide picture of 80 x 40 with a box left of the centre square, one across its edge, and one inside."""
    Image.new("RGB", (80, 40), (90, 90, 90)).save(place / "a.png")
    Image.new("RGB", (40, 40), (90, 90, 90)).save(place / "b.png")
    boxes = {"bbox": [[0, 0, 10, 10], [10, 10, 20, 20], [40, 20, 20, 10]], "categories": ["x", "y", "z"]}
    rows = [{"file_name": "a.png", "objects": boxes}, {"file_name": "b.png", "objects": {"bbox": [], "categories": []}}]
    (place / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return place


def test_boxes_are_cut_to_the_square_that_is_seen(tmp_path: Path) -> None:
    train, test = open_data(folder(tmp_path))
    source = train if "a.png" in train.example(0).name else test
    seen = seen_things(source, 0)
    assert [source.categories[each.category] for each in seen] == ["y", "z"]
    np.testing.assert_allclose([each.box for each in seen], [(0, 0.25, 0.25, 0.5), (0.5, 0.5, 0.5, 0.25)])
    told = layouts(source, TransformSpec(size=16), scheme=SCHEME.model_copy(update={"crop": True, "categories": 3}))
    assert told.crops[0] == (0.25, 0.0, 0.5, 1.0)
    assert told.things[0][0].box == (0.125, 0.25, 0.25, 0.5)
