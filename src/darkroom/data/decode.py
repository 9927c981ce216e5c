"""Picture files of any kind to upright RGB, and checks that a file is whole: of its header, or of every pixel."""

import contextlib
import os
import stat
import warnings
from collections.abc import Generator
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from darkroom.core.errors import DataError
from darkroom.core.pictures import FORMATS
from darkroom.data.damage import damage
from darkroom.data.examples import Size
from darkroom.data.kinds import CONTENT, content, legible
from darkroom.data.place import Place, opened, size_of
from darkroom.data.remote import Unreachable, shown

SMALLEST = 8  # pixels: the shorter side of a picture worth learning from
HEAVIEST = 2**30  # bytes of a file: of `LARGEST` pixels with four levels of 16 bits even plain ones have 0.7 GB
SLIMMEST = 50  # times the shorter side: a square cut from a longer one shows next to nothing of it
LARGEST = 89_478_485  # pixels: what Pillow warns of by default; decoded and converted that is a gigabyte
_TOO_LARGE = f"more than {LARGEST // 10**6} million pixels"
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)
_TAIL = 4096


def check(place: Place) -> Size | str:
    """Width and height as displayed, from the header, or the reason why the picture cannot be used.

    It raises only when a host does not answer.
    """
    try:
        with quiet():
            return _header(place)
    except UnidentifiedImageError:
        return _no_picture(place)
    except FileNotFoundError:
        link = isinstance(place, Path) and place.is_symlink()
        return "a link to a file that is not there" if link else "no such file"
    except Unreachable:  # which says nothing of the picture
        raise
    except Exception as error:  # bytes made to confuse a reader make Pillow raise anything
        return _too_large(error) or f"not readable ({_brief(error)})"


def check_pixels(place: Place, *, alpha: bool = False) -> Size | str:
    """Width and height after decoding everything as `decode` does, or the reason why that fails; raises as `check`.

    To be called within `quiet`. It also finds damage that Pillow passes over in silence.
    """
    try:
        with _opened(place) as picture:
            kind, turned = picture.format, upright(picture)
        if _see_through(turned) and turned.convert("RGBA").getchannel("A").getextrema() == (0, 0):
            return "nothing to see: all of it is transparent"
        return damage(place, kind) or colours(turned, alpha=alpha).size
    except MemoryError:  # of the machine and the moment, not of the picture
        raise DataError(f"{printable(place)}: not enough memory to decode it; free some, or remove it") from None
    except Unreachable:
        raise
    except Exception as error:
        return _too_large(error) or f"cannot be decoded ({_brief(error)})"


