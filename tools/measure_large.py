"""How a model that learnt 64-px scenes draws larger ones: is it obeyed as well, and are there seams?

    python tools/measure_large.py shapes-semantic --sizes 64x64 128x128 192x320 --count 64 --window 64
    python tools/measure_large.py shapes-superres --sizes 2048x2048 --ways windows --keep large.png

Larger scenes have more objects of the same size. Each is asked for by its boxes, its map, itself made small, or itself
with a hole, as a whole (but for boxes, of which a model knows only so many) and in overlapping windows. Printed: how
much of the map is read back (mean IoU over classes); for boxes how many of the categories are right and how much the
boxes overlap; how near the picture is to the scene (PSNR, in the hole where there is one; judge distance); and how
steep pictures are across the lines where windows end, over how steep they are across all others, and across all
others where latent cells end too, beside the ratios of the scenes themselves.
"""

import argparse
import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import darkroom
from darkroom.autoencoder.tiles import starts
from darkroom.core.errors import DarkroomError
from darkroom.core.pictures import from_bytes, to_bytes
from darkroom.core.shapes import Images
from darkroom.data.degrade import degrade
from darkroom.data.masks import MasksSpec, draw_masks
from darkroom.evaluate.conditions import mean_iou
from darkroom.evaluate.obedience import SEED
from darkroom.metrics.agreement import read_map, read_scene
from darkroom.metrics.pairs import psnr
from darkroom.nn.features import judge
from darkroom.scenes.agree import best_overlap
from darkroom.scenes.draw import Scene, draw
from darkroom.scenes.vocabulary import SHAPES
from darkroom.tasks.held_out import spoiling_of
from darkroom.tasks.model import Model

Size = tuple[int, int]
WAYS = ["whole", "windows"]


def asked(model: Model, scenes: list[Scene], *, size: Size) -> dict[str, Any]:
    """What asks the model for these scenes, as `Model.sample` takes it."""
    rows, pixels = range(len(scenes)), torch.stack([to_bytes(Image.fromarray(each.image), 3) for each in scenes])
    given: dict[str, Any] = {"size": size}
    if not model.fields:
        raise DarkroomError(f"{model.name} is steered by nothing, so there is nothing to obey")
    for field in model.fields:
        match field:
            case "objects":
                given["layout"] = [
                    [{"category": each.category, "box": each.box} for each in scene.objects] for scene in scenes
                ]
            case "map":
                given["map"] = [Image.fromarray(each.map) for each in scenes]
            case "low_res":
                how = spoiling_of(model).degradation
                small = degrade(pixels, how, seed=SEED, indices=list(rows))
                given["low_res"] = [Image.fromarray(each.movedim(0, -1).numpy()) for each in small]
            case "masked":
                given["image"] = [Image.fromarray(each.image) for each in scenes]
                given["mask"] = [Image.fromarray(each) for each in holes(scenes, size)]
            case _:
                raise DarkroomError(f"{model.name} is steered by {field}, which has no place in a picture")
    return given


