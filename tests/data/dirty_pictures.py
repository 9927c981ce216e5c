"""Files that a folder of pictures may hold: strange ones that can be read, and broken ones with their reasons."""

import io
import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Make = Callable[[Path], object]
SIZE = (64, 48)


def scene(number: int = 0) -> Image.Image:
    """A picture whose corners differ, with some noise: what is turned, cut or scrambled shows."""
    across, down = np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1]))
    noise = np.random.default_rng(number).integers(0, 24, (SIZE[1], SIZE[0], 3))
    levels = np.stack([across * 3, down * 4, np.full_like(down, 90)], -1) + noise
    return Image.fromarray(levels.astype(np.uint8))


def encoded(kind: str, picture: Image.Image | None = None, **options: Any) -> bytes:
    buffer = io.BytesIO()
    (picture or scene()).save(buffer, kind, **options)
    return buffer.getvalue()


def holding(data: bytes) -> Make:
    return lambda path: path.write_bytes(data)


def cut(kind: str, share: float = 0.5, end: bytes = b"") -> Make:
    """The beginning of a picture, as an interrupted download leaves it, perhaps with an end that hides it."""
    data = encoded(kind)
    return holding(data[: int(len(data) * share)] + end)


def changed(kind: str, places: slice, to: bytes) -> Make:
    data = bytearray(encoded(kind))
    data[places] = to
    return holding(bytes(data))


def chunk(kind: bytes, body: bytes, *, checksum: int | None = None) -> bytes:
    """A part of a PNG."""
    crc = zlib.crc32(kind + body) if checksum is None else checksum
    return len(body).to_bytes(4, "big") + kind + body + crc.to_bytes(4, "big")


def bomb(path: Path) -> None:
    """A header that promises 60,000 by 60,000 pixels."""
    side = (60_000).to_bytes(4, "big")
    header = chunk(b"IHDR", side + side + bytes([8, 2, 0, 0, 0]))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b""))


def wrong_checksum(path: Path) -> None:
    """Pixels that decode, and whose checksum says that they are not those that were written."""
    data = encoded("PNG")
    end = data.index(b"IEND") - 4
    path.write_bytes(data[: end - 4] + b"\0\0\0\0" + data[end:])


def odd_remark(path: Path) -> None:
    """A comment with a wrong checksum, which nobody needs."""
    data = encoded("PNG")
    end = data.index(b"IEND") - 4
    path.write_bytes(data[:end] + chunk(b"tEXt", b"Comment\0hello", checksum=7) + data[end:])


def archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.png", encoded("PNG"))


def transparent(path: Path) -> None:
    Image.new("RGBA", SIZE, (255, 0, 0, 0)).save(path)


def veiled(path: Path) -> None:
    """The scene where it is opaque, red where it is not."""
    over = scene().convert("RGBA")
    over.paste((255, 0, 0, 0), (0, 0, 20, 48))
    over.save(path)


def sixteen_bits(path: Path) -> None:
    Image.fromarray(np.array(scene().convert("L")).astype(np.uint16) * 257).save(path)


def animated(path: Path) -> None:
    options: dict[str, Any] = {"lossless": True} if path.suffix == ".webp" else {}
    scene().save(path, save_all=True, append_images=[Image.new("RGB", SIZE)] * 2, **options)


