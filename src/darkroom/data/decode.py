"""Picture files of any kind to upright RGB, and cheap checks that a file is whole."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from darkroom.core.errors import DataError
from darkroom.data.examples import Size

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".avif"}
)
SMALLEST = 8  # pixels: the shorter side of a picture worth learning from
_PROBLEMS = (OSError, SyntaxError, ValueError, EOFError, MemoryError, Image.DecompressionBombError)
_ORIENTATION = 0x0112
_SIDEWAYS = (5, 6, 7, 8)
_TAIL = 4096


def check(path: Path) -> Size | str:
    """Width and height as displayed, from the header, or the reason why the picture cannot be used."""
    try:
        if path.stat().st_size == 0:
            return "empty file"
        with Image.open(path) as picture:
            kind, size = picture.format, picture.size
            turned = kind in ("JPEG", "MPO", "WEBP", "TIFF") and (picture.getexif().get(_ORIENTATION) in _SIDEWAYS)
        if min(size) < SMALLEST:
            return f"only {size[0]} x {size[1]} pixels, {SMALLEST} at least"
        if _truncated(path, kind):
            return "truncated"
    except UnidentifiedImageError:
        return "not a picture"
    except _PROBLEMS as error:
        return f"not readable ({_brief(error)})"
    return (size[1], size[0]) if turned else size


def decode(path: Path, *, alpha: bool = False) -> Image.Image:
    """The first frame upright as RGB (transparent parts on white), or RGBA with `alpha`."""
    try:
        with Image.open(path) as picture:
            picture.load()
            return _colours(ImageOps.exif_transpose(picture), alpha=alpha)
    except _PROBLEMS as error:
        raise DataError(f"{path}: the picture cannot be decoded ({_brief(error)}); mend or remove it") from None


def decode_map(path: Path) -> np.ndarray:
    """Class ids (h, w) of a palette or grey picture; `DataError` for colours."""
    try:
        with Image.open(path) as picture:
            ids = np.array(picture)
    except _PROBLEMS as error:
        raise DataError(f"{path}: the map cannot be decoded ({_brief(error)})") from None
    if ids.ndim != 2:
        raise DataError(f"{path}: a map holds one class id per pixel (grey or palette PNG), this one has colours")
    return ids.astype(np.int32) if ids.dtype != np.uint8 else ids


def _colours(picture: Image.Image, *, alpha: bool) -> Image.Image:
    if picture.mode.startswith(("I", "F")):
        picture = _eight_bits(picture)
    transparent = "A" in picture.mode or picture.mode.endswith("a") or "transparency" in picture.info
    if alpha:
        return picture.convert("RGBA")
    if not transparent:
        return picture.convert("RGB")
    over = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", over.size, (255, 255, 255, 255)), over).convert("RGB")


def _eight_bits(picture: Image.Image) -> Image.Image:
    """16-bit and floating grey levels to 8 bits; the range is the type's, not the picture's."""
    levels = np.nan_to_num(np.array(picture).astype(np.float64))
    top = float(levels.max(initial=0.0))
    if picture.mode == "F":
        full = 1.0 if top <= 1 else 255.0 if top <= 255 else 65535.0
    else:
        full = 65535.0 if picture.mode.startswith("I;16") or top > 255 else 255.0
    return Image.fromarray(np.rint(np.clip(levels / full, 0, 1) * 255).astype(np.uint8))


def _truncated(path: Path, kind: str | None) -> bool:
    """Is the end of a PNG or JPEG missing? Other formats are taken on trust until they are decoded."""
    if kind not in ("PNG", "JPEG", "MPO"):
        return False
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL))
        tail = file.read()
        if kind == "PNG":
            return b"IEND" not in tail
        if b"\xff\xd9" in tail:
            return False
        file.seek(0)
        data = file.read()  # a long trailer: the end marker must follow the start of the last scan
        return data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda")


def _brief(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:120]
