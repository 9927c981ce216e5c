"""Pictures in and out: PIL outside, tensors in [-1, 1] inside, PNG with metadata on disk."""

import math
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from darkroom.core.errors import InputError, escaped, first_line
from darkroom.core.record import atomic, writable_folder
from darkroom.core.shapes import Bytes, Images

# What Pillow may take a file for, whatever its name. Never EPS (its reader starts another program with the file), nor
# kinds without a signature, which random bytes can pass for.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "DIB", "PPM", "AVIF", "JPEG2000")
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
GAP = 2  # pixels between the pictures of a contact sheet


def to_bytes(picture: Image.Image, channels: int = 3) -> Tensor:
    """(c, h, w) uint8 of a picture, converted to 1 (grey), 3 (RGB) or 4 (RGBA) channels."""
    array = np.array(picture.convert(MODES[channels]))
    return rearrange(torch.from_numpy(array), "h w ... -> (...) h w").contiguous()


def from_bytes(pictures: Bytes) -> Images:
    """0..255 to [-1, 1] (x / 127.5 - 1, as the original does)."""
    return pictures.float() / 127.5 - 1


def as_saved(images: Images) -> Images:
    """[-1, 1] to what comes back from disk: clipped, on 256 levels."""
    return ((images.detach().float().clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


def to_pictures(images: Images) -> list[Image.Image]:
    """[-1, 1] to PIL pictures, rounded to the nearest of 256 levels, clipped."""
    levels = ((images.detach().float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu()
    arrays = [rearrange(level, "c h w -> h w c").squeeze(-1).contiguous().numpy() for level in levels]
    return [Image.fromarray(array) for array in arrays]


def contact_sheet(pictures: Sequence[Image.Image], *, columns: int | None = None) -> Image.Image:
    """Pictures of one size side by side on white, row by row."""
    if not pictures:
        raise ValueError("a contact sheet needs at least one picture")
    width, height = pictures[0].size
    across = columns or math.ceil(math.sqrt(len(pictures)))
    down = math.ceil(len(pictures) / across)
    sheet = Image.new("RGB", (across * (width + GAP) + GAP, down * (height + GAP) + GAP), (255, 255, 255))
    for place, picture in enumerate(pictures):
        row, column = divmod(place, across)
        sheet.paste(picture.convert("RGB"), (GAP + column * (width + GAP), GAP + row * (height + GAP)))
    return sheet


def save_png(picture: Image.Image, path: Path, *, metadata: Mapping[str, str] | None = None) -> Path:
    """Write a PNG atomically, with text metadata, escaped where it is no text; the folder is made if needed."""
    writable_folder(path.parent)
    info = PngInfo()
    for key, value in (metadata or {}).items():
        info.add_itxt(key, escaped(value))
    with atomic(path) as temporary:
        picture.save(temporary, format="PNG", pnginfo=info)
    return path


def open_picture(path: Path) -> Image.Image:
    """A decoded picture; `InputError` when the file is missing, no picture, or a pipe, which might never end."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise OSError("it is no file")
        with Image.open(path, formats=FORMATS) as picture:
            picture.load()
            return picture
    except FileNotFoundError:
        raise InputError(f"{path}: no such picture") from None
    except Exception as error:  # bytes made to confuse a reader make Pillow raise anything
        raise InputError(f"{path}: not a readable picture ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    match error:
        case UnidentifiedImageError():
            return f"none of {', '.join(FORMATS)}"
        case OSError(strerror=str(reason)):
            return reason
        case _:
            return first_line(error) or type(error).__name__
