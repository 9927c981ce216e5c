"""What is given as a file beside being painted; several prompts; models of two conditions; what is kept of a visit."""

import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from browsing import Visit, file, png, studio
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from darkroom.tasks.model import Model

Small = Callable[[str], Model]
IDS = np.random.default_rng(2).integers(0, 4, (16, 16), dtype=np.uint8)


def colours(height: int = 16, width: int = 16) -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 255, (height, width, 3), dtype=np.uint8))


def in_palette(ids: np.ndarray) -> Image.Image:
    """A map as tools of segmentation write it: numbers of a palette, in 4 bits each."""
    picture = Image.fromarray(ids, "P")
    picture.putpalette([level for number in range(16) for level in (number * 16, 255 - number * 16, 7)])
    return picture


def open_file(visit: Visit, element: str, data: bytes, *, name: str = "given.png") -> str:
    """By the button; answers what the page says then."""
    said = visit.page.locator(f"{element} > [role=status]").last
    said.evaluate("element => { element.textContent = 'waiting'; }")
    with visit.page.expect_file_chooser() as choosing:
        visit.page.locator(element).get_by_role("button", name="Open").last.click()
    choosing.value.set_files(file(name, data))
    visit.page.wait_for_function("element => element.textContent !== 'waiting'", arg=said.element_handle())
    return said.inner_text()


def saved(visit: Visit, element: str) -> bytes:
    with visit.page.expect_download() as downloading:
        visit.page.locator(element).get_by_role("button", name="Save").click()
    return Path(downloading.value.path()).read_bytes()


def levels(visit: Visit, element: str) -> np.ndarray:
    found = visit.page.locator(element).evaluate("element => [element.height, element.width, ...element.levels]")
    return np.array(found[2:]).reshape(found[:2])


def test_a_map_is_opened_drawn_and_saved(newcomer: Visit, small: Small) -> None:
    newcomer.turn("Map")
    element, bits = "darkroom-map", png(in_palette(IDS))
    names = newcomer.page.locator(f"{element} .dr-paint").all_inner_texts()
    assert names == ["0", "1", "2", "3"]  # as many as the model has, though it has no names for them
    assert open_file(newcomer, element, bits) == "16 x 16 pixels"
    newcomer.fill(seed=3)
    (expected,) = small("map").sample(map=in_palette(IDS), seed=3)
    assert newcomer.picture(newcomer.draw("map")).tobytes() == expected.tobytes()
    assert np.array_equal(np.array(Image.open(BytesIO(saved(newcomer, element)))), IDS)
    wide = np.kron(IDS[:6, :10], np.ones((4, 4), np.uint8))
    assert open_file(newcomer, element, png(Image.fromarray(wide))) == "40 x 24 pixels"
    assert np.array_equal(levels(newcomer, element), wide)
    for mode in ("RGB", "RGBA", "LA"):  # grey that was saved in colours
        assert open_file(newcomer, element, png(Image.fromarray(IDS).convert(mode))) == "16 x 16 pixels"
        assert np.array_equal(levels(newcomer, element), IDS)
    large = np.kron(IDS, np.ones((5, 5), np.uint8))
    aside = np.concatenate([np.full((80, 15), 3, np.uint8), large, np.full((80, 15), 3, np.uint8)], axis=1)
    assert open_file(newcomer, element, png(Image.fromarray(aside))) == "110 x 80 pixels, brought to 16 x 16"
    assert np.array_equal(levels(newcomer, element), IDS)
    for wrong, said in (
        (png(colours()), "this PNG has colours"),
        (png(Image.merge("LA", [Image.fromarray(IDS), Image.new("L", (16, 16), 254)])), "this PNG has colours"),
        (png(Image.fromarray(IDS + 4)), "this model has 4 map classes, 0 to 3"),
        (bits[:60], "cannot be read"),
        (b"GIF89a", "this is none"),
    ):
        assert said in open_file(newcomer, element, wrong)
        assert np.array_equal(levels(newcomer, element), IDS)


