"""What decoding a large picture in tiles costs: memory, time, and how far it is from decoding it whole.

    python tools/measure_tiles.py shapes-f8 --side 2048

A drawn scene of that side is encoded in tiles once; each way of decoding then runs in a process of its own, whose peak
memory is read above what it held before it began. Printed: both peaks, both times, and the mean difference in [0, 1].
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image

from darkroom.autoencoder import tiles
from darkroom.core.pictures import from_bytes, to_bytes
from darkroom.evaluate.obedience import SEED
from darkroom.scenes.draw import draw
from darkroom.tasks.parts import load_autoencoder

WAYS = ("whole", "tiles")


def peak() -> int:
    """Bytes that this process held at most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@torch.inference_mode()
def encode(name: str, side: int, path: Path) -> None:
    """Latents of a scene, into a file."""
    model = load_autoencoder(name, device="cpu")
    picture = from_bytes(to_bytes(Image.fromarray(draw(SEED, 0, size=(side, side)).image), 3)[None])
    torch.save(tiles.encoded(lambda part: model.moments(part)[0], picture, factor=model.spec.factor), path)


@torch.inference_mode()
def decode(name: str, way: str, latents: Path, to: Path) -> None:
    """One way, in this process; prints what it took."""
    torch.set_num_threads(2)
    model = load_autoencoder(name, device="cpu")
    given = torch.load(latents)
    model.decode(given[..., :8, :8])
    before, began = peak(), time.monotonic()
    made = model.decode(given) if way == "whole" else tiles.decoded(model.decode, given, factor=model.spec.factor)
    print(json.dumps({"bytes": peak() - before, "seconds": round(time.monotonic() - began, 2)}))
    torch.save(made.clamp(-1, 1), to)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", help="a first stage, or a model that has one")
    parser.add_argument("--side", type=int, default=2048, help="pixels")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        decode(options.model, options.way, options.folder / "latents.pt", options.folder / f"{options.way}.pt")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        encode(options.model, options.side, folder / "latents.pt")
        found = {}
        for way in WAYS:
            command = [sys.executable, __file__, options.model, "--way", way, "--folder", str(folder)]
            found[way] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        whole, tiled = (torch.load(folder / f"{way}.pt") for way in WAYS)
        found["share of memory"] = found["tiles"]["bytes"] / found["whole"]["bytes"]
        found["mean difference"] = float((whole - tiled).abs().mean()) / 2
        found["largest difference"] = float((whole - tiled).abs().max()) / 2
    print(json.dumps({"model": options.model, "side": options.side, **found}, indent=2))


if __name__ == "__main__":
    main()
