"""HTML for pages that stand alone: elements that escape what is put into them, pictures as data, one style sheet."""

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, final

from PIL import Image

from darkroom.core.pictures import MODES

_VOID: Final = frozenset({"img", "meta"})
_LOSSLESS: Final = 128  # pixels: larger pictures without transparency are kept as JPEG
_COARSE: Final = 96  # pixels: smaller pictures are shown with their pixels, not blurred
# Nothing may be fetched and nothing may run, whatever a caption says.
_POLICY: Final = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@final
class Html(str):
    """Text that is markup already; any other text is escaped where it is put into an element."""

    __slots__ = ()


def element(name: str, *inside: str, css: str = "", attributes: Mapping[str, str | int] | None = None) -> Html:
    """An element with its children, in which text that is no `Html` is escaped; css: its classes."""
    values = {**({"class": css} if css else {}), **(attributes or {})}
    words = "".join(f' {key}="{html.escape(str(value))}"' for key, value in values.items())
    if name in _VOID:
        return Html(f"<{name}{words}>")
    return Html(f"<{name}{words}>{joined(inside)}</{name}>")


def joined(parts: Iterable[str]) -> Html:
    """Parts one after another, escaped where they are no `Html`."""
    return Html("".join(part if isinstance(part, Html) else html.escape(part) for part in parts))


def section(title: str, *inside: str) -> Html:
    """A part of the page with its heading."""
    return element("section", element("h2", title), *inside)


def paragraphs(sentences: Iterable[str], *, css: str = "") -> Html:
    """Each in a paragraph of its own; empty ones are left out."""
    return joined(element("p", each, css=css) for each in sentences if each)


def details(summary: str, *inside: str) -> Html:
    """What is there for whoever asks."""
    return element("details", element("summary", summary), *inside)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Html:
    """A table whose first column names the rows."""
    top = element("tr", *(element("th", each, attributes={"scope": "col"}) for each in head))
    body = [
        element("tr", element("th", row[0], attributes={"scope": "row"}), *(element("td", each) for each in row[1:]))
        for row in rows
    ]
    return element("div", element("table", element("thead", top), element("tbody", *body)), css="wide")


def figures(pairs: Iterable[tuple[str, str, str]]) -> Html:
    """Tiles of (name, value, what else there is to say)."""
    tiles = [
        element("div", element("dt", name), element("dd", value, *([element("small", more)] if more else [])))
        for name, value, more in pairs
    ]
    return element("dl", *tiles, css="tiles")


def code(text: str) -> Html:
    """Lines as they are typed."""
    return element("pre", element("code", text))


def image(picture: Image.Image, *, alt: str, most: int = 256) -> Html:
    """A picture as part of the page, made smaller when a side has more than `most` pixels."""
    shown = _plain(picture)
    shown.thumbnail((most, most))
    width, height = shown.size
    attributes = {"src": data_uri(shown), "alt": alt, "width": width, "height": height}
    return element("img", css="coarse" if max(shown.size) <= _COARSE else "", attributes=attributes)


def data_uri(picture: Image.Image) -> str:
    """The picture in the address itself: PNG where it is small or transparent, else JPEG."""
    buffer = io.BytesIO()
    if max(picture.size) <= _LOSSLESS or picture.mode == "RGBA":
        picture.save(buffer, format="PNG", optimize=True)
        kind = "png"
    else:
        picture.save(buffer, format="JPEG", quality=90)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def document(title: str, *inside: str) -> str:
    """The whole page."""
    meta = [
        {"charset": "utf-8"},
        {"name": "viewport", "content": "width=device-width, initial-scale=1"},
        {"http-equiv": "Content-Security-Policy", "content": _POLICY},
        {"name": "color-scheme", "content": "light dark"},
    ]
    head = [*(element("meta", attributes=each) for each in meta), element("title", title), Html(_STYLE)]
    body = element("body", element("main", *inside))
    return f"<!doctype html>\n{element('html', element('head', *head), body, attributes={'lang': 'en'})}\n"


def _plain(picture: Image.Image) -> Image.Image:
    """A copy that every browser can show, without what its file said of it."""
    if picture.mode in MODES.values():
        return picture.copy()
    return picture.convert("RGBA" if picture.has_transparency_data else "RGB")