def test_a_mask_is_opened_and_follows_its_picture(newcomer: Visit, small: Small) -> None:
    page, element = newcomer.page, "darkroom-hole"
    newcomer.turn("Inpaint")
    mask = Image.new("L", (16, 16))
    mask.paste(255, (4, 4, 12, 12))
    assert open_file(newcomer, element, png(mask)) == "Give the picture first."
    picture = page.locator(f"{element} darkroom-image input")
    picture.set_input_files(file("scene.png", png(colours())))
    page.locator(f"{element} canvas").wait_for()
    clear = Image.new("RGBA", (16, 16), (9, 9, 9, 255))  # as OpenAI's masks are
    clear.paste((0, 0, 0, 0), (4, 4, 12, 12))
    for given in (clear, mask):
        assert open_file(newcomer, element, png(given)) == "16 x 16 pixels"
        assert np.array_equal(levels(newcomer, element), np.asarray(mask))
    newcomer.fill(seed=4)
    (expected,) = small("plain").sample(image=colours(), mask=mask, seed=4)
    assert newcomer.picture(newcomer.draw("inpaint")).tobytes() == expected.tobytes()
    for wrong, said in (
        (png(Image.new("L", (20, 16), 255)), "The mask is 20 x 16 pixels and the picture 16 x 16"),
        (png(Image.new("L", (16, 16))), "Nothing is white"),
        (b"none", "no picture that can be read"),
    ):
        assert said in open_file(newcomer, element, wrong)
    picture.set_input_files(file("wide.png", png(colours(30, 50))))
    page.get_by_text("50 x 30 pixels, brought to 16 x 16").wait_for()
    half = Image.new("L", (50, 30))
    half.paste(255, (0, 0, 25, 30))
    assert open_file(newcomer, element, png(half)) == "50 x 30 pixels, brought to 16 x 16"
    assert np.array_equal(levels(newcomer, element), np.tile(np.repeat([255, 0], 8), (16, 1)))


def test_a_layout_is_opened_dropped_and_saved(newcomer: Visit) -> None:
    page, element = newcomer.page, "darkroom-boxes"
    newcomer.turn("Layout")
    things = [{"category": "star", "box": [0.1, 0.2, 0.3, 0.4]}, {"category": "circle", "box": [0.5, 0.5, 0.5, 0.5]}]
    said = open_file(newcomer, element, json.dumps(things).encode(), name="layout.json")
    assert said == "Box 2 of 2 is chosen: circle."
    assert newcomer.draw("layout")["asked"]["layout"] == things
    assert json.loads(saved(newcomer, element)) == things
    numbered = {"objects": [{"category": 2, "box": [0, 0, 1, 1]}]}
    page.locator(f"{element} .dr-stage").evaluate(
        "(stage, text) => { const given = new DataTransfer(); given.items.add(new File([text], 'a.json'));"
        " stage.dispatchEvent(new DragEvent('drop', { bubbles: true, cancelable: true, dataTransfer: given })); }",
        json.dumps(numbered),
    )
    page.get_by_text("Box 1 of 1 is chosen: star.").wait_for()
    for wrong, words in (
        ("{", "This file is no JSON."),
        ('{"boxes": []}', 'A list of {"category"'),
        ('[{"category": "star", "box": [0.5, 0.5, 0.6, 0.1]}]', 'A list of {"category"'),
        ('[{"category": "star", "box": ["0", 0, 1, 1]}]', 'A list of {"category"'),
        ('[{"category": "length", "box": [0, 0, 1, 1]}]', "The model knows no length; it knows circle, square, star."),
        ("[null]", 'A list of {"category"'),
    ):
        assert words in open_file(newcomer, element, wrong.encode(), name="layout.json")
        assert page.locator(f"{element} .dr-box").count() == 1


def test_several_prompts_one_a_line(newcomer: Visit) -> None:
    page, prompt = newcomer.page, "#dr-text-prompt textarea"
    page.fill(prompt, "a red circle\n\n  a star \n")
    job = newcomer.draw("text")
    assert job["asked"]["prompt"] == ["a red circle", "a star"]
    assert [each["note"]["prompt"] for each in job["pictures"]] == ["a red circle", "a star"]
    assert page.locator("darkroom-result .dr-caption").all_inner_texts() == ["a red circle", "a star"]
    newcomer.turn("Gallery")
    page.locator(f'.dr-card[data-job="{job["id"]}"][data-place="1"]').get_by_role("button", name="Settings").click()
    page.locator("#dr-class-draw").wait_for()
    assert page.input_value("#dr-class-prompt :is(textarea, input)") == "a star"
    newcomer.turn("Text")
    page.fill(prompt, "a star\n")
    assert newcomer.draw("text")["asked"]["prompt"] == "a star"
    asked = {"model": "both", "prompt": "a red\ncircle", "label": 1}  # one prompt of two lines, from elsewhere
    other = page.request.post(f"{newcomer.url}/v1/jobs", data=asked).json()["id"]
    page.request.get(f"{newcomer.url}/v1/jobs/{other}/events")  # until it has ended
    newcomer.turn("Gallery")
    page.locator(f'.dr-card[data-job="{other}"]').get_by_role("button", name="Settings").click()
    page.locator("#dr-class-draw").wait_for()
    assert newcomer.draw("class")["asked"]["prompt"] == "a red\ncircle"


