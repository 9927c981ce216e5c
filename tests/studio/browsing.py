"""A studio on this machine, a real Chromium before it, and what both of them did."""

import json
import re
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from darkroom.scenes.read import read
from darkroom.scenes.vocabulary import SceneObject
from darkroom.serve.api import build
from darkroom.serve.engine import Engine
from darkroom.serve.guard import LOCAL
from darkroom.serve.server import configured
from darkroom.serve.shelf import stocked
from darkroom.serve.store import Store
from listening import listening

SECONDS = 25_000.0  # of a wait, in milliseconds


@contextmanager
def studio(
    folder: Path, *, models: Sequence[str] = (), tokens: Sequence[str] = (), follow: Path | None = None
) -> Generator[str]:
    """The address of a server with a studio, until the block ends; skipped without gradio."""
    pytest.importorskip("gradio", reason="needs gradio, the extra [studio]")
    from darkroom.studio.mount import mount

    engine = Engine(stocked(models, memory=2**31, device="cpu"), Store(folder))
    app = mount(build(engine, tokens=tokens, hosts=LOCAL), engine, follow=follow, tokens=tokens)
    with listening(configured(app, grace=5), closing=lambda: engine.closing(0)) as url:
        yield url


@dataclass
class Visit:
    """A page that is open, and what went wrong on it. elsewhere: requests to other hosts."""

    page: Any
    url: str
    wrong: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        def seen(request: Any) -> None:
            if not request.url.startswith((self.url, "data:", "blob:")):
                self.elsewhere.append(request.url)

        self.page.on("request", seen)
        self.page.on("console", lambda said: self.wrong.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.set_default_timeout(SECONDS)

    def open(self) -> "Visit":
        """Go to the studio and wait until it is there."""
        self.page.goto(self.url)
        self.page.locator("#dr-text-draw").wait_for()
        return self

    def turn(self, title: str) -> None:
        """Click on a tab, in the menu of those that have no room where it is there."""
        tab = self.page.locator('button[role="tab"]:visible', has_text=re.compile(f"^\\s*{title}\\s*$"))
        if not tab.count():
            self.page.locator("#dr-tabs .overflow-menu > button").click()
            tab = self.page.locator(".overflow-dropdown button", has_text=title)
        tab.first.click()

    def fill(self, **settings: Any) -> None:
        """Type into settings, by what they are called on the page."""
        for name, value in settings.items():
            self.page.locator(f"#dr-{name} input").first.fill(str(value))

    def draw(self, tab: str) -> dict[str, Any]:
        """Click on Draw and wait; answers the job."""
        result = self.page.locator("darkroom-result")
        result.evaluate("element => { delete element.dataset.done; }")
        self.page.locator(f"#dr-{tab}-draw").click()
        return self.done()

    def done(self) -> dict[str, Any]:
        """The job that is being drawn, when it has ended."""
        self.page.wait_for_function(
            "() => { const r = document.querySelector('darkroom-result');"
            " return r.dataset.done || r.querySelector('.wrong'); }"
        )
        said = self.page.locator("darkroom-result .dr-said").inner_text()
        found = self.page.locator("darkroom-result").get_attribute("data-done")
        assert found, said
        return json.loads(self.page.request.get(f"{self.url}/v1/jobs/{found}").text())

    def picture(self, job: dict[str, Any], place: int = 0) -> Image.Image:
        """A picture of a job."""
        return Image.open(BytesIO(self.page.request.get(self.url + job["pictures"][place]["url"]).body()))

    def read(self, job: dict[str, Any], place: int = 0) -> list[SceneObject]:
        """The objects that are seen in it."""
        return read(np.array(self.picture(job, place).convert("RGB")))

    def drag(self, selector: str, *places: tuple[float, float]) -> None:
        """With the pointer down, from place to place, each in shares of an element's width and height."""
        self.page.locator(selector).scroll_into_view_if_needed()
        frame = self.page.locator(selector).bounding_box()
        at = [(frame["x"] + x * frame["width"], frame["y"] + y * frame["height"]) for x, y in places]
        self.page.mouse.move(*at[0])
        self.page.mouse.down()
        for each in at[1:]:
            self.page.mouse.move(*each, steps=4)
        self.page.mouse.up()


def png(picture: Image.Image) -> bytes:
    """A picture as a file holds it."""
    written = BytesIO()
    Image.Image.save(picture, written, "PNG")
    return written.getvalue()


def file(name: str, data: bytes) -> dict[str, Any]:
    """A file as playwright gives it to a page."""
    return {"name": name, "mimeType": "image/png", "buffer": data}