_STYLE: Final = """<style>
:root {
  color-scheme: light dark;
  --paper: #faf8f4; --card: #ffffff; --ink: #221f1b; --soft: #6b645a; --rule: #e4ded3;
  --light: #b5361c; --cool: #23698c; --warn: #fdeee6;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #171413; --card: #211d1b; --ink: #efe8df; --soft: #a89e92; --rule: #38312d;
    --light: #ff7a55; --cool: #6bb6d8; --warn: #38211a;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 66rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 2.2rem; line-height: 1.15; margin: 0 0 .4rem; letter-spacing: -.02em; overflow-wrap: anywhere; }
h1::before { content: ""; display: block; width: 2.6rem; height: .35rem; border-radius: 1rem;
  background: var(--light); margin-bottom: 1rem; }
h2 { font-size: 1.3rem; margin: 3rem 0 .6rem; letter-spacing: -.01em; }
h3 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
p { margin: .5rem 0; max-width: 46rem; overflow-wrap: anywhere; }
.lead { font-size: 1.15rem; }
.soft, small, figcaption, summary, dt { color: var(--soft); }
small, figcaption, dt, .soft { font-size: .85rem; }
small { display: block; font-weight: normal; line-height: 1.35; }
.warning { background: var(--warn); border-left: .3rem solid var(--light); border-radius: .4rem;
  padding: .8rem 1rem; max-width: none; }
img { display: block; width: 100%; height: auto; border-radius: .35rem;
  background: repeating-conic-gradient(#d9d4cb 0 25%, #f4f1ea 0 50%) 0 0 / 14px 14px; }
.coarse { image-rendering: pixelated; }
figure { margin: 0; min-width: 0; }
figcaption { margin-top: .25rem; line-height: 1.3; overflow-wrap: break-word; hyphens: auto; }
.pictures, .pairs, .cards { display: grid; gap: 1rem .9rem; margin: 1rem 0; }
.pictures { grid-template-columns: repeat(auto-fill, minmax(7rem, 1fr)); }
.pairs { grid-template-columns: repeat(auto-fill, minmax(6.9rem, 1fr)); }
.cards { grid-template-columns: repeat(auto-fill, minmax(min(21rem, 100%), 1fr)); }
.pairs img + img { margin-top: .25rem; }
.clip { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 3; overflow: hidden; }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: .6rem; padding: .8rem; }
.row { display: grid; gap: .5rem; grid-template-columns: 1.25fr repeat(3, 1fr); align-items: start; }
.copied { border-color: var(--light); box-shadow: 0 0 0 1px var(--light); }
.badge { display: inline-block; background: var(--light); color: var(--paper); border-radius: 1rem;
  padding: .05rem .6rem; font-size: .8rem; font-weight: 600; margin-bottom: .5rem; }
.tiles { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); margin: 1.5rem 0; }
.tiles div { background: var(--card); border: 1px solid var(--rule); border-radius: .6rem; padding: .7rem .9rem; }
dd { margin: 0; font-size: 1.35rem; font-weight: 600; line-height: 1.3; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .8rem 0; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .35rem 1.2rem .35rem 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
thead th { color: var(--soft); font-size: .85rem; font-weight: normal; }
tbody th { font-weight: normal; min-width: 6rem; overflow-wrap: break-word; }
pre { background: var(--card); border: 1px solid var(--rule); border-radius: .5rem; padding: .7rem .9rem;
  margin: .4rem 0; overflow-x: auto; font: .85rem/1.5 ui-monospace, monospace; }
details { margin: .7rem 0; }
summary { cursor: pointer; }
details ol { padding-left: 2.6rem; font-size: .85rem; max-height: 26rem; overflow: auto; overflow-wrap: anywhere; }
.chips { list-style: none; padding: 0; margin: .6rem 0; display: flex; flex-wrap: wrap; gap: .35rem; }
.chips li { background: var(--card); border: 1px solid var(--rule); border-radius: 1rem; padding: .05rem .6rem;
  font-size: .85rem; overflow-wrap: anywhere; }
.charts { display: grid; gap: 1.2rem 2rem; grid-template-columns: repeat(auto-fill, minmax(min(25rem, 100%), 1fr)); }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font: 12px system-ui, sans-serif; }
.grid { stroke: var(--rule); stroke-width: 1; }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
.main { stroke: var(--light); } .faint { stroke: var(--light); stroke-width: 1; opacity: .3; }
.held { stroke: var(--cool); } .level { stroke: var(--soft); stroke-dasharray: 5 4; stroke-width: 1.5; }
.dot { fill: var(--cool); }
.key { display: inline-block; width: 1.1rem; border-top: 3px solid; margin: 0 .35rem .2rem 0; vertical-align: middle; }
.key.main { border-color: var(--light); } .key.faint { border-color: var(--light); }
.key.held { border-color: var(--cool); } .key.level { border-color: var(--soft); border-top-style: dashed; }
.legend span + span { margin-left: 1rem; }
@media (max-width: 40rem) {
  main { padding: 1.5rem 1rem 3rem; }
  .pictures { grid-template-columns: repeat(3, 1fr); gap: .8rem .6rem; }
  .pairs { grid-template-columns: repeat(4, 1fr); gap: .6rem; }
  .card { padding: .6rem; }
}
footer { margin-top: 3.5rem; border-top: 1px solid var(--rule); padding-top: .8rem; color: var(--soft);
  font-size: .85rem; }
</style>"""