def test_what_a_cancelled_job_had_drawn_is_in_the_gallery(newcomer: Visit) -> None:
    page, jobs = newcomer.page, f"{newcomer.url}/v1/jobs"
    job = page.request.post(jobs, data={"model": "plain", "count": 16, "steps": 100}).json()["id"]
    while not page.request.get(f"{jobs}/{job}").json()["pictures"]:
        page.wait_for_timeout(10)
    assert page.request.post(f"{jobs}/{job}/cancel").json()["state"] == "cancelled"
    newcomer.turn("Gallery")
    page.locator(f'.dr-card[data-job="{job}"]').first.wait_for()
    assert page.locator(f'.dr-card[data-job="{job}"]').count() == 8  # a batch of two


def test_dark_or_light_is_kept_until_the_next_visit(newcomer: Visit) -> None:
    page = newcomer.page
    dark, kept = "document.body.classList.contains('dark')", "localStorage.getItem('darkroom-theme')"
    assert (page.evaluate(dark), page.evaluate(kept)) == (False, None)
    page.get_by_role("button", name="Dark or light").click()
    assert page.evaluate(kept) == "dark"
    page.reload()
    page.locator("#dr-text-draw").wait_for()
    assert page.evaluate(dark)
    page.emulate_media(color_scheme="dark")
    page.emulate_media(color_scheme="light")
    assert page.evaluate(dark), "it was chosen, whatever the system does"
    page.get_by_role("button", name="Dark or light").click()
    assert (page.evaluate(dark), page.evaluate(kept)) == (False, None)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"() => {dark}")  # what the system has is followed again


HOSTILE: dict[str, Any] = {
    "a size that is none": {"size": 5},
    "a prompt that is none": {"prompt": {"toString": 1}},
    "a layout of nothing": {"layout": [None]},
    "guidance in words": {"guidance": {"caption": "much"}},
    "numbers in words": {"steps": "many"},
    "a name of everything's": {"model": "__proto__"},
    "a list": [],
}


def test_a_png_with_any_note_is_answered_in_words(newcomer: Visit) -> None:
    newcomer.turn("Gallery")
    said = newcomer.page.locator("darkroom-gallery > .dr-hint")
    for case, hostile in HOSTILE.items():
        made = PngInfo()
        made.add_itxt("darkroom", json.dumps({"model": "plain", "seed": 1, **hostile} if hostile else hostile))
        data = _png_with(made)
        said.evaluate("element => { element.textContent = ''; }")
        newcomer.page.set_input_files("#dr-restore-drop input", file("made.png", data))
        newcomer.page.wait_for_function("element => element.textContent", arg=said.element_handle())
        words = said.inner_text()
        assert "does not say how it was made" in words or "is not offered here" in words, case


def _png_with(note: PngInfo) -> bytes:
    written = BytesIO()
    colours().save(written, "PNG", pnginfo=note)
    return written.getvalue()


def test_a_model_of_two_pictures_is_asked_for_both(desk: Any, model_files: dict[str, Path], tmp_path: Path) -> None:
    models = [str(model_files[kind]) for kind in ("boxes-map", "embedding")]
    with studio(tmp_path, models=models) as url:
        visit = Visit(desk.new_page(), url)
        page = visit.page
        page.goto(url)
        page.locator("#dr-layout-draw").wait_for()
        titles = page.locator('#dr-tabs [role="tab"]').all_text_contents()
        assert {each.strip() for each in titles} - {""} == {"Layout", "Map"}
        assert "steered by: embedding" in page.locator("#dr-excused").inner_text()
        visit.fill(count=1, seed=5)
        for key in ("Enter", "ArrowLeft"):
            page.locator('darkroom-boxes[data-part="layout"] .dr-stage').press(key)
        visit.drag('darkroom-map[data-part="layout"] canvas', (0.2, 0.2), (0.7, 0.7))
        job = visit.draw("layout")
        note = job["pictures"][0]["note"]
        assert (len(note["layout"]), [*note["pictures"]]) == (1, ["map"])
        data = page.request.get(url + job["pictures"][0]["url"]).body()
        visit.turn("Map")
        page.locator('darkroom-map[data-part="map"] canvas').press("Space")
        assert "layout" not in visit.draw("map")["asked"]  # which training dropped, so it may be left out
        visit.turn("Gallery")
        page.locator(f'.dr-card[data-job="{job["id"]}"]').get_by_role("button", name="Settings").click()
        page.locator("#dr-layout-draw").wait_for()
        again = visit.draw("layout")
        assert page.request.get(url + again["pictures"][0]["url"]).body() == data
        assert not visit.wrong
        assert not visit.elsewhere
        page.close()


def test_models_that_no_tab_asks_for_leave_a_page_that_says_so(
    desk: Any, model_files: dict[str, Path], tmp_path: Path
) -> None:
    with studio(tmp_path, models=[str(model_files["embedding"])]) as url:
        visit = Visit(desk.new_page(), url)
        visit.page.goto(url)
        visit.page.locator("#dr-excused").wait_for()
        visit.page.get_by_text("Nothing here yet.").wait_for()
        assert not visit.wrong
        visit.page.close()