def holes(scenes: list[Scene], size: Size) -> list[np.ndarray]:
    """White where to paint, of the size of a training picture's holes: a hole in every 64-px square of a scene."""
    tiles = -(-size[0] // 64), -(-size[1] // 64)
    each = draw_masks(MasksSpec(most=0.4), (64, 64), seed=SEED, indices=range(len(scenes) * tiles[0] * tiles[1]))
    levels = (each[:, 0] * 255).byte().numpy().reshape(len(scenes), *tiles, 64, 64)
    return [np.block([[*row] for row in scene])[: size[0], : size[1]] for scene in levels]


def lines(length: int, *, window: int, cell: int) -> list[int]:
    """Where windows begin or end inside a side, in pixels; a latent cell is `cell` of them."""
    begun = starts(length // cell, window // cell, overlap=window // cell // 2)
    ends = {cell * at for at in begun} | {cell * at + window for at in begun}
    return sorted(ends - {0, length})


def steepness(images: Images, *, window: int, cell: int, step: int = 1) -> float:
    """Mean step between neighbours across the lines where windows end, over that across all other lines.

    step: compare only with every `step`-th line, so with those where latent cells end, as windows do.
    """
    across: list[torch.Tensor] = []
    other: list[torch.Tensor] = []
    for dim in (-2, -1):
        steps = images.diff(dim=dim).abs().mean(dim=(1, 2 if dim == -1 else 3)).mean(0)  # of each line
        at = torch.tensor([line - 1 for line in lines(images.shape[dim], window=window, cell=cell)], dtype=torch.long)
        rest = torch.zeros(len(steps), dtype=torch.bool)
        rest[step - 1 :: step] = True
        rest[at] = False
        across.append(steps[at])
        other.append(steps[rest])
    return float(torch.cat(across).mean() / torch.cat(other).mean())


def row(images: Images, scenes: list[Scene], given: dict[str, Any], *, window: int, cell: int) -> dict[str, float]:
    """The figures of pictures of these scenes."""
    whole = from_bytes(torch.stack([to_bytes(Image.fromarray(each.image), 3) for each in scenes]))
    levels = ((images.clamp(-1, 1) + 1) * 127.5).round().byte().movedim(1, -1).numpy()
    maps, classes = np.stack([each.map for each in scenes]), 1 + len(SHAPES)
    figures = {
        "mean IoU": mean_iou(np.stack([read_map(each) for each in levels]), maps, classes=classes),
        "scenes' own": mean_iou(np.stack([read_map(each.image) for each in scenes]), maps, classes=classes),
    }
    if "layout" in given:
        seen = [read_scene(each) for each in levels]
        pairs = [
            best_overlap([(each.category, each.box) for each in things], kind=thing.category, box=thing.box)
            for scene, things in zip(scenes, seen, strict=True)
            for thing in scene.objects
        ]
        figures["category right"] = float(np.mean([right for right, _ in pairs]))
        figures["box IoU"] = float(np.mean([overlap for _, overlap in pairs]))
    elif "mask" in given:
        hole = torch.stack([to_bytes(each, 1) for each in given["mask"]]) > 127
        error = ((whole - images).square() * hole).sum() / (hole.sum() * 3)
        figures["hole PSNR"] = float(10 * torch.log10(4 / error))
        figures["known identical"] = float((images == whole)[~hole.expand_as(whole)].float().mean())
    elif "low_res" in given:
        figures["PSNR"] = float(psnr(whole, images).mean())
    with torch.inference_mode():
        pairs = zip(whole.split(4), images.split(4), strict=True)
        figures["judge"] = float(torch.cat([judge().distance(*pair) for pair in pairs]).mean())
    if any(lines(side, window=window, cell=cell) for side in images.shape[-2:]):
        figures["borders"], figures["of scenes"] = (
            steepness(each, window=window, cell=cell) for each in (images, whole)
        )
        figures["among cells"], figures["cells of scenes"] = (
            steepness(each, window=window, cell=cell, step=cell) for each in (images, whole)
        )
    return figures


def measure(
    name: str,
    *,
    sizes: list[Size],
    wanted: list[str],
    count: int,
    window: int,
    guidance: float | None,
    batch: int,
    dtype: str,
    keep: Path | None,
) -> None:
    """Print a row for each size and way; the last picture is kept if that is wished."""
    model = darkroom.load(name, device="cpu", dtype=dtype)
    told: dict[str, dict[str, float]] = {}
    for size in sizes:
        scenes = [draw(SEED, index, size=size) for index in range(max(1, count * 64 * 64 // (size[0] * size[1])))]
        given = asked(model, scenes, size=size)
        ways = ("whole",) if max(size) <= window else ("windows",) if "layout" in given else ("whole", "windows")
        for way in ways if len(ways) == 1 else wanted:
            began = time.monotonic()
            drawn = model.sample(
                **given,
                seed=0,
                guidance=guidance,
                window=window if way == "windows" else None,
                batch=max(1, batch * 64 * 64 // (size[0] * size[1])),
            )
            seconds = round((time.monotonic() - began) / len(drawn), 2)
            if keep is not None:
                drawn[-1].save(keep)
            images = from_bytes(torch.stack([to_bytes(each, 3) for each in drawn]))
            figures = row(images, scenes, given, window=window, cell=model.spec.first_stage.factor)
            figures["s a picture"] = seconds
            told[f"{size[0]}x{size[1]} {way}"] = figures
            print(
                f"{size[0]}x{size[1]} {way:<8}", *(f"{key} {value:.4g}" for key, value in figures.items()), flush=True
            )
    print(json.dumps({"model": name, "window": window, "guidance": guidance, "figures": told}))


def size_of(text: str) -> Size:
    """128x192 as (128, 192)."""
    if not re.fullmatch(r"\d+x\d+", text):
        raise argparse.ArgumentTypeError(f"{text} is no size; 128x192 is")
    height, width = text.split("x")
    return int(height), int(width)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", help="steered by boxes, maps, small pictures or holes")
    sizes = [(64, 64), (128, 128), (192, 320), (256, 256)]
    parser.add_argument("--sizes", type=size_of, nargs="+", default=sizes, help="height x width, multiples of 64")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS, help="as a whole and in windows without")
    parser.add_argument("--keep", type=Path, default=None, help="a file for the last picture that is drawn")
    parser.add_argument("--count", type=int, default=128, help="of 64-px scenes; larger ones fewer, of as many pixels")
    parser.add_argument("--window", type=int, default=64, help="side of the windows, in pixels")
    parser.add_argument("--guidance", type=float, default=None, help="the model's own without")
    parser.add_argument("--batch", type=int, default=64, help="of 64-px pictures; larger ones fewer")
    parser.add_argument("--precision", default="float32", help="float32 or bfloat16")
    options = parser.parse_args()
    try:
        measure(
            options.model,
            sizes=options.sizes,
            wanted=options.ways,
            keep=options.keep,
            count=options.count,
            window=options.window,
            guidance=options.guidance,
            batch=options.batch,
            dtype=options.precision,
        )
    except DarkroomError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
