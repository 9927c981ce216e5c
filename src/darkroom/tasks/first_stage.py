"""A first stage alone: opened from any source, and pictures of any size sent through it."""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from darkroom.autoencoder.model import Autoencoder
from darkroom.checkpoint.store import StoredModel, build, first_stage_of
from darkroom.core.compute import Compute, lacks_memory
from darkroom.core.errors import InputError, ModelFileError
from darkroom.core.pictures import MODES, as_saved, from_bytes, to_bytes, to_pictures
from darkroom.core.shapes import Images
from darkroom.data.decode import decode
from darkroom.data.transforms import resize
from darkroom.diffusion.model import ModelSpec
from darkroom.metrics.pairs import WINDOW, psnr, ssim
from darkroom.tasks.find import find, name_of, read_stage

LARGEST_SIDE: Final = 4096  # of training pictures that a card can be believed to tell
LARGEST: Final = 2**21  # pixels of one picture: 1920 x 1080 fits; kl-f8 takes about 3 kB for each


@final
@dataclass(frozen=True, eq=False)
class OpenedFirstStage:
    """A first stage and what its file says.

    name: of the built-in model, file or run · size: side in pixels of the pictures it was trained on, if that is
    known · seed: that kept test pictures apart from those, if the file tells it · odd: sentences about a foreign file.
    """

    model: Autoencoder
    name: str
    size: int | None = None
    seed: int | None = None
    odd: tuple[str, ...] = ()


@final
@dataclass(frozen=True, eq=False)
class Reconstructed:
    """A picture and what the first stage makes of it, of equal size; `ssim` is None below 11 pixels.

    source_hash: of the file's bytes (sha256, twelve hexadecimal digits).
    """

    original: Image.Image
    picture: Image.Image
    psnr: float
    ssim: float | None
    source_hash: str


def open_first_stage(source: str | Path, *, compute: Compute, config: str | Path | None = None) -> OpenedFirstStage:
    """The first stage of whatever `load_autoencoder` takes, ready to work; float32 weights on the device.

    `ModelFileError` as there, and for a model that works on pixels.
    """
    path = find(source)
    stored = read_stage(path, config=config)
    if isinstance(stored.spec, ModelSpec) and stored.spec.first_stage.kind == "pixels":
        raise ModelFileError(f"{source}: this model works on pixels, it has no first stage")
    model = build(first_stage_of(stored))
    assert isinstance(model, Autoencoder)
    seed = _of_data(stored, "seed")
    return OpenedFirstStage(
        compute.host(model).eval(), name=name_of(path), size=trained_size(stored), seed=seed, odd=stored.odd
    )


@torch.no_grad()
def through(model: Autoencoder, images: Images, *, compute: Compute) -> tuple[Images, Int[Tensor, "b h w"] | None]:
    """What is left of pictures of any size, as it would be saved (float32, CPU), and the codes used (VQ).

    The posterior's mean is decoded. Sides that are no multiples of f are continued by reflection, and cut again.
    `ModelFileError` when the answer is not finite.
    """
    height, width = images.shape[-2:]
    with compute.autocast():
        made = model.reconstruct(compute.place(padded(images, model.spec.factor)))
    found = made.images[..., :height, :width].float().cpu()
    if not bool(found.isfinite().all()):
        raise ModelFileError(
            "the first stage answers numbers that are not finite: its weights are damaged, or need --precision float32"
        )
    return as_saved(found), None if made.indices is None else made.indices.cpu()


def padded(images: Images, factor: int) -> Float[Tensor, "b channels _height _width"]:
    """Pictures continued to the right and below up to multiples of `factor`: by reflection, tiny ones by their edge."""
    height, width = images.shape[-2:]
    below, right = -height % factor, -width % factor
    mode = "reflect" if below < height and right < width else "replicate"
    return F.pad(images, (0, right, 0, below), mode=mode) if below or right else images


def reconstruct_file(path: Path, model: Autoencoder, *, compute: Compute, size: int | None = None) -> Reconstructed:
    """A picture file through the first stage at its own size, or with its shorter side resized to `size` first.

    Colours are converted to the model's channels. `DataError` for a file that cannot be decoded, `InputError` for
    more than `LARGEST` pixels, and when memory does not suffice.
    """
    channels = check_channels(model)
    original = to_bytes(decode(path, alpha=channels == 4), channels)
    height, width = original.shape[-2:]
    scale = 1.0 if size is None else size / min(height, width)
    if height * width * scale**2 > LARGEST:
        fits = max(1, math.isqrt(LARGEST * min(height, width) // max(height, width)))
        raise InputError(
            f"{path}: {round(width * scale)} x {round(height * scale)} pixels are more than {LARGEST} together; "
            f"--size {fits} or less makes it small enough"
        )
    pixels = original if size is None else resize(original, size)
    images = from_bytes(rearrange(pixels, "c h w -> 1 c h w"))
    try:
        made, _ = through(model, images, compute=compute)
    except (RuntimeError, MemoryError) as error:
        if not lacks_memory(error):
            raise
        raise InputError(f"{path}: {width} x {height} pixels need more memory than there is; use --size") from None
    return Reconstructed(
        *to_pictures(torch.cat([images, made])),
        psnr=float(psnr(images, made)),
        ssim=float(ssim(images, made)) if min(images.shape[-2:]) >= WINDOW else None,
        source_hash=hashlib.sha256(path.read_bytes()).hexdigest()[:12],
    )


def check_channels(model: Autoencoder) -> int:
    """The channels of the model's pictures; `InputError` when no picture file has so many."""
    channels = model.spec.image_channels
    if channels not in MODES:
        raise InputError(
            f"this first stage takes pictures of {channels} channels; files have {', '.join(map(str, MODES))}"
        )
    return channels


def trained_size(stored: StoredModel) -> int | None:
    """The side in pixels of the pictures that a model was trained on, if that is known."""
    if isinstance(stored.spec, ModelSpec):
        return stored.spec.image_size
    size = _of_data(stored, "size")
    return size if size is not None and 0 < size <= LARGEST_SIDE else None


def _of_data(stored: StoredModel, name: str) -> int | None:
    """A whole number that the card tells of the training data."""
    match stored.card:
        case {"data": {**facts}} if type(facts.get(name)) is int and facts[name] >= 0:
            return facts[name]
        case _:
            return None
