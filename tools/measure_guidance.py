"""How well pictures follow a small one that guides them, and what it costs them.

    python tools/measure_guidance.py shapes --prompt "" --count 256 --weights 0.25 0.5 1

Each test scene is made four times smaller; a model that knows nothing of it draws pictures with the same noise, free
and guided. Printed: how well they match the small scene when made as small (PSNR), and the Fréchet distance of the
judge's features to all test scenes.
"""

import argparse
import json
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from PIL import Image

import darkroom
from darkroom.core.errors import DarkroomError
from darkroom.core.pictures import as_saved, from_bytes, to_bytes, to_pictures
from darkroom.core.shapes import Images
from darkroom.data.loader import still_batches
from darkroom.data.sources import ShapesSource
from darkroom.data.transforms import TransformSpec
from darkroom.evaluate.obedience import SEED
from darkroom.metrics import frechet_distance
from darkroom.nn.features import Judge, judge

SMALLER = 4


def smaller(images: Images) -> Images:
    """As small as the guides are."""
    return F.interpolate(images, scale_factor=1 / SMALLER, mode="bicubic", antialias=True, align_corners=False)


def matched(images: Images, guides: Images) -> float:
    """Mean PSNR of pictures made small with their guides, dB."""
    error = (smaller(images) - guides).square().mean(dim=(1, 2, 3))
    return float((10 * torch.log10(4 / error.clamp(min=4e-10))).mean())


def features(network: Judge, images: Images) -> torch.Tensor:
    """What the judge sees."""
    with torch.inference_mode():
        return torch.cat([network.features(part) for part in images.split(64)])


def measure(
    name: str, *, prompt: str | None, count: int, real: int, weights: list[float], steps: int | None, batch: int
) -> None:
    """Print a row for each way."""
    model, network = darkroom.load(name, device="cpu"), judge()
    transform = TransformSpec(size=model.spec.image_size)
    scenes = torch.cat(
        [
            from_bytes(part.images)
            for part in still_batches(
                ShapesSource(SEED, side=transform.size, count=max(real, count)), transform, batch_size=64
            )
        ]
    )
    guides = as_saved(smaller(scenes[:count]))
    pictures = to_pictures(guides)
    ways: dict[str, Images] = {"free": drawn(model.sample(prompt, count=count, steps=steps, batch=batch))}
    for weight in weights:
        made = model.sample(prompt, guide=pictures, guide_weight=weight, steps=steps, batch=batch)
        ways[f"guided, weight {weight:g}"] = drawn(made)
    seen = features(network, scenes[:real])
    found = {
        way: {
            "match (dB)": matched(images, guides),
            "Fréchet distance": frechet_distance(features(network, images), seen),
        }
        for way, images in ways.items()
    }
    for way, figures in found.items():
        print(f"{way:<24}" + "".join(f"{key} {value:8.2f}   " for key, value in figures.items()))
    print(
        json.dumps({"model": model.name, "pictures": count, "judge": network.hash, "ways": found}, ensure_ascii=False)
    )


def drawn(pictures: Sequence[Image.Image]) -> Images:
    """(b, 3, h, w) in [-1, 1]."""
    return from_bytes(torch.stack([to_bytes(each, 3) for each in pictures]))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", help="a model that may be asked for nothing in particular")
    parser.add_argument(
        "--prompt", default=None, help="of all pictures; '' asks a text model for nothing in particular"
    )
    parser.add_argument("--count", type=int, default=256, help="of guides")
    parser.add_argument("--real", type=int, default=1000, help="of test scenes to compare with")
    parser.add_argument("--weights", type=float, nargs="+", default=[1.0], help="of guides")
    parser.add_argument("--steps", type=int, default=None, help="of the solver; the model's own without")
    parser.add_argument("--batch", type=int, default=32, help="of pictures taken together")
    options = parser.parse_args()
    try:
        measure(
            options.model,
            prompt=options.prompt,
            count=options.count,
            real=options.real,
            weights=options.weights,
            steps=options.steps,
            batch=options.batch,
        )
    except DarkroomError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
