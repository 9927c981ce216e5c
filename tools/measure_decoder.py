"""How much faster a tiny decoder is than the full one, and what it costs in PSNR.

    python tools/measure_decoder.py runs/tiny-decoder-0 --full emoji --data shapes
    python tools/measure_decoder.py --architecture kl-f8 --size 256

The first form compares trained decoders of one encoder; the second one times random weights: the first stage of a
recipe against the same with the default tiny decoder (or `--tiny channels=48 shuffle=2`). Calls alternate, so that
whatever else the machine does slows both alike; each figure is the median of the ratios of neighbouring calls.
"""

import argparse
import os
import statistics
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from darkroom.autoencoder.model import Autoencoder, AutoencoderSpec, same_latents
from darkroom.autoencoder.tiny import TinyDecoderSpec
from darkroom.core.errors import DarkroomError, InputError
from darkroom.core.pictures import as_saved, from_bytes
from darkroom.core.spec import override, parse
from darkroom.data.loader import still_batches
from darkroom.data.sources import open_data
from darkroom.data.transforms import TransformSpec
from darkroom.metrics.pairs import psnr
from darkroom.recipes.read import recipe
from darkroom.tasks.parts import load_autoencoder

Pair = tuple[Autoencoder, Autoencoder]


@torch.no_grad()
def timed(models: Pair, *, batch: int, size: int, rounds: int) -> tuple[float, float, float]:
    """Median milliseconds of the full and the tiny decoder, and the median of their ratios."""
    latents = torch.randn(batch, *models[0].latent_shape((size, size)))
    latents = latents.contiguous(memory_format=torch.channels_last)
    taken: list[list[float]] = []
    for _ in range(rounds + 1):
        row = []
        for model in models:
            begun = time.perf_counter()
            model.decode_raw(latents)
            row.append(1000 * (time.perf_counter() - begun))
        taken.append(row)
    full, tiny = ([row[place] for row in taken[1:]] for place in (0, 1))  # the first round warms up
    ratio = statistics.median(one / other for one, other in zip(full, tiny, strict=True))
    return statistics.median(full), statistics.median(tiny), ratio


@torch.no_grad()
def quality(models: Pair, *, data: str, size: int, count: int) -> list[float]:
    """Mean PSNR of both over test pictures, as they would be saved; posterior means are decoded."""
    spec = models[0].spec
    source = open_data(data, seed=0, size=size, limit=None if data.partition(":")[0] != "shapes" else 20 * count).test
    transform = parse(TransformSpec, {"size": size, "channels": spec.image_channels}, where="transform")
    found: list[list[Tensor]] = [[], []]
    for part in still_batches(source, transform, batch_size=32, rows=range(min(count, len(source)))):
        images = from_bytes(part.images)
        for place, model in enumerate(models):
            found[place].append(psnr(images, as_saved(model.reconstruct(images).images)))
    return [float(torch.cat(values).mean()) for values in found]


def drawn(name: str, changes: Sequence[str]) -> Pair:
    """The first stage of a recipe with random weights, and the same with a tiny decoder."""
    spec = recipe(name).first_stage.model
    if not isinstance(spec, AutoencoderSpec):
        raise InputError(f"{name}: this recipe works on pixels")
    tiny = parse(TinyDecoderSpec, override({}, changes), where="--tiny")
    torch.manual_seed(0)
    return Autoencoder(spec), Autoencoder(spec.model_copy(update={"tiny": tiny}))


def stored(full: str, tiny: str) -> Pair:
    """Two trained first stages of one encoder."""
    models = load_autoencoder(full, device="cpu"), load_autoencoder(tiny, device="cpu")
    if not same_latents(*models):
        raise InputError(f"{tiny} does not decode the latents of {full}: their encoders differ")
    return models


def measured(options: argparse.Namespace) -> None:
    models = drawn(options.architecture, options.tiny) if options.architecture else stored(options.full, options.model)
    counts = [sum(p.numel() for p in (*m.decoder.parameters(), *m.from_latent.parameters())) for m in models]
    print(f"parameters   full {counts[0] / 1e6:.3f} M, tiny {counts[1] / 1e6:.3f} M")
    for model in models:
        model.eval().to(memory_format=torch.channels_last)
    cores = len(os.sched_getaffinity(0))
    for threads in sorted({1, cores}):
        torch.set_num_threads(threads)
        for batch in options.batches:
            full, tiny, ratio = timed(models, batch=batch, size=options.size, rounds=options.rounds)
            where = f"{threads} thread{'s' * (threads > 1)}, batch {batch}, {options.size} px"
            print(f"{where:<30} full {full:9.2f} ms, tiny {tiny:8.2f} ms: {ratio:.1f} times faster", flush=True)
    if options.data:
        full, tiny = quality(models, data=options.data, size=options.size, count=options.count)
        print(f"PSNR on {options.data}: full {full:.2f} dB, tiny {tiny:.2f} dB, difference {tiny - full:+.2f} dB")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", nargs="?", help="a first stage with a tiny decoder: file or run folder")
    parser.add_argument("--full", help="the first stage that it was made for")
    parser.add_argument("--architecture", help="a recipe to time with random weights instead, e.g. kl-f8")
    parser.add_argument(
        "--tiny", nargs="*", default=[], help="with --architecture: fields of the tiny decoder, key=value"
    )
    parser.add_argument("--size", type=int, default=64, help="side of the pictures in pixels [64]")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8], help="batch sizes to time [1 8]")
    parser.add_argument("--rounds", type=int, default=15, help="pairs of calls that are timed [15]")
    parser.add_argument("--data", help="a data source whose test pictures both reconstruct")
    parser.add_argument("--count", type=int, default=256, help="pictures of it at most [256]")
    options = parser.parse_args()
    if not options.architecture and not (options.model and options.full):
        parser.error("give MODEL and --full MODEL, or --architecture RECIPE")
    try:
        measured(options)
    except DarkroomError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
