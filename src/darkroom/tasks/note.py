"""What a picture says about how it was made, and the request that makes it again."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, final

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from darkroom.core.errors import InputError
from darkroom.core.pictures import open_picture
from darkroom.core.spec import Spec, parse
from darkroom.data.decode import printable
from darkroom.tasks.request import EACH, PICTURES, Label, PictureField, Placed, Request

KEY: Final = "darkroom"  # of the text entry in a PNG, and in `picture.info`
XMP_KEY: Final = "XML:com.adobe.xmp"  # of XMP in a PNG (XMP specification, part 3, 1.1.5)
SOURCES: Final = "http://cv.iptc.org/newscodes/digitalsourcetype/"
_WHERE_IT_APPLIES: Final = (
    "decoder",
    "precision",
    "to_prompt",
    "to_label",
    "to_seed",
    "at",
    "layout",
    "pictures",
    "strength",
    "inverted",
    "guide_weight",
    "match",
    "window",
)


@final
class DecoderNote(Spec):
    """A decoder other than the model's own."""

    name: str
    spec_hash: str


@final
class Note(Spec):
    """How one picture was made; no clock values, so equal requests give equal notes.

    precision: other than float32 · index: of the picture in its seed (in both, between two) · at: its place between
    the first end (prompt, label, seed) and the last (to_prompt, to_label, to_seed), 0 to 1 · pictures: hashes of those
    that were given, by field.
    """

    model: str
    spec_hash: str | None = None
    decoder: DecoderNote | None = None
    precision: str | None = None
    prompt: str | None = None
    label: Label | None = None
    negative: str | None = None
    to_prompt: str | None = None
    to_label: Label | None = None
    to_seed: int | None = None
    at: float | None = None
    layout: tuple[Placed, ...] | None = None
    pictures: dict[PictureField, str] | None = None
    strength: float | None = None
    inverted: bool | None = None
    guide_weight: float | None = None
    match: int | None = None
    seed: int
    size: tuple[int, int]
    window: int | None = None
    solver: str
    steps: int
    eta: float = 0.0
    guidance: float | dict[str, float] = 1.0
    guidance_interval: tuple[float, float | None] | None = None
    guidance_rescale: float = 0.0
    times: str | None = None
    index: int = 0

    def recipe(self) -> dict[str, Any]:
        """Plain values; what applies to few pictures is left out of the others."""
        return {key: value for key, value in self.plain().items() if value is not None or key not in _WHERE_IT_APPLIES}

    def words(self) -> str:
        """The note as a sentence."""
        seeds = f"picture {self.index} of {_on_the_way('seed', self.seed, self.to_seed)}"
        steered = [
            _on_the_way(name, first, last)
            for name, first, last in (("prompt", self.prompt, self.to_prompt), ("label", self.label, self.to_label))
            if first is not None
        ]
        place = [] if self.at is None else [f"{100 * self.at:.3g} % of the way"]
        if self.layout is not None:
            steered.append("layout of " + ", ".join(str(each.category) for each in self.layout))
        steered += [f"{field.replace('_', '-')} {known}" for field, known in (self.pictures or {}).items()]
        settings = f"{self.solver}, {self.steps} steps, guidance {_scales(self.guidance)}"
        return "; ".join([f"drawn by {self.model}", ", ".join([*steered, seeds]), *place, settings])


# Settings that notes and requests call by the same names.
SHARED: Final = tuple(name for name in Note.model_fields if name in Request.model_fields)


def _on_the_way(name: str, first: object, last: object) -> str:
    return f"{name} {first!r}" if last is None else f"{name} {first!r} to {last!r}"


def _scales(guidance: float | Mapping[str, float]) -> str:
    if isinstance(guidance, Mapping):
        return ", ".join(f"{field} {scale:g}" for field, scale in guidance.items())
    return f"{guidance:g}"


def provenance(*, painted: bool = False) -> str:
    """XMP that says with IPTC's digital source type that a picture was generated; painted: in parts, in another.

    Source: IPTC Photo Metadata Standard 2023.1, NewsCodes `trainedAlgorithmicMedia` and its composite.
    """
    kind = "compositeWithTrainedAlgorithmicMedia" if painted else "trainedAlgorithmicMedia"
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
        f'Iptc4xmpExt:DigitalSourceType="{SOURCES}{kind}"/>'
        '</rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
    )


