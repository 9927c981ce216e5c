"""The models on offer: outlines of all of them at hand, weights loaded when they are drawn with."""

import contextlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, final

from darkroom.checkpoint.diffusers import is_folder
from darkroom.core.errors import InputError, did_you_mean
from darkroom.serve.limits import Refused
from darkroom.serve.sketch import Sketcher
from darkroom.tasks.find import DEFAULT, built_in, find
from darkroom.tasks.load import load, outline
from darkroom.tasks.model import Model

FLOAT: Final = 4  # bytes of a weight in memory


@final
@dataclass(frozen=True, eq=False)
class Offer:
    """A model on offer. source: what `load` takes · outline: the model without weights."""

    source: str
    outline: Model

    @property
    def name(self) -> str:
        """What requests call it."""
        return self.outline.name

    @property
    def bytes(self) -> int:
        """Memory that its weights take."""
        module = self.outline.diffusion
        return FLOAT * sum(each.numel() for each in (*module.parameters(), *module.buffers()))


@final
@dataclass(frozen=True, eq=False)
class Opened:
    """A model whose weights are in memory, and what shows its latents."""

    model: Model
    sketcher: Sketcher


@final
@dataclass(eq=False)
class Shelf:
    """The offers by name, the first of which is the default; weights of several within `memory` bytes.

    The model longest unused leaves for another. `open` is called by one thread only, all else by any.
    """

    offers: Mapping[str, Offer]
    memory: int
    decoders: Sequence[str] = ()
    device: str = "auto"
    dtype: str = "auto"
    engine: str = "auto"
    _opened: OrderedDict[str, Opened] = field(default_factory=OrderedDict, init=False)

    def offer(self, name: str | None) -> Offer:
        """The offer of this name, or the default; `Refused` with 404 where there is none."""
        if name is None:
            return next(iter(self.offers.values()))
        if name not in self.offers:
            sentence = f"no model {name!r} is offered here{did_you_mean(name, self.offers)}"
            raise Refused(sentence, status=404, code="no_model")
        return self.offers[name]

    def open(self, name: str) -> Opened:
        """The model, loaded now if it is not in memory yet; errors as for `load`."""
        if name not in self._opened:
            offer = self.offers[name]
            while self._opened and self.used + offer.bytes > self.memory:
                self._opened.popitem(last=False)
            model = load(offer.source, device=self.device, dtype=self.dtype, engine=self.engine)
            self._opened[name] = Opened(model, _sketcher(model, self.decoders))
        self._opened.move_to_end(name)
        return self._opened[name]

    @property
    def used(self) -> int:
        """Bytes of the weights in memory."""
        return sum(self.offers[name].bytes for name in tuple(self._opened))

    @property
    def loaded(self) -> tuple[str, ...]:
        """Names of the models in memory."""
        return tuple(self._opened)


def stocked(
    sources: Sequence[str],
    *,
    memory: int,
    folder: Path | None = None,
    decoders: Sequence[str] = (),
    device: str = "auto",
    dtype: str = "auto",
    engine: str = "auto",
) -> Shelf:
    """A shelf with these models and those in a folder; with all built-in ones where neither is given.

    decoders: tiny decoders for previews, each for the models whose latents it was made for. `InputError` for a source
    that is no model, for two of one name, and for a model larger than the memory.
    """
    chosen = [Offer(source, outline(source)) for source in sources] + ([] if folder is None else _inside(folder))
    offers: dict[str, Offer] = {}
    for each in chosen or _built_in():
        if each.name in offers:
            raise InputError(f"two models are called {each.name!r}: {offers[each.name].source} and {each.source}")
        offers[each.name] = each
    for each in offers.values():
        if each.bytes > memory:
            raise InputError(f"{each.name} takes {each.bytes / 2**30:.3g} GB, more than --memory allows")
    for each in decoders:
        find(each)
    return Shelf(offers, memory, decoders=decoders, device=device, dtype=dtype, engine=engine)


def _built_in() -> list[Offer]:
    """Built-in models that draw, the default first."""
    return sorted(_drawing(list(built_in())), key=lambda each: each.name != DEFAULT)


def _drawing(sources: Sequence[str]) -> list[Offer]:
    """Those of them that are models which draw."""
    found: list[Offer] = []
    for each in sources:
        with contextlib.suppress(InputError):
            found.append(Offer(each, outline(each)))
    return found


def _inside(folder: Path) -> list[Offer]:
    """Model files, run folders and diffusers folders that lie in a folder and draw; `InputError` if there are none."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of models")
    found = [
        str(each)
        for each in sorted(folder.iterdir())
        if each.suffix == ".safetensors" or (each / "model.safetensors").exists() or is_folder(each)
    ]
    drawing = _drawing(found)
    if not drawing:
        raise InputError(f"{folder}: no models in this folder")
    return drawing


def _sketcher(model: Model, decoders: Sequence[str]) -> Sketcher:
    """With the first of these decoders that was made for the model's latents, else its own."""
    for each in decoders:
        with contextlib.suppress(InputError):
            return Sketcher(model.with_decoder(each))
    return Sketcher(model)
