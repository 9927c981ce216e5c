"""What `darkroom sample` does with a settled request: pictures in a folder, their sheet, what is said of them."""

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

LONG = 10.0  # seconds of drawing, after which it is said what would be faster
ROW = 12  # pictures on one row of a sheet, where a row has a meaning
LARGEST_SHEET = 2**28  # pixels: 0.8 GB of memory


@final
@dataclass(eq=False)
class Work:
    """One settled request on its way to files."""

    drawing: Any
    request: Any
    out: Path
    grid: bool

    def __post_init__(self) -> None:
        """Everything that can be refused is refused here, before the first step."""
        from darkroom.core.parallel import on_first

        self.columns = _columns(self.request)
        if self.grid:
            _check_sheet(self.request, columns=self.columns)
        self.paths = [self.out / f"{place:04}.png" for place in range(self.request.total)]
        self.sheet = self.out / "grid.png" if self.grid else None
        on_first(self._claim)

    def _claim(self) -> None:
        from darkroom.core.record import writable_folder
        from darkroom.tasks.note import check_ours

        writable_folder(self.out)
        check_ours([*self.paths, self.out / "grid.png"] if self.grid else self.paths)

    def draw(self, batch: int) -> None:
        """Draw and write the pictures one after the other, then the sheet; Ctrl-C keeps those written.

        Several processes share them, in smaller batches where each would otherwise not have one.
        """
        from darkroom.cli.answers import note
        from darkroom.cli.watch import Line
        from darkroom.core.compute import faster
        from darkroom.core.parallel import on_first, own_rows, world_size
        from darkroom.tasks.generate import generate
        from darkroom.tasks.settle import hardly_meant

        drawing, request = self.drawing, self.request
        for sentence in [*drawing.odd, *hardly_meant(drawing, request), *_noted(drawing, request), *self._left_over()]:
            note(sentence)
        line, began, done = Line(), time.monotonic(), 0
        batch = min(batch, -(-request.total // world_size()))
        own = own_rows(request.total, batch=batch)
        drawn = generate(drawing, request, batch=batch, on_step=_progress(line), places=own)
        try:
            for place, sampled in zip(own, drawn, strict=True):
                _write(sampled.picture, self.paths[place], metadata=sampled.metadata)
                done += 1
        except KeyboardInterrupt:
            line.say(f"{done} of {len(own)} pictures are in {self.out}")
            raise
        if time.monotonic() - began > LONG and (hint := faster(drawing.compute)) is not None:
            note(hint)
        on_first(self._lay_out)

    def _lay_out(self) -> None:
        """All pictures on one sheet, where one is asked for."""
        from darkroom.core.pictures import contact_sheet, open_picture
        from darkroom.tasks.note import KEY, XMP_KEY, provenance

        if self.sheet is None:
            return
        note = {"model": self.drawing.name, "sheet_of": len(self.paths), "columns": self.columns}
        sheet = contact_sheet([open_picture(path) for path in self.paths], columns=self.columns)
        text = json.dumps(note, ensure_ascii=False)
        _write(sheet, self.sheet, metadata={KEY: text, XMP_KEY: provenance(painted=bool(self.request.masks))})

    def _left_over(self) -> list[str]:
        """A sentence when the folder keeps pictures of an earlier command beside the new ones."""
        new = {path.name for path in [*self.paths, self.out / "grid.png"]}
        old = sorted(path.name for path in self.out.glob("*.png") if path.name not in new and path.stem.isdecimal())
        if not old:
            return []
        which = old[0] if len(old) == 1 else f"{old[0]} to {old[-1]} ({len(old)} pictures)"
        return [f"{self.out} also holds {which} of an earlier command"]

    def report(self) -> dict[str, Any]:
        """What was made, as JSON values."""
        sheet = None if self.sheet is None else str(self.sheet)
        return {"model": self.drawing.name, "pictures": [str(path) for path in self.paths], "grid": sheet}

    def sentence(self) -> str:
        """What was made."""
        count = len(self.paths)
        sheet = "" if self.sheet is None else f", together on {self.sheet}"
        return f"{count} picture{'' if count == 1 else 's'} in {self.out}{sheet}"


def _progress(line: Any) -> Callable[[int, int], None]:
    from darkroom.cli.watch import clock

    begun = time.monotonic()

    def show(done: int, total: int) -> None:
        left = (time.monotonic() - begun) / done * (total - done)
        line.show(f"step {done}/{total}  {clock(left)} left", last=done == total)

    return show


def _write(picture: Any, path: Path, *, metadata: Mapping[str, str]) -> None:
    from darkroom.core.errors import InputError
    from darkroom.core.pictures import save_png

    try:
        save_png(picture, path, metadata=metadata)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from None


def _columns(request: Any) -> int:
    """Of the sheet: a row for each prompt, label or way where it is short enough, else a square."""
    groups = request.total // request.count
    if (groups > 1 or request.on_a_way) and 1 < request.count <= ROW:
        return request.count
    return math.ceil(math.sqrt(request.total))


def _check_sheet(request: Any, *, columns: int) -> None:
    from darkroom.core.errors import InputError

    height, width = math.ceil(request.total / columns) * request.size[0], columns * request.size[1]
    if height * width > LARGEST_SHEET:
        raise InputError(
            f"{request.total} pictures of {request.size[0]}x{request.size[1]} make a sheet of {height}x{width} pixels, "
            f"more than fit on one; leave --grid out"
        )


def _noted(drawing: Any, request: Any) -> list[str]:
    """A sentence when a prompt is the name of a file, has words the model never learnt, or is not read to its end."""
    files = [text for text in request.prompts if Path(text).suffix and os.path.exists(text)]
    said = [f"{text!r} is taken as words; --prompts reads a file, --model takes a model" for text in files[:1]]
    tokenizer = drawing.tokenizer
    if tokenizer is None:
        return said
    texts = dict.fromkeys((*request.prompts, *request.to_prompts, *request.negatives))
    strange = list(dict.fromkeys(word for text in texts for word in tokenizer.spelt(text)))
    if strange:
        words = ", ".join(map(repr, strange[:3])) + (f" and {len(strange) - 3} more" if len(strange) > 3 else "")
        said.append(f"{drawing.name} hardly knows {words}: no such word, or next to none, was in its captions")
    long = [text for text in texts if tokenizer.cuts(text)]
    if not long:
        return said
    which = "the prompt is" if len(long) == 1 else f"{len(long)} prompts are"
    return [
        *said,
        f"{which} longer than the {tokenizer.length} tokens this model reads; what comes after has no effect",
    ]