def turned(path: Path) -> None:
    """Stored on its side, with the note how to hold it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    options: dict[str, Any] = {"quality": 95} if path.suffix == ".jpg" else {}
    scene().transpose(Image.Transpose.ROTATE_90).save(path, exif=exif, **options)


def garbled_exif(path: Path) -> None:
    scene().save(path, exif=b"Exif\0\0II*\0\xff\xff\xff\xff\x01\x02\x03")


def linked(target: str) -> Make:
    return lambda path: path.symlink_to(target)


def white(picture: Image.Image) -> Image.Image:
    """What `veiled` looks like on paper."""
    seen = picture.copy()
    seen.paste((255, 255, 255), (0, 0, 20, 48))
    return seen


def grey(picture: Image.Image) -> Image.Image:
    return picture.convert("L").convert("RGB")


def palette(path: Path) -> None:
    scene().quantize(256).save(path)


ISO = b"\0\0\0\x18ftyp"  # how MP4 and HEIC begin
NOISE = np.random.default_rng(7).bytes(3000)
END_OF_PNG = chunk(b"IEND", b"")

# name -> (how it is made, what is seen there, levels that it may differ by in the mean)
READ: dict[str, tuple[Make, Callable[[Image.Image], Image.Image], float]] = {
    "cmyk.jpg": (lambda path: scene().convert("CMYK").save(path, quality=95), Image.Image.copy, 8),
    "progressive.jpg": (holding(encoded("JPEG", quality=95, progressive=True)), Image.Image.copy, 8),
    "restarts.jpg": (holding(encoded("JPEG", quality=95, restart_marker_blocks=3)), Image.Image.copy, 8),
    "sixteen.png": (sixteen_bits, grey, 1),
    "sixteen.tif": (sixteen_bits, grey, 1),
    "palette.png": (palette, Image.Image.copy, 8),
    "veiled.png": (veiled, white, 0),
    "veiled.webp": (lambda path: path.write_bytes(encoded("PNG", white(scene()))), white, 0),
    "animated.gif": (animated, Image.Image.copy, 8),
    "animated.webp": (animated, Image.Image.copy, 0),
    "animated.png": (animated, Image.Image.copy, 0),
    "turned.jpg": (turned, Image.Image.copy, 8),
    "turned.png": (turned, Image.Image.copy, 0),
    "turned.tif": (turned, Image.Image.copy, 0),
    "garbled-exif.jpg": (garbled_exif, Image.Image.copy, 10),
    "is-a-png.jpg": (holding(encoded("PNG")), Image.Image.copy, 0),
    "is-a-jpeg.png": (holding(encoded("JPEG", quality=95)), Image.Image.copy, 8),
    "is-a-bmp.gif": (holding(encoded("BMP")), Image.Image.copy, 0),
    "LOUD.PNG": (holding(encoded("PNG", optimize=True)), Image.Image.copy, 0),
    "trailer.png": (holding(encoded("PNG") + bytes(9000)), Image.Image.copy, 0),
    "trailer.jpg": (holding(encoded("JPEG", quality=95) + bytes(9000)), Image.Image.copy, 8),
    "odd-remark.png": (odd_remark, Image.Image.copy, 0),
    "flat.jpg": (
        holding(encoded("JPEG", Image.new("RGB", (160, 160), (7, 7, 7)), optimize=True)),
        Image.Image.copy,
        255,
    ),
    os.fsdecode(b"caf\xe9.png"): (holding(encoded("PNG", compress_level=1)), Image.Image.copy, 0),
}

# name -> (how it is made, what its reason says)
BROKEN: dict[str, tuple[Make, str]] = {
    "empty.png": (holding(b""), "empty file"),
    "cut.png": (cut("PNG"), "truncated"),
    "cut.jpg": (cut("JPEG", 0.8), "truncated"),
    "cut.gif": (cut("GIF"), "cannot be decoded .*truncated"),
    "cut.webp": (cut("WEBP"), "not readable"),
    "cut.tif": (cut("TIFF"), "cannot be decoded .*truncated"),
    "cut.bmp": (cut("BMP"), "cannot be decoded .*truncated"),
    "cut.ppm": (cut("PPM"), "cannot be decoded .*truncated"),
    "head.jpg": (cut("JPEG", 0.02), "not readable|truncated"),
    "head.gif": (cut("GIF", 0.01), "truncated or damaged"),
    "capped.png": (cut("PNG", end=END_OF_PNG), "cannot be decoded|damaged"),
    "capped.jpg": (cut("JPEG", 0.8, end=b"\xff\xd9"), "pixels are missing"),
    "capped-late.jpg": (cut("JPEG", 0.97, end=b"\xff\xd9"), "pixels are missing"),
    "wrong-checksum.png": (wrong_checksum, "checksum"),
    "zeroed.png": (changed("PNG", slice(900, 1100), bytes(200)), "cannot be decoded|damaged"),
    "zeroed.jpg": (changed("JPEG", slice(900, 1000), bytes(100)), "cannot be decoded|damaged"),
    "noise.png": (holding(NOISE), "not a picture$"),
    "zeros.png": (holding(bytes(3000)), "not a picture but zeros"),
    "text.jpg": (holding(b"hello, this is no picture"), "not a picture but text"),
    "page.png": (holding(b"<!doctype html><title>404</title>"), "not a picture but text"),
    "reply.webp": (holding('{"error": "nicht möglich"}'.encode()), "not a picture but text"),
    "archive.png": (archive, "a zip archive"),
    "film.png": (holding(ISO + b"isom" + NOISE), "a video"),
    "phone.jpg": (holding(ISO + b"heic" + NOISE), "HEIC"),
    "letter.png": (holding(b"%PDF-1.7\n" + NOISE), "a PDF"),
    "program.jpg": (holding(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n%%EndComments\n"), "PostScript"),
    "layers.png": (holding(b"8BPS\0\1" + bytes(20)), "a Photoshop file"),
    "dot.png": (lambda path: Image.new("RGB", (1, 1)).save(path), "only 1 x 1 pixels"),
    "line.png": (lambda path: Image.new("RGB", (3, 5000)).save(path), "only 3 x 5000 pixels"),
    "strip.png": (lambda path: Image.new("RGB", (1000, 9)).save(path), "1000 x 9 pixels, one side more than 50"),
    "bomb.png": (bomb, "more than 89 million pixels"),
    "gigantic.png": (lambda path: Image.new("1", (10_000, 10_000)).save(path), "more than 89 million pixels"),
    "folder.png": (Path.mkdir, "a folder"),
    "gone.png": (linked("nowhere"), "a link to a file that is not there"),
    "loop.png": (linked("loop.png"), "symbolic links"),
    "pipe.png": (os.mkfifo, "not a file"),
    "device.png": (linked("/dev/zero"), "not a file"),
    "elsewhere": (linked(".."), "a link to a folder"),
    "frameless.gif": (holding(b"GIF89a\x40\0\x30\0\0\0\0\x3b"), "truncated or damaged"),
    "transparent.png": (transparent, "transparent"),
    "phone.heic": (holding(ISO + b"heic"), r"\.heic pictures cannot be read"),
    "drawing.svg": (holding(b"<svg/>"), r"\.svg pictures cannot be read"),
    "layers.psd": (holding(b"8BPS"), r"\.psd pictures cannot be read"),
    "camera.CR2": (holding(NOISE), r"\.cr2 pictures cannot be read"),
    "film.mp4": (holding(ISO + b"isom"), "a video"),
    "kept.png": (holding(encoded("PNG", scene(1))), "the same picture as clean-1.png"),
    os.fsdecode(b"caf\xe9-cut.png"): (cut("PNG", 0.7), "truncated"),
}