def sign(picture: Image.Image, recipe: Mapping[str, Any]) -> None:
    """Put a note into `picture.info`, and into the PNG that `picture.save` writes, with where it comes from as XMP.

    Pillow writes no text of `info` by itself; it takes what stands in `encoderinfo` as if it were given to `save`.
    Other formats that have a place for XMP (JPEG, WebP, TIFF) get that alone; copies go without.
    """
    text = json.dumps(dict(recipe), ensure_ascii=False)
    picture.info[KEY] = text
    source = provenance(painted="mask" in recipe.get("pictures", {}))
    entry = PngInfo()
    entry.add_itxt(KEY, text)
    entry.add_itxt(XMP_KEY, source)
    picture.encoderinfo = {"pnginfo": entry, "xmp": source.encode()}


def read_note(picture: Image.Image | str | Path) -> Note:
    """The note in a picture or PNG file; `InputError` when there is none, or none that can be drawn again."""
    where = "the picture given" if isinstance(picture, Image.Image) else str(picture)
    opened = picture if isinstance(picture, Image.Image) else open_picture(Path(picture))
    try:
        found = json.loads(str(opened.info.get(KEY)))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not {"model", "seed", "steps"} <= set(found):
        raise InputError(f"{where}: this picture does not say how it was made, so it cannot be repeated")
    return parse(Note, found, where=where)


def check_ours(paths: Iterable[Path]) -> None:
    """`InputError` for what is there already and not from Darkroom: pictures of others are not written over."""
    for path in paths:
        if not path.exists():
            continue
        try:
            with Image.open(path) as picture:
                ours = KEY in picture.info
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            ours = False
        if not ours:
            raise InputError(f"{printable(path)}: this is there already and not from Darkroom; choose another --out")


def again(note: Note, changes: Mapping[str, Any]) -> Request:
    """The request for this picture again, some fields changed (their names are those of `Request`).

    What only made sense beside a changed field goes with it (`_gone`). Pictures are not in a note: `InputError` unless
    each that was given is given again; another one is a change like any.
    """
    for field, known in (note.pictures or {}).items():
        if PICTURES[field] not in changes:
            raise InputError(
                f"this was made with a picture as {field} ({known}), which a note cannot hold; give it again"
            )
    kept: dict[str, Any] = {name: getattr(note, name) for name in SHARED} | {"first": note.index}
    kept |= {of_all: (getattr(note, name),) for name, of_all in EACH.items() if name not in PICTURES}
    gone = _gone(note, changes)
    kept = {key: value for key, value in kept.items() if key not in gone and value not in (None, (None,))}
    return parse(Request, {**kept, **changes}, where="request")


def _gone(note: Note, changes: Mapping[str, Any]) -> set[str]:
    """Of the kept fields those that made sense beside what is changed only.

    Eta with another solver or walked back · what works through guidance when there is none · the place between two ends
    when an end is moved · how a picture was varied when it is painted into · the size when another one is enlarged.
    """
    found: set[str] = set()
    if changes.get("solver", note.solver) != note.solver or changes.get("inverted"):
        found |= {"eta"}
    if changes.get("guidance") == 1:
        found |= {"negatives", "guidance_interval", "guidance_rescale"}
    if {"to_prompts", "to_labels", "to_seed"} & set(changes):
        found |= {"at"}
    if "masks" in changes:
        found |= {"strength", "inverted"}
    if "low_res" in changes:
        found |= {"size"}
    return found


def check_maker(note: Note, *, name: str, card: Mapping[str, Any], where: str) -> None:
    """`InputError` unless the model of this name and card made the picture, with a decoder as it had then."""
    if note.spec_hash not in (None, card.get("spec_hash")):
        raise InputError(f"{where}: made by {note.model!r}, another model than {name}; give the one that made it")
    if note.decoder is not None and "decoder" not in card:
        raise InputError(
            f"{where}: decoded by {note.decoder.name!r} (spec {note.decoder.spec_hash}); "
            f"say where that is with --decoder (in Python with_decoder)"
        )
