"""Takes the pictures of the studio in docs/pictures: the built-in models on offer, a real Chromium before them.

    python tools/draw_studio.py --out docs/pictures --follow runs/shapes-text

Needs playwright and Debian's chromium, as the studio's tests do. Look at every picture before it is kept.
"""

import argparse
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from measure_serve import server
from PIL import Image
from playwright.sync_api import sync_playwright

from darkroom.scenes.draw import draw as drawn
from darkroom.tasks.find import DEFAULT

MODELS = ("shapes-class", "shapes-layout", "shapes-semantic", "shapes-superres", "shapes-inpaint")  # beside the default
DESK = {"viewport": {"width": 1200, "height": 760}}
PHONE = {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark", "has_touch": True, "device_scale_factor": 2}
PATIENCE = 120_000.0  # milliseconds
SEED = 11  # of the scenes of which one is painted into
Place = tuple[float, float]


def turn(page: Any, title: str) -> None:
    """To a tab, in the menu of those that have no room where it is there."""
    tab = page.locator(f'button[role="tab"]:visible:text-is("{title}")')
    if not tab.count():
        page.locator("#dr-tabs .overflow-menu > button").click()
        tab = page.locator(".overflow-dropdown button", has_text=title)
    tab.first.click()


def fill(page: Any, **settings: int) -> None:
    """Type into settings by their names."""
    for name, value in settings.items():
        page.locator(f"#dr-{name} input").first.fill(f"{value}")


def drag(page: Any, where: str, *, places: Sequence[Place]) -> None:
    """With the pointer down, from place to place, in shares of an element."""
    page.locator(where).scroll_into_view_if_needed()
    frame = page.locator(where).bounding_box()
    at = [(frame["x"] + x * frame["width"], frame["y"] + y * frame["height"]) for x, y in places]
    page.mouse.move(*at[0])
    page.mouse.down()
    for each in at[1:]:
        page.mouse.move(*each, steps=4)
    page.mouse.up()


def given(picture: Image.Image) -> dict[str, Any]:
    """A picture as a page is given one."""
    written = io.BytesIO()
    picture.save(written, "PNG")
    return {"name": "given.png", "mimeType": "image/png", "buffer": written.getvalue()}


def wait(page: Any, tab: str) -> None:
    """Click on Draw, and wait for the pictures."""
    result = page.locator("darkroom-result")
    result.evaluate("element => { delete element.dataset.done; }")
    page.locator(f"#dr-{tab}-draw").click()
    page.wait_for_function("() => document.querySelector('darkroom-result').dataset.done")


def text(page: Any) -> None:
    """Four pictures of a prompt."""
    page.fill("#dr-text-prompt textarea", "a small blue star above a large red heart")
    fill(page, seed=7, count=4)
    wait(page, "text")


def layout(page: Any) -> None:
    """Two boxes that are drawn and named."""
    fill(page, count=2)
    turn(page, "Layout")
    for name, places in (("star", ((0.06, 0.06), (0.44, 0.44))), ("circle", ((0.52, 0.5), (0.9, 0.88)))):
        drag(page, "darkroom-boxes .dr-stage", places=places)
        page.select_option("#dr-layout-category", name)
    wait(page, "layout")


def semantic(page: Any) -> None:
    """Two things that are painted."""
    turn(page, "Map")
    page.locator("darkroom-map .dr-range").fill("20")
    for name, place in (("circle", (0.3, 0.35)), ("heart", (0.7, 0.66))):
        page.click(f'darkroom-map [data-name="{name}"]')
        drag(page, "darkroom-map canvas", places=(place, place))
    wait(page, "map")


def inpaint(page: Any) -> None:
    """A scene of two things, one of which is painted over."""
    scene = next(each for each in (drawn(SEED, index) for index in range(99)) if len(each.objects) == 2)
    turn(page, "Inpaint")
    page.set_input_files("darkroom-hole input[type=file]", given(Image.fromarray(scene.image)))
    page.locator("darkroom-hole canvas").wait_for()
    page.locator("darkroom-hole .dr-tools .dr-range").fill("10")
    x, y, width, height = scene.objects[0].box
    rows = [y + height * share for share in (0, 0.25, 0.5, 0.75, 1)]
    drag(page, "darkroom-hole canvas", places=[(side, row) for row in rows for side in (x, x + width)])
    wait(page, "inpaint")


def enlarge(page: Any) -> None:
    """A scene made small, enlarged, and the slider between them."""
    scene = Image.fromarray(drawn(SEED, 0).image)
    turn(page, "Enlarge")
    page.set_input_files("darkroom-small input", given(scene.resize((16, 16), Image.Resampling.BICUBIC)))
    page.locator("darkroom-small .dr-given").wait_for()
    wait(page, "enlarge")
    for slider in page.locator("darkroom-result .dr-range").all():
        slider.fill("22")  # through the thing


def training(page: Any) -> None:
    """The run that is followed."""
    turn(page, "Training")
    page.locator("darkroom-follow polyline").first.wait_for()


def gallery(page: Any) -> None:
    """What was drawn."""
    turn(page, "Gallery")
    page.locator(".dr-card").first.wait_for()


def shot(page: Any, out: Path, name: str) -> None:
    """The whole page as a PNG."""
    page.evaluate("() => { scrollTo(0, 0); document.activeElement?.blur(); }")
    page.mouse.move(0, 0)
    page.wait_for_function("() => [...document.images].every((image) => image.complete)")
    page.wait_for_timeout(600)  # colours fade
    page.screenshot(path=out / f"studio-{name}.png", full_page=True)


STEPS: tuple[tuple[str, Callable[[Any], None]], ...] = (
    ("text", text),
    ("layout", layout),
    ("map", semantic),
    ("inpaint", inpaint),
    ("enlarge", enlarge),
    ("gallery", gallery),
    ("training", training),
)


def main() -> None:
    """Take them all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    parser.add_argument("--follow", help="a run to be seen on the page for trainings")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    words = ["--follow", options.follow] if options.follow else []
    with server(DEFAULT, *MODELS, *words) as (url, _), sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=options.chromium, args=["--no-sandbox"])
        for screen, steps in ((DESK, STEPS), (PHONE, (("phone", text),))):
            context = browser.new_context(**screen)
            page = context.new_page()
            page.set_default_timeout(PATIENCE)
            page.goto(url)
            page.locator("#dr-text-draw").wait_for()
            for name, step in steps:
                if name != "training" or options.follow:
                    step(page)
                    shot(page, options.out, name)
            context.close()
        browser.close()


if __name__ == "__main__":
    main()