@contextlib.contextmanager
def quiet() -> Generator[None]:
    """Pillow's remarks stay off the terminal, and too many pixels are an error.

    Warnings are filtered for the whole process: enter this in one thread at a time, outside of worker threads.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def decode(place: Place, *, alpha: bool = False) -> Image.Image:
    """The first frame upright as RGB (transparent parts on white), or RGBA with `alpha`."""
    try:
        with _opened(place) as picture:
            return colours(upright(picture), alpha=alpha)
    except Unreachable:
        raise
    except Exception as error:  # as in `check`
        raise DataError(
            f"{printable(place)}: the picture cannot be decoded ({_brief(error)}); mend or remove it"
        ) from None


def decode_map(place: Place) -> np.ndarray:
    """Class ids (h, w) of a palette or grey picture; `DataError` for colours."""
    try:
        return _ids(place)
    except Unreachable:
        raise
    except Exception as error:  # as in `check`
        raise DataError(f"{printable(place)}: the map cannot be decoded ({_brief(error)})") from None


def levels(picture: Image.Image) -> Image.Image:
    """A map that was saved in colours, all of them equal and opaque, as the grey that it is; others as they came."""
    if picture.mode not in ("LA", "RGB", "RGBA"):
        return picture
    bands = picture.split()
    if picture.mode != "RGB":
        *bands, alpha = bands
        if alpha.getextrema() != (255, 255):
            return picture
    first = bands[0].tobytes()
    return bands[0] if all(each.tobytes() == first for each in bands[1:]) else picture


def check_map(place: Place, *, size: Size) -> str | None:
    """Why a map, wholly decoded, does not fit a picture of this size; None where it does. As `check_pixels`."""
    try:
        height, width = _ids(place).shape
        if (width, height) != size:
            return f"its map is {width} x {height} pixels, the picture {size[0]} x {size[1]}"
        with _opened(place) as picture:
            kind = picture.format
        wrong = damage(place, kind)
    except Unreachable:
        raise
    except Exception as error:  # as in `check`
        wrong = f"cannot be decoded ({_brief(error)})"
    return None if wrong is None else f"its map: {wrong}"


def printable(place: Place) -> str:
    """A path as text that can always be written, also when its bytes are not UTF-8, or steer a terminal."""
    name = place.as_posix() if isinstance(place, Path) else f"{shown(place.shard.place)}: {place.name}"
    return legible(os.fsencode(name))


@contextlib.contextmanager
def _opened(place: Place) -> Generator[Image.Image]:
    """The picture in a file, not decoded yet; a pipe would be waited for, perhaps for ever, and is refused."""
    if isinstance(place, Path) and not stat.S_ISREG(place.stat().st_mode):
        raise OSError("not a file")
    file = contextlib.nullcontext(place) if isinstance(place, Path) else opened(place)
    with file as given, Image.open(given, formats=FORMATS) as picture:
        yield picture


def _ids(place: Place) -> np.ndarray:
    with _opened(place) as picture:
        ids = np.array(levels(picture))
    if ids.ndim != 2:
        raise ValueError("a map holds one class id per pixel (grey or palette PNG), this one has colours; write grey")
    return ids.astype(np.int32) if ids.dtype != np.uint8 else ids


def _header(place: Place) -> Size | str:
    if isinstance(place, Path) and not stat.S_ISREG(place.stat().st_mode):
        return "not a file"
    if (size := size_of(place)) == 0:
        return "empty file"
    if size > HEAVIEST:  # most decoders want all of it in memory
        return f"{size / 1e9:.1f} GB in one file"
    with _opened(place) as picture:
        kind, (width, height) = picture.format, picture.size
        turned = _orientation(picture) in _SIDEWAYS
    odd = _odd_size(width, height)
    if odd is None and _truncated(place, kind):
        odd = "truncated"
    return odd or ((height, width) if turned else (width, height))


def _odd_size(width: int, height: int) -> str | None:
    if width * height > LARGEST:
        return _TOO_LARGE
    if min(width, height) < SMALLEST:
        return f"only {width} x {height} pixels, {SMALLEST} at least"
    if max(width, height) > SLIMMEST * min(width, height):
        return f"{width} x {height} pixels, one side more than {SLIMMEST} times the other"
    return None


def _no_picture(place: Place) -> str:
    """What is there instead of a picture, where its first bytes tell."""
    try:
        with opened(place) as file:
            return content(file.read(CONTENT))
    except OSError as error:
        return f"not readable ({_brief(error)})"


def _orientation(picture: Image.Image) -> int:
    """The EXIF orientation of a picture, 1 to 8; 1 where it is missing or garbled."""
    if picture.format == "TIFF":  # Pillow turns these itself, and tells their displayed size
        return 1
    try:
        return int(Image.Image.getexif(picture).get(_ORIENTATION, 1))  # PNG's own would decode the picture
    except Exception:  # the pixels may well be sound
        return 1


def upright(picture: Image.Image) -> Image.Image:
    """The first frame, decoded and turned upright."""
    turn = _TURNS.get(_orientation(picture))
    picture.load()
    return picture if turn is None else picture.transpose(turn)


def _see_through(picture: Image.Image) -> bool:
    return "A" in picture.mode or picture.mode.endswith("a") or "transparency" in picture.info


def colours(picture: Image.Image, *, alpha: bool = False) -> Image.Image:
    """A picture of any mode as RGB, transparent parts on white, or RGBA with `alpha`."""
    if picture.mode.startswith(("I", "F")):
        picture = _eight_bits(picture)
    if alpha:
        return picture.convert("RGBA")
    if not _see_through(picture):
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


def _truncated(place: Place, kind: str | None) -> bool:
    """Is the end of a PNG or JPEG missing? Other formats are taken on trust until they are decoded."""
    if kind not in ("PNG", "JPEG", "MPO"):
        return False
    with opened(place) as file:
        file.seek(max(0, size_of(place) - _TAIL))
        if (b"IEND" if kind == "PNG" else b"\xff\xd9") in file.read():
            return False
        file.seek(0)
        data = file.read()  # a long trailer
    if kind == "PNG":
        return b"IEND" not in data
    return data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda")  # the end must follow the start of the last scan


def _too_large(error: Exception) -> str | None:
    bomb = isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning))
    return _TOO_LARGE if bomb else None


def _brief(error: Exception) -> str:
    """An error in a few words that can be written on one line; odd kinds are named."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = (str(error).splitlines() or [""])[0][:120].encode(errors="backslashreplace").decode()
    usual = isinstance(error, (OSError, SyntaxError, ValueError, EOFError)) and text
    return text if usual else f"{type(error).__name__}: {text}" if text else type(error).__name__
