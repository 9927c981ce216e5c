"""How well the reader of `shapes` reads: every figure is printed by `python tools/measure_reader.py`.

Rows: true scenes, scenes that were spoilt, pictures without objects, captions of other scenes.
"""

import argparse
import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from darkroom.scenes.agree import agrees, obeys
from darkroom.scenes.backgrounds import draw_background
from darkroom.scenes.dice import Dice
from darkroom.scenes.draw import Scene, draw
from darkroom.scenes.read import read
from darkroom.scenes.vocabulary import NAMED

Picture = np.ndarray
SEED = 900_001  # the series that nothing was tuned on
FOLDERS = ("commons_photos_128", "bccd_128", "nuclei_128", "sign_digits_64", "emoji_64")


def noised(picture: Picture, *, sigma: float, dice: np.random.Generator) -> Picture:
    """Gaussian noise of `sigma` grey levels."""
    return np.clip(np.rint(picture + dice.normal(0, sigma, picture.shape)), 0, 255).astype(np.uint8)


def blurred(picture: Picture, *, sigma: float) -> Picture:
    """Gaussian blur of `sigma` pixels, edges repeated."""
    reach = int(np.ceil(4 * sigma))
    weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    weights /= weights.sum()
    values = picture.astype(np.float64)
    for axis in (0, 1):
        pads = [(reach, reach) if each == axis else (0, 0) for each in range(3)]
        wide, length = np.pad(values, pads, mode="edge"), values.shape[axis]
        values = sum(w * np.take(wide, range(k, k + length), axis) for k, w in enumerate(weights))
    return np.rint(values).astype(np.uint8)


