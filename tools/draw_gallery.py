"""The pictures of docs/gallery.md, drawn by the built-in models from scenes that nobody trains on.

    python tools/draw_gallery.py                       # all of them
    python tools/draw_gallery.py class inpainting      # these
    python tools/draw_gallery.py layout --runs runs    # with runs/shapes-layout, if it is there, not the built-in model

`super-resolution` also shows a model that is not built in: runs/shapes-regression.

Nothing is picked out: the first scenes of the series that the tests of obedience use, seed 0.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

import darkroom
from darkroom.core.errors import DarkroomError
from darkroom.core.pictures import contact_sheet, from_bytes, save_png, to_bytes, to_pictures
from darkroom.core.spec import parse
from darkroom.data.masks import MasksSpec, draw_masks
from darkroom.data.sources import ShapesSource
from darkroom.data.transforms import TransformSpec
from darkroom.evaluate.obedience import SEED
from darkroom.metrics.fill import mean_fill, telea_fill
from darkroom.recipes.report.conditions import layout_picture, map_picture, masked_picture
from darkroom.scenes.draw import draw
from darkroom.tasks.held_out import Spoiling, asked_of
from darkroom.tasks.input_picture import InputPicture, input_picture
from darkroom.tasks.model import Model

FOLDER = Path(__file__).parent.parent / "docs" / "pictures" / "gallery"
SIDE, COUNT = 64, 8
SCENES = ShapesSource(SEED, side=SIDE, count=COUNT)
Rows = list[Sequence[Image.Image]]
Open = Callable[[str], Model]


def scenes() -> list[Image.Image]:
    """The scenes themselves."""
    return [SCENES.example(row).picture for row in range(COUNT)]


def asked(model: Model, **spoiling: object) -> dict[str, Any]:
    """What the scenes would be asked for."""
    transform = parse(TransformSpec, {"size": SIDE}, where="the gallery")
    return asked_of(
        model, SCENES, rows=range(COUNT), transform=transform, spoiling=parse(Spoiling, spoiling, where="the gallery")
    )


def opened(pictures: Sequence[InputPicture]) -> list[Image.Image]:
    """As PIL pictures."""
    return [each.picture for each in pictures]


def larger(pictures: Sequence[Image.Image], way: Image.Resampling) -> list[Image.Image]:
    """Enlarged without a model."""
    return [each.resize((SIDE, SIDE), way) for each in pictures]


def unconditional(model: Open) -> Rows:
    """Two rows of what the text model draws when nothing is said."""
    drawn = model("shapes").sample("", count=2 * COUNT)
    return [drawn[:COUNT], drawn[COUNT:]]


def classes(model: Open) -> Rows:
    """A column of each class."""
    named = model("shapes-class")
    return [named.sample(label=list(named.classes), first=first) for first in (0, COUNT)]


def layouts(model: Open) -> Rows:
    """Boxes, and two pictures of each."""
    boxed = model("shapes-layout")
    wanted = asked(boxed)["layouts"]
    boxes = [layout_picture(each, size=(SIDE, SIDE)) for each in wanted]
    return [boxes, *(boxed.sample(layout=wanted, first=first) for first in (0, COUNT))]


def maps(model: Open) -> Rows:
    """Maps, and two pictures of each."""
    mapped = model("shapes-semantic")
    wanted = asked(mapped)["maps"]
    coloured = [map_picture(each, size=(SIDE, SIDE)) for each in wanted]
    return [coloured, *(mapped.sample(map=opened(wanted), first=first) for first in (0, COUNT))]


def enlarged(model: Open) -> Rows:
    """What is enlarged; bicubic, regression and diffusion; the scene."""
    sharp, mean = model("shapes-superres"), model("shapes-regression")
    small = opened(asked(sharp)["low_res"])
    return [
        larger(small, Image.Resampling.NEAREST),
        larger(small, Image.Resampling.BICUBIC),
        mean.sample(low_res=small),
        sharp.sample(low_res=small),
        scenes(),
    ]


def inpainted(model: Open) -> Rows:
    """Holes; mean and Telea's fill; two pictures of each; the scene."""
    painter = model("shapes-inpaint")
    wanted = asked(painter)
    images, masks = wanted["images"], wanted["masks"]
    whole = torch.cat([from_bytes(to_bytes(each.picture, 3)[None]) for each in images])
    ink = torch.cat([each.ink((SIDE, SIDE)) for each in masks])
    return [
        [masked_picture(*pair, size=(SIDE, SIDE)) for pair in zip(images, masks, strict=True)],
        to_pictures(mean_fill(whole, ink)),
        to_pictures(telea_fill(whole, ink)),
        *(painter.sample(image=opened(images), mask=opened(masks), first=first) for first in (0, COUNT)),
        scenes(),
    ]


