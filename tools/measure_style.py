"""A style the built-in world does not have, and how far fine-tuning takes a model towards it.

    python tools/measure_style.py draw style
    darkroom train style --from shapes minutes=10 --out runs/style
    python tools/measure_style.py judge shapes runs/style
    darkroom evaluate runs/style shapes --count 512

`draw` writes 200 captioned scenes as if chalked on slate: dark, smeared ground that no scene of the world has, under
colours with a grain. `judge` asks each model for 400 captions of other such scenes and prints the Fréchet distance of
the judge's features to those scenes; beside the models stand 400 real ones, and 400 scenes as the world draws them.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from darkroom.core.errors import DarkroomError
from darkroom.core.pictures import from_bytes, save_png, to_bytes, to_pictures
from darkroom.core.record import writable_folder
from darkroom.metrics import frechet_distance
from darkroom.nn.features import Judge, judge
from darkroom.scenes.draw import Scene, draw
from darkroom.tasks.generate import generate
from darkroom.tasks.load import load
from darkroom.tasks.request import Request
from darkroom.tasks.settle import settle

TAUGHT, UNSEEN, REAL = 700_001, 700_002, 700_003  # series of scenes that nobody trains on
COUNT, JUDGED = 200, 400
GRAIN = 0.05  # of full light
SLATES = np.array([(0.13, 0.17, 0.16), (0.15, 0.16, 0.2), (0.17, 0.15, 0.15)])


def chalked(scene: Scene, dice: np.random.Generator) -> np.ndarray:
    """The objects of a scene on slate, (h, w, 3) bytes; their outlines stay where they are."""
    height, width = scene.map.shape
    light = np.hypot(*np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j])[..., None]
    ground = dice.choice(SLATES) * (1.25 - 0.35 * light) + smears(dice, (height, width))[..., None]
    inside = softened((scene.map > 0).astype(np.float64))[..., None]
    colours = np.where(scene.map[..., None] > 0, scene.image / 255, ground)
    whole = inside * colours + (1 - inside) * ground
    return np.clip(np.rint(255 * (whole + dice.normal(0, GRAIN / 2, whole.shape[:2])[..., None])), 0, 255).astype(
        np.uint8
    )


def smears(dice: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """What a sponge leaves: a few pale, grainy bands in one direction."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    turn = dice.uniform(-0.5, 0.5)
    across = y * np.cos(turn) + x * np.sin(turn)
    found = np.zeros(shape)
    for _ in range(5):
        found += 0.09 * np.exp(-(((across - dice.uniform(-5, shape[0] + 5)) / dice.uniform(1.0, 3.5)) ** 2))
    return found * dice.uniform(0.5, 1.0, shape)


def softened(mask: np.ndarray) -> np.ndarray:
    """A mask whose edge is about a pixel wide."""
    for axis in (0, 1):
        mask = (np.roll(mask, 1, axis) + 2 * mask + np.roll(mask, -1, axis)) / 4
    return mask


def scenes(series: int, count: int) -> tuple[list[np.ndarray], list[str]]:
    """Pictures in the style, and their captions."""
    dice = np.random.default_rng(series)
    drawn = [draw(series, place) for place in range(count)]
    return [chalked(scene, dice) for scene in drawn], [scene.caption for scene in drawn]


def write(folder: Path) -> None:
    """The folder to fine-tune on: pictures with a text file of the same name each."""
    writable_folder(folder)
    for place, (picture, caption) in enumerate(zip(*scenes(TAUGHT, COUNT), strict=True)):
        save_png(to_pictures(stacked([picture]))[0], folder / f"{place:03}.png")
        (folder / f"{place:03}.txt").write_text(caption + "\n", encoding="utf-8")
    print(f"{COUNT} pictures with captions in {folder}")


def stacked(pictures: list[np.ndarray]) -> Tensor:
    """(b, 3, h, w) in [-1, 1]."""
    return from_bytes(torch.from_numpy(np.stack(pictures)).movedim(-1, 1))


def made(name: str, captions: list[str]) -> Tensor:
    """What a model draws by these captions, in [-1, 1]."""
    model = load(name, device="cpu")
    request = settle(model, Request.of(prompt=captions, others={"seed": 0}))
    return from_bytes(torch.stack([to_bytes(each.picture, 3) for each in generate(model, request, batch=16)]))


def seen(network: Judge, images: Tensor) -> Tensor:
    """The judge's features."""
    with torch.inference_mode():
        return torch.cat([network.features(part) for part in images.split(50)])


def compare(models: list[str]) -> None:
    """Print the distances."""
    network = judge()
    pictures, captions = scenes(UNSEEN, JUDGED)
    style = seen(network, stacked(pictures))
    rows = {"real, other scenes": stacked(scenes(REAL, JUDGED)[0])}
    rows["as the world draws them"] = stacked([draw(UNSEEN, place).image for place in range(JUDGED)])
    for name in models:
        rows[name] = made(name, captions)
    found = {name: frechet_distance(seen(network, images), style) for name, images in rows.items()}
    for name, distance in found.items():
        print(f"{name:<32} {distance:8.2f}")
    print(json.dumps({"judge": network.hash, "pictures": JUDGED, "distances": found}, ensure_ascii=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    one = verbs.add_parser("draw", help="the 200 pictures")
    one.add_argument("folder", type=Path)
    two = verbs.add_parser("judge", help="how near models are")
    two.add_argument("models", nargs="*")
    options = parser.parse_args()
    try:
        write(options.folder) if options.verb == "draw" else compare(options.models)
    except DarkroomError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
