"""`darkroom reconstruct`: pictures through a first stage and back."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, final

import typer

from darkroom.core.errors import escaped

EXAMPLE = """
darkroom reconstruct emoji my-pictures --grid
darkroom reconstruct runs/tiny-vq-0 one.jpg two.png --size 256 --out seen
"""

ON_SHEET, CELL = 64, 256  # pictures on the contact sheet, and the largest side of one there, in pixels
COLUMNS = 8
LONGEST = 10**6  # pixels of a side that are asked for
SHEET = "grid.png"
NAME_BYTES = 200  # file systems end a name at 255, and ours gets a number, a suffix and, while written, a prefix


def run(
    model: Annotated[str, typer.Argument(help="Built-in name, model file, checkpoint or run folder.")],
    pictures: Annotated[list[Path], typer.Argument(help="Picture files, or folders of them.")],
    *,
    out: Annotated[Path, typer.Option(help="Folder for NAME.png of each.")] = Path("reconstructions"),
    grid: Annotated[bool, typer.Option("--grid", help="Also write grid.png, originals above (64 at most).")] = False,
    size: Annotated[
        int | None, typer.Option(min=1, max=LONGEST, help="Resize the shorter side first; needed above 2 MP.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML of an original checkpoint.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto (float32), float32, bfloat16, float16.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Report what was made as JSON.")] = False,
) -> None:
    """Encode and decode pictures of any size, and say how much was kept; names never collide."""
    from darkroom.cli.answers import note, say
    from darkroom.cli.watch import gentle_stop
    from darkroom.core.compute import sampling_compute
    from darkroom.tasks.first_stage import check_channels, open_first_stage

    paths = _listed(pictures, out=out)
    compute = sampling_compute(device, precision)
    opened = open_first_stage(model, config=config, compute=compute)
    check_channels(opened.model)
    for sentence in opened.odd:
        note(sentence)
    work = _Work(opened=opened, compute=compute, out=out, size=size, grid=grid)
    with gentle_stop() as stopping:
        for _ in work.each(paths):
            if stopping():
                break
        work.end()
    say(work.table(), work.report(), as_json=as_json)
    if stopping() and work.seen < len(paths):
        raise KeyboardInterrupt


@final
@dataclass(kw_only=True)
class _Work:
    """What is asked for, and what has come of it so far."""

    opened: Any
    compute: Any
    out: Path
    size: int | None
    grid: bool
    seen: int = 0
    made: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[dict[str, str]] = field(default_factory=list)
    sheet: list[tuple[Any, Any]] = field(default_factory=list)
    sheet_path: Path | None = None

    def each(self, paths: Sequence[Path]) -> Iterator[None]:
        """Picture by picture: through the model and onto the disk; what cannot be used is told and left out."""
        from darkroom.cli.watch import Counter
        from darkroom.core.errors import InputError, ModelFileError
        from darkroom.data.metadata import printable
        from darkroom.tasks.first_stage import reconstruct_file
        from darkroom.tasks.note import check_ours

        counter = Counter("pictures")
        targets = [self.out / f"{name}.png" for name in _names(paths, reserved={"grid"} if self.grid else set())]
        check_ours([*targets, self.out / SHEET] if self.grid else targets)
        for path, target in zip(paths, targets, strict=True):
            self.seen += 1
            try:
                found = reconstruct_file(path, self.opened.model, compute=self.compute, size=self.size)
            except ModelFileError:  # the model is at fault, not this picture
                raise
            except InputError as error:
                self.left_out.append({"source": printable(path), "reason": escaped(str(error))})
            else:
                self._keep(found, path, target)
            counter.show(self.seen, len(paths))
            yield
        if not self.made:
            more = f" (and {len(paths) - 1} more)" if len(paths) > 1 else ""
            raise InputError(f"nothing could be reconstructed: {self.left_out[0]['reason']}{more}")

    def _keep(self, found: Any, path: Path, target: Path) -> None:
        from darkroom.checkpoint.store import spec_hash
        from darkroom.core.pictures import save_png
        from darkroom.data.metadata import printable
        from darkroom.tasks.note import KEY

        note = {
            "model": self.opened.name,
            "spec_hash": spec_hash(self.opened.model.spec),
            "reconstruction_of": escaped(path.name),
            "source_hash": found.source_hash,
        }
        save_png(found.picture, target, metadata={KEY: json.dumps(note, ensure_ascii=False)})
        self.made.append(
            {
                "source": printable(path),
                "picture": str(target),
                "width": found.picture.width,
                "height": found.picture.height,
                "psnr": found.psnr,
                "ssim": found.ssim,
            }
        )
        if self.grid and len(self.sheet) < ON_SHEET:
            self.sheet.append((_small(found.original), _small(found.picture)))

    def end(self) -> None:
        """Write the contact sheet of what was done, and say what was left out."""
        from darkroom.cli.answers import note

        for each in self.left_out:
            note(f"left out: {each['reason']}")
        if self.sheet:
            from darkroom.core.pictures import save_png
            from darkroom.tasks.note import KEY

            text = json.dumps({"model": self.opened.name, "sheet_of": len(self.sheet)}, ensure_ascii=False)
            self.sheet_path = save_png(_sheet(self.sheet), self.out / SHEET, metadata={KEY: text})

    def report(self) -> dict[str, Any]:
        """What was made and what was left out, as JSON values."""
        mean = {key: _mean([each[key] for each in self.made]) for key in ("psnr", "ssim")}
        return {
            "model": self.opened.name,
            "pictures": self.made,
            "mean": mean,
            "left_out": self.left_out,
            "grid": None if self.sheet_path is None else str(self.sheet_path),
        }

    def table(self) -> str:
        """A line a picture, and the mean."""
        if not self.made:
            return "nothing was reconstructed"
        mean = self.report()["mean"]
        rows = [(Path(e["picture"]).name, f"{e['height']}x{e['width']}", e) for e in self.made]
        total = f"mean of {len(rows)}"
        width = max(len(total), *(len(name) for name, _, _ in rows))
        lines = [f"{name:<{width}}  {size:>11}  {_kept(each)}" for name, size, each in rows]
        where = f"in {self.out}" + (f", all on {self.sheet_path}" if self.sheet_path else "")
        return "\n".join([*lines, f"{total:<{width}}  {'':>11}  {_kept(mean)}", where])


def _listed(places: Sequence[Path], *, out: Path) -> list[Path]:
    """Picture files in the order given, folders by name, none twice, results of before left out; `InputError`."""
    from darkroom.core.errors import InputError
    from darkroom.data.metadata import pictures_in

    found: dict[Path, Path] = {}
    target = _real(out)
    for place in places:
        if not place.exists():
            raise InputError(f"{place}: no such picture or folder")
        inside = sorted(pictures_in(place)) if place.is_dir() else [place]
        if place.is_dir() and target != _real(place):
            inside = [path for path in inside if target not in _real(path).parents]
        inside = [path for path in inside if path.is_file() or not path.exists()]  # a pipe would be waited for
        if not inside and not place.is_dir():
            raise InputError(f"{place}: not a file or folder")
        if not inside:
            raise InputError(f"{place}: no pictures in this folder")
        for path in inside:
            found.setdefault(_real(path), path)
    if any(path.parent == target for path in found):
        raise InputError(f"{out}: the pictures to reconstruct are in this folder; choose another --out")
    return list(found.values())


def _real(path: Path) -> Path:
    """Where a path leads; a link to itself, for which `resolve` raises, to itself."""
    return Path(os.path.realpath(path))


def _names(paths: Sequence[Path], *, reserved: set[str]) -> list[str]:
    """A name for each result: that of its picture, numbered from 2 where it was taken (also in other letters' case)."""
    taken, names = set(reserved), list[str]()
    for path in paths:
        stem = path.stem.encode(errors="ignore")[:NAME_BYTES].decode(errors="ignore") or "picture"
        name, number = stem, 1
        while name.casefold() in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.casefold())
        names.append(name)
    return names


