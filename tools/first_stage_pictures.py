"""Writes the pictures that the built-in first stages of folders learn from: 64 px, cut from many kinds of pictures.

The photographs that first stages are measured on are not among them.

python tools/first_stage_pictures.py ../shared/data FOLDER
"""

import argparse
from pathlib import Path

import torch
from feature_corpus import PHOTOS, Pool, corpus, read_pool, sample
from torch import Generator

from darkroom.core.pictures import save_png, to_pictures

SIZE, TOGETHER = 64, 100
SHARES = {
    "emoji_64": 4,
    "sign_digits_64": 4,
    "bccd_128": 3,
    "nuclei_128": 3,
    "shapes": 2,
    "leaves": 3,
    "textured leaves": 5,
    "fractal": 2,
    "marble": 2,
    "gratings": 1,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="the folder of the data sets")
    parser.add_argument("out", type=Path, help="where `train` and `test` are written")
    parser.add_argument("--count", type=int, default=12_000, help="pictures to learn from")
    args = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    made = corpus(args.data, procedural_count=600, scene_count=600, seed=0)
    write(made, args.out / "train", count=args.count, generator=generator)
    unseen = [read_pool(args.data / name / "test") for name in PHOTOS]
    write(unseen, args.out / "test", count=args.count // 25, generator=generator)


def write(pools: list[Pool], folder: Path, *, count: int, generator: Generator) -> None:
    """Write crops of the pools, as many of each as `SHARES` says."""
    folder.mkdir(parents=True)
    drawn = [pool for pool in pools for _ in range(SHARES[pool.name])]
    for start in range(0, count, TOGETHER):
        crops = sample(drawn, count=min(TOGETHER, count - start), size=SIZE, generator=generator, mixed=len(drawn))
        for place, picture in enumerate(to_pictures(crops.pictures)):
            save_png(picture, folder / f"{start + place:05}.png")


if __name__ == "__main__":
    main()
