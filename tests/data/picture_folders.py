"""Small folders of pictures made on the spot."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def picture(number: int, *, size: tuple[int, int] = (24, 20), mode: str = "RGB") -> Image.Image:
    """A picture of noise, a function of its number."""
    levels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(levels).convert(mode)


def fill(folder: Path, names: Sequence[str], *, size: tuple[int, int] = (24, 20)) -> Path:
    """Pictures of these names."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(number, size=size).save(path)
    return folder


def annotate(folder: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    """A metadata.jsonl with these rows."""
    text = "".join(json.dumps(dict(row)) + "\n" for row in rows)
    (folder / "metadata.jsonl").write_text(text, encoding="utf-8")
    return folder