def outpainted(model: Open) -> Rows:
    """The middle of each scene, and two pictures around it."""
    painter = model("shapes-inpaint")
    hole = Image.new("L", (SIDE, SIDE), 255)
    hole.paste(0, (SIDE // 4, SIDE // 4, 3 * SIDE // 4, 3 * SIDE // 4))
    kept = [Image.composite(Image.new("RGB", hole.size, (255, 0, 255)), each, hole) for each in scenes()]
    return [kept, *(painter.sample(image=scenes(), mask=hole, first=first) for first in (0, COUNT))]


def both(model: Open) -> Rows:
    """Maps with the captions of their scenes, and two pictures of each; maps alone; captions alone."""
    steered = model("shapes-text-map")
    wanted, captions = opened(asked(steered)["maps"]), [SCENES.caption(row) or "" for row in range(COUNT)]
    coloured = [map_picture(each, size=(SIDE, SIDE)) for each in asked(steered)["maps"]]
    together = [steered.sample(captions, map=wanted, first=first) for first in (0, COUNT)]
    return [coloured, *together, steered.sample(map=wanted), steered.sample(captions, size=SIDE)]


def varied(model: Open) -> Rows:
    """Scenes; more and more left open; from the inverted noise."""
    free = model("shapes")
    ways = [free.sample("", image=scenes(), strength=strength) for strength in (0.3, 0.5, 0.7)]
    return [scenes(), *ways, free.sample("", image=scenes(), inverted=True)]


def put_back(model: Open) -> Rows:
    """Holes, and pictures of a model that was never taught them: the known region is put back before every step."""
    free = model("shapes")
    drawn = (draw_masks(MasksSpec(), (SIDE, SIDE), seed=SEED, indices=range(COUNT))[:, 0] * 255).byte().numpy()
    images, masks = scenes(), [Image.fromarray(each) for each in drawn]
    pairs = zip(map(input_picture, images), map(input_picture, masks), strict=True)
    holes = [masked_picture(*pair, size=(SIDE, SIDE)) for pair in pairs]
    return [holes, *(free.sample("", image=images, mask=masks, first=first) for first in (0, COUNT))]


def guided(model: Open) -> Rows:
    """Small guides; unguided and guided pictures of the same noise; the scene."""
    free = model("shapes")
    small = [each.resize((SIDE // 4, SIDE // 4), Image.Resampling.BICUBIC) for each in scenes()]
    return [
        larger(small, Image.Resampling.NEAREST),
        free.sample("", count=COUNT),
        free.sample("", guide=small),
        scenes(),
    ]


def large(model: Open) -> Rows:
    """Maps of three by five training pictures, and what is drawn in windows of one."""
    steered, size = model("shapes-semantic"), (3 * SIDE, 5 * SIDE)
    wanted = [Image.fromarray(draw(SEED, index, size=size).map) for index in range(COUNT // 4)]
    coloured = [map_picture(input_picture(each), size=size) for each in wanted]
    return [coloured, steered.sample(map=wanted, size=size, window=SIDE)]


PICTURES: dict[str, Callable[[Open], Rows]] = {
    "unconditional": unconditional,
    "class": classes,
    "layout": layouts,
    "semantic": maps,
    "super-resolution": enlarged,
    "inpainting": inpainted,
    "outpainting": outpainted,
    "text-map": both,
    "variations": varied,
    "put-back": put_back,
    "guided": guided,
    "large": large,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(PICTURES)}; all without")
    parser.add_argument("--runs", type=Path, default=None, help="a folder of runs that come before built-in models")
    options = parser.parse_args()
    for name in options.names:
        if name not in PICTURES:
            parser.error(f"{name!r} is none of {', '.join(PICTURES)}")

    def model(name: str) -> Model:
        run = None if options.runs is None else options.runs / name
        return darkroom.load(run if run is not None and run.exists() else name)

    for name in options.names or PICTURES:
        try:
            rows = PICTURES[name](model)
        except DarkroomError as error:
            parser.error(str(error))
        sheet = contact_sheet([each for row in rows for each in row], columns=len(rows[0]))
        print(save_png(sheet, FOLDER / f"{name}.png"))


if __name__ == "__main__":
    main()