def _small(picture: Any) -> Any:
    """As it stands on the sheet."""
    from PIL import ImageOps

    return ImageOps.contain(picture, (CELL, CELL)) if max(picture.size) > CELL else picture


def _sheet(pairs: Sequence[tuple[Any, Any]]) -> Any:
    """Originals above their reconstructions, eight columns, on cells of one size."""
    from PIL import Image

    from darkroom.core.pictures import contact_sheet

    width, height = (max(original.size[axis] for original, _ in pairs) for axis in (0, 1))
    empty = Image.new("RGB", (width, height), (255, 255, 255))

    def cell(picture: Any) -> Any:
        placed = empty.copy()
        placed.paste(picture.convert("RGB"), ((width - picture.width) // 2, (height - picture.height) // 2))
        return placed

    columns = min(COLUMNS, len(pairs))
    cells: list[Any] = []
    for start in range(0, len(pairs), columns):
        row = pairs[start : start + columns]
        for which in (0, 1):
            cells += [*(cell(pair[which]) for pair in row), *[empty] * (columns - len(row))]
    return contact_sheet(cells, columns=columns)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _kept(figures: Any) -> str:
    psnr, ssim = figures["psnr"], figures["ssim"]
    return f"PSNR {psnr:6.2f} dB" + ("" if ssim is None else f"  SSIM {ssim:.4f}")
