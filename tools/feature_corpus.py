"""The pictures our feature networks learn from: small free data sets, built-in scenes, procedural pictures."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import torch
from jaxtyping import Int, UInt8
from PIL import Image
from procedural import FAMILIES, procedural
from torch import Generator, Tensor

from darkroom.core.pictures import from_bytes, open_picture, to_bytes
from darkroom.core.shapes import Images
from darkroom.scenes.draw import draw

PHOTOS = ("bccd_128", "sign_digits_64", "emoji_64", "nuclei_128")
UNSEEN = "commons_photos_128"
SCENE_CLASSES, NUCLEI_CLASSES, DIGITS = 9, 3, 10
NOTHING = -1  # a label that is not known


@final
@dataclass(frozen=True, eq=False)
class Pool:
    """Pictures of one source with what is known: a class (digits) and a map of classes per pixel; -1: not known."""

    name: str
    pictures: UInt8[Tensor, "n 3 h w"]
    labels: Int[Tensor, " n"]
    maps: Int[Tensor, "n h w"] | None = None


@final
@dataclass(frozen=True, eq=False)
class Crops:
    """A batch: pictures in [-1, 1], the pool each came from, its class and its map."""

    pictures: Images
    source: Int[Tensor, " b"]
    labels: Int[Tensor, " b"]
    maps: Int[Tensor, "b h w"]


def corpus(data: Path, *, procedural_count: int, scene_count: int, seed: int) -> list[Pool]:
    """All pools: the train splits of `PHOTOS`, scenes, and one pool per procedural family."""
    generator = torch.Generator().manual_seed(seed)
    return [
        *(read_pool(data / name / "train") for name in PHOTOS),
        _scenes(scene_count, seed=seed),
        *(_made(family, count=procedural_count, generator=generator) for family in range(len(FAMILIES))),
    ]


def read_pool(folder: Path) -> Pool:
    """A split of a data set on disk, in the order of its metadata."""
    lines = [json.loads(line) for line in (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    pictures = torch.stack([to_bytes(open_picture(folder / line["file_name"])) for line in lines])
    labels = torch.tensor([line["label"] if isinstance(line.get("label"), int) else NOTHING for line in lines])
    maps = None
    if all("map_file_name" in line for line in lines):
        maps = torch.stack([_read_map(folder / line["map_file_name"]) for line in lines]) + SCENE_CLASSES
    return Pool(folder.parent.name, pictures, labels, maps)


def sample(pools: Sequence[Pool], *, count: int, size: int, generator: Generator, mixed: int | None = None) -> Crops:
    """Random crops, half of the pictures over 64 px reduced by two before, mirrored at random.

    mixed: how many pools, drawn anew each time, give the crops in turn (None: all).
    """
    drawn = torch.arange(len(pools)) if mixed is None else torch.randperm(len(pools), generator=generator)[:mixed]
    source = drawn[torch.arange(count) % len(drawn)]
    return _stack([_crop(pools[int(s)], size=size, generator=generator) for s in source], source)


def _stack(rows: list[tuple[Tensor, Tensor, Tensor]], source: Tensor) -> Crops:
    pictures, labels, maps = (torch.stack(column) for column in zip(*rows, strict=True))
    return Crops(from_bytes(pictures), source, labels, maps)


def _crop(pool: Pool, *, size: int, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
    index, flip, halve = torch.randint(0, 1 << 30, (3,), generator=generator).tolist()
    index %= len(pool.pictures)
    picture = pool.pictures[index]
    map_ = torch.full(picture.shape[1:], NOTHING) if pool.maps is None else pool.maps[index]
    if picture.shape[1] // 2 >= size and halve % 2:
        mean = torch.nn.functional.avg_pool2d(picture[None].float(), 2)[0]
        picture, map_ = mean.round().to(torch.uint8), map_[::2, ::2]
    height, width = picture.shape[1:]
    top = int(torch.randint(0, height - size + 1, (1,), generator=generator))
    left = int(torch.randint(0, width - size + 1, (1,), generator=generator))
    picture, map_ = picture[:, top : top + size, left : left + size], map_[top : top + size, left : left + size]
    if flip % 2:
        picture, map_ = picture.flip(2), map_.flip(1)
    return picture, pool.labels[index], map_


def _read_map(path: Path) -> Tensor:
    with Image.open(path) as picture:
        return torch.from_numpy(np.array(picture)).long()


def _scenes(count: int, *, seed: int) -> Pool:
    scenes = [draw(seed, index, kind="captioned") for index in range(count)]
    pictures = torch.from_numpy(np.stack([scene.image for scene in scenes])).permute(0, 3, 1, 2).contiguous()
    maps = torch.from_numpy(np.stack([scene.map for scene in scenes])).long()
    return Pool("shapes", pictures, torch.full((count,), NOTHING), maps)


def _made(family: int, *, count: int, generator: Generator) -> Pool:
    parts = [
        (procedural(family, count=min(50, count - start), size=80, generator=generator) * 255).round().to(torch.uint8)
        for start in range(0, count, 50)
    ]
    return Pool(FAMILIES[family], torch.cat(parts), torch.full((count,), NOTHING))