def compressed(picture: Picture, *, quality: int, subsampling: int) -> Picture:
    """Through JPEG; subsampling 0 is 4:4:4, 2 is 4:2:0."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality, subsampling=subsampling)
    return np.asarray(Image.open(file).convert("RGB"))


def cast(picture: Picture, *, levels: int, dice: np.random.Generator) -> Picture:
    """Every channel moved by a whole number of grey levels up or down."""
    return np.clip(picture + dice.choice([-levels, levels], 3), 0, 255).astype(np.uint8)


def rescaled(picture: Picture, *, factor: float) -> Picture:
    """Made smaller and larger again, Lanczos: softness with ringing."""
    side = round(picture.shape[1] * factor), round(picture.shape[0] * factor)
    small = Image.fromarray(picture).resize(side, Image.Resampling.LANCZOS)
    return np.asarray(small.resize((picture.shape[1], picture.shape[0]), Image.Resampling.LANCZOS))


def wavy(picture: Picture, *, decibels: float, dice: np.random.Generator) -> Picture:
    """Smooth coloured errors two pixels wide, and blur, down to this PSNR of the errors alone."""
    noise = dice.normal(0, 1, picture.shape)
    noise = blurred(np.clip(noise * 40 + 128, 0, 255).astype(np.uint8), sigma=1.0) - 128.0
    noise *= 255 * 10 ** (-decibels / 20) / noise.std()
    return np.clip(np.rint(blurred(picture, sigma=0.5) + noise), 0, 255).astype(np.uint8)


def spoilers(dice: np.random.Generator) -> dict[str, Callable[[Picture], Picture]]:
    """Every way of spoiling a picture, by name."""
    return {
        "gaussian noise, sigma 6": lambda picture: noised(picture, sigma=6, dice=dice),
        "gaussian noise, sigma 12": lambda picture: noised(picture, sigma=12, dice=dice),
        "gaussian blur, sigma 0.7 px": lambda picture: blurred(picture, sigma=0.7),
        "gaussian blur, sigma 1.0 px": lambda picture: blurred(picture, sigma=1.0),
        "JPEG quality 75, 4:4:4": lambda picture: compressed(picture, quality=75, subsampling=0),
        "JPEG quality 60, 4:4:4": lambda picture: compressed(picture, quality=60, subsampling=0),
        "JPEG quality 60, 4:2:0": lambda picture: compressed(picture, quality=60, subsampling=2),
        "colour cast, 6 levels": lambda picture: cast(picture, levels=6, dice=dice),
        "half the size and back": lambda picture: rescaled(picture, factor=0.5),
        "blur and smooth errors, 28 dB": lambda picture: wavy(picture, decibels=28, dice=dice),
    }


def empty_pictures(dice: np.random.Generator, *, side: int = 64) -> dict[str, Callable[[int], Picture]]:
    """Every kind of picture without objects, by name: picture number i."""

    def smooth(sigma: float, gain: float) -> Picture:
        values = blurred(dice.integers(0, 256, (side, side, 3)).astype(np.uint8), sigma=sigma).astype(np.float64)
        values = (values - values.mean((0, 1))) / values.std((0, 1)) * gain + 128
        return np.clip(values, 0, 255).astype(np.uint8)

    def hues(cell: int) -> Picture:
        count = -(-side // cell)
        hsv = dice.integers(0, 256, (count, count, 3)).astype(np.uint8)
        hsv[..., 1:] = 200 + hsv[..., 1:] % 56
        rgb = np.asarray(Image.fromarray(hsv, "HSV").convert("RGB"))
        return rgb.repeat(cell, 0).repeat(cell, 1)[:side, :side].copy()

    def checks() -> Picture:
        cell, start = int(dice.integers(1, 33)), dice.integers(0, 33, 2)
        y, x = np.mgrid[:side, :side]
        odd = ((y + start[0]) // cell + (x + start[1]) // cell) % 2
        return dice.integers(0, 256, (2, 3)).astype(np.uint8)[odd]

    def gradient() -> Picture:
        y, x = np.mgrid[:side, :side] / side
        turn = dice.uniform(0, 2 * np.pi)
        along = (x * np.cos(turn) + y * np.sin(turn) + 1.5)[..., None] / 3
        first, last = dice.integers(0, 256, (2, 3))
        return (first + (last - first) * along).astype(np.uint8)

    def stripes() -> Picture:
        width, first, last = int(dice.integers(4, 24)), *dice.integers(0, 256, (2, 3))
        pair = np.stack([first, last]).astype(np.uint8)
        across = pair[np.arange(side) // width % 2]
        return np.broadcast_to(across, (side, side, 3)).copy()

    return {
        "uniform noise": lambda i: dice.integers(0, 256, (side, side, 3)).astype(np.uint8),
        "gaussian noise": lambda i: np.clip(dice.normal(128, 64, (side, side, 3)), 0, 255).astype(np.uint8),
        "smooth coloured noise": lambda i: smooth(float(dice.uniform(0.7, 8)), 64.0),
        "smooth saturated noise": lambda i: smooth(float(dice.uniform(1, 8)), 160.0),
        "saturated cells, 1-32 px": lambda i: hues(int(dice.integers(1, 33))),
        "checkerboards": lambda i: checks(),
        "stripes": lambda i: stripes(),
        "gradients": lambda i: gradient(),
        "blank": lambda i: np.full((side, side, 3), dice.integers(0, 256, 3), np.uint8),
        "backgrounds of the world": lambda i: background(i, side=side),
    }


def background(index: int, *, side: int) -> Picture:
    """A background of the world with nothing on it."""
    return np.rint(draw_background(Dice(SEED, index), (side, side)) * 255).astype(np.uint8)


def photos(folder: Path, *, count: int, dice: np.random.Generator) -> Iterator[Picture]:
    """Pictures of a folder as they are, at 64 x 64, and a random crop of 64 x 64 of each."""
    paths = sorted(path for path in folder.rglob("images/*") if path.suffix in (".png", ".jpg"))
    for path in paths if len(paths) <= count else [paths[k] for k in dice.choice(len(paths), count, replace=False)]:
        picture = Image.open(path).convert("RGB")
        yield np.asarray(picture)
        yield np.asarray(picture.resize((64, 64), Image.Resampling.LANCZOS))
        left, top = (int(dice.integers(0, max(0, side - 64) + 1)) for side in picture.size)
        yield np.asarray(picture.crop((left, top, left + 64, top + 64)))


def right(scenes: list[Scene], pictures: list[Picture]) -> str:
    """Share of pictures in which all objects are right, and the time of one reading."""
    start = time.process_time()
    found = [read(picture) for picture in pictures]
    taken = (time.process_time() - start) / len(pictures)
    pairs = list(zip(found, scenes, strict=True))
    same = np.mean([agrees(things, scene.objects) for things, scene in pairs])
    said = np.mean(
        [obeys(things, scene.caption, unnamed=max(0, len(scene.objects) - NAMED)) for things, scene in pairs]
    )
    return f"all right {same:8.2%}   caption holds {said:8.2%}   {len(pairs):5d} pictures   {taken * 1e3:5.1f} ms each"


def false_finds(pictures: list[Picture]) -> str:
    """Share of pictures in which something was found though nothing is there."""
    start = time.process_time()
    finds = [bool(read(picture)) for picture in pictures]
    each = (time.process_time() - start) / len(pictures)
    return f"false finds {np.mean(finds):7.2%}   ({sum(finds)} of {len(finds)})   {each * 1e3:5.1f} ms each"


def true_rows(count: int) -> Iterator[tuple[str, str]]:
    for name, kind, size, share in (
        ("captioned 64", "captioned", 64, 1),
        ("single 64", "single", 64, 1),
        ("captioned 32", "captioned", 32, 4),
        ("captioned 96", "captioned", 96, 4),
        ("captioned 128", "captioned", 128, 4),
    ):
        scenes = [draw(SEED, index, size=size, kind=kind) for index in range(count // share)]
        yield f"true scenes, {name}", right(scenes, [scene.image for scene in scenes])


def spoilt_rows(count: int) -> Iterator[tuple[str, str]]:
    scenes = [draw(SEED + 1, index) for index in range(count // 4)]
    for name, spoil in spoilers(np.random.default_rng(SEED)).items():
        yield f"spoilt: {name}", right(scenes, [spoil(scene.image) for scene in scenes])


def empty_rows(count: int, folders: Path | None) -> Iterator[tuple[str, str]]:
    dice = np.random.default_rng(SEED)
    for name, make in empty_pictures(dice).items():
        yield f"empty: {name}", false_finds([make(index) for index in range(count // 4)])
    for name in FOLDERS if folders else ():
        if folders and (folders / name).is_dir():
            yield f"photos: {name}", false_finds(list(photos(folders / name, count=count // 4, dice=dice)))


def shuffled_row(count: int) -> tuple[str, str]:
    scenes = [draw(SEED + 2, index) for index in range(count)]
    found = [read(scene.image) for scene in scenes]
    rolled = scenes[1:] + scenes[:1]
    same = sum(agrees(things, scene.objects) for things, scene in zip(found, rolled, strict=True))
    said = sum(obeys(things, scene.caption) for things, scene in zip(found, rolled, strict=True))
    return "captions of other scenes", f"objects agree {same} of {count}   caption holds {said} of {count}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000, help="true scenes; other rows take a quarter (2000)")
    parser.add_argument("--photos", type=Path, help="folder with the picture sets that hold no objects")
    parser.add_argument("--only", help="part of a row's group: true, spoilt, empty, shuffled")
    options = parser.parse_args()
    groups = {
        "true": lambda: true_rows(options.count),
        "spoilt": lambda: spoilt_rows(options.count),
        "empty": lambda: empty_rows(options.count, options.photos),
        "shuffled": lambda: [shuffled_row(options.count)],
    }
    for group, rows in groups.items():
        if options.only in (None, group):
            for name, text in rows():
                print(f"{name:40s} {text}", flush=True)


if __name__ == "__main__":
    main()
