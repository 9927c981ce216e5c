"""A sheet of what models draw of real pictures that they were not trained on: what is asked for, each model, the truth.

    python tools/draw_real.py nuclei_128 runs/nuclei_128-0 --keep docs/pictures/gallery/nuclei.png
    python tools/draw_real.py photos_128 runs/mean runs/photos_128-inpainting-0 --masks masks --rows 3 14 15

A column is a test picture: `--count` of them, evenly spread over the test split unless `--rows` names some, seed 0. All
models are steered by the same; small pictures also show bicubic, holes the mean and Telea's fill.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

import darkroom
from darkroom.core.errors import DarkroomError, InputError
from darkroom.core.pictures import contact_sheet, from_bytes, save_png, to_bytes, to_pictures
from darkroom.data.inputs import pictures
from darkroom.data.sources import open_data
from darkroom.data.transforms import TransformSpec
from darkroom.metrics.fill import mean_fill, telea_fill
from darkroom.recipes.report.conditions import layout_picture, map_picture, masked_picture
from darkroom.tasks.generate import generate
from darkroom.tasks.held_out import request_for, spoiling_of
from darkroom.tasks.request import Request
from darkroom.tasks.settle import settle

Row = list[Image.Image]


def told(request: Request) -> list[Row]:
    """What is asked for, and what can be had without a model."""
    assert request.size is not None
    size, (height, width) = request.size, request.size
    made: list[Row] = [[layout_picture(each, size=size) for each in request.layouts]]
    made.append([map_picture(each, size=size) for each in request.maps])
    for way in (Image.Resampling.NEAREST, Image.Resampling.BICUBIC):
        made.append([each.picture.resize((width, height), way) for each in request.low_res])
    pairs = list(zip(request.images, request.masks, strict=True))
    made.append([masked_picture(*pair, size=size) for pair in pairs])
    if pairs:
        whole = torch.cat([from_bytes(to_bytes(image.picture, 3)[None]) for image, _ in pairs])
        ink = torch.cat([mask.ink(size) for _, mask in pairs])
        made += [to_pictures(mean_fill(whole, ink)), to_pictures(telea_fill(whole, ink))]
    return [row for row in made if row]


def sheet(
    data: str,
    names: Sequence[str],
    *,
    chosen: Sequence[int],
    count: int,
    masks: Path | None,
    keep: Path,
    guidance: float | None,
) -> None:
    """Draw it, and say what its rows are."""
    models = [darkroom.load(name, device="cpu") for name in names]
    if len({each.fields for each in models}) > 1:
        raise InputError("all models of a sheet are steered by the same")
    _, test = open_data(data, size=models[0].spec.image_size)
    rows = list(chosen) or [place * len(test) // count for place in range(count)]
    transform = TransformSpec(size=models[0].spec.image_size)
    requests = [
        settle(
            model,
            request_for(
                model,
                test,
                rows=rows,
                transform=transform,
                spoiling=spoiling_of(model, masks=masks),
                sample={"seed": 0} if guidance is None else {"seed": 0, "guidance": guidance},
            ),
        )
        for model in models
    ]
    lines = told(requests[0])
    for model, request in zip(models, requests, strict=True):
        lines.append([each.picture for each in generate(model, request)])
    kept = pictures(test, transform)
    truth = [to_pictures(from_bytes(kept(row)[None]))[0] for row in rows]
    save_png(contact_sheet([each for line in [*lines, truth] for each in line], columns=len(rows)), keep)
    print(
        f"{keep}: test pictures {rows}, {len(lines) - len(models)} rows of what is asked, {', '.join(names)}, the truth"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", help="a folder of pictures")
    parser.add_argument("models", nargs="+", help="steered by the same")
    parser.add_argument("--rows", type=int, nargs="+", default=[], help="of the test split")
    parser.add_argument("--count", type=int, default=6, help="test pictures, unless rows are named")
    parser.add_argument("--masks", type=Path, default=None, help="a folder of holes, instead of the models' own")
    parser.add_argument("--guidance", type=float, default=None, help="the models' own without")
    parser.add_argument("--keep", type=Path, default=Path("sheet.png"), help="the file")
    options = parser.parse_args()
    try:
        sheet(
            options.data,
            options.models,
            chosen=options.rows,
            count=options.count,
            masks=options.masks,
            keep=options.keep,
            guidance=options.guidance,
        )
    except DarkroomError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
