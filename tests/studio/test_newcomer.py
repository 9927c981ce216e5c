"""The studio with small models: what is told to a model, and what is kept of what was given."""

from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
from browsing import Visit, file, png
from PIL import Image

from darkroom.tasks.model import Model

Small = Callable[[str], Model]


def colours(seed: int = 1, side: int = 16) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8))


def data_of(visit: Visit, job: dict[str, Any]) -> bytes:
    return visit.page.request.get(visit.url + job["pictures"][0]["url"]).body()


def settings_back(visit: Visit, job: dict[str, Any], tab: str) -> None:
    """By the button on a picture's card."""
    visit.turn("Gallery")
    visit.page.locator(f'.dr-card[data-job="{job["id"]}"]').get_by_role("button", name="Settings").click()
    visit.page.locator(f"#dr-{tab}-draw").wait_for()


def test_what_is_left_empty_is_the_models_own_whatever_was_looked_at(newcomer: Visit) -> None:
    page, seeds = newcomer.page, set()
    newcomer.turn("Free")
    for title in ("", "settings", "more", "way"):
        if title:
            page.click(f"#dr-{title} >> button >> nth=0")
            page.locator(f"#dr-{title} input").first.wait_for()
        job = newcomer.draw("free")
        seeds.add(job["asked"].pop("seed"))
        assert job["asked"] == {"model": "plain"}
    assert len(seeds) == 4  # drawn, and told
    newcomer.turn("Class")
    assert newcomer.draw("class")["asked"].keys() == {"model", "label", "seed"}


def test_a_model_that_is_told_nothing_has_a_tab(newcomer: Visit, small: Small) -> None:
    newcomer.turn("Free")
    newcomer.fill(seed=3)
    job = newcomer.draw("free")
    assert (job["state"], job["asked"]) == ("done", {"model": "plain", "seed": 3})
    assert newcomer.picture(job).tobytes() == small("plain").sample(seed=3)[0].tobytes()
    newcomer.fill(seed=4)
    newcomer.turn("Text")
    settings_back(newcomer, job, "free")
    again = newcomer.draw("free")
    assert again["asked"]["steps"] == job["pictures"][0]["note"]["steps"]  # of a setting that was never seen
    assert data_of(newcomer, again) == data_of(newcomer, job)


def test_each_condition_may_have_a_guidance_of_its_own(newcomer: Visit, small: Small) -> None:
    page, scales = newcomer.page, {"caption": 2, "label": 1.5}
    page.fill("#dr-text-prompt textarea", "a red circle")
    page.click("#dr-text-label input")
    page.get_by_role("option", name="star").click()
    newcomer.fill(seed=5, **{f"text-guidance_of_{field}": scale for field, scale in scales.items()})
    job = newcomer.draw("text")
    assert job["asked"]["guidance"] == scales
    (expected,) = small("both").sample("a red circle", label="star", guidance=scales, seed=5)
    assert newcomer.picture(job).tobytes() == expected.tobytes()
    for field in scales:
        newcomer.fill(**{f"text-guidance_of_{field}": ""})
    settings_back(newcomer, job, "class")
    for field, scale in scales.items():
        assert float(page.input_value(f"#dr-class-guidance_of_{field} input")) == scale
    assert page.input_value("#dr-class-label input") == "star"
    page.click("#dr-settings >> button >> nth=0")
    page.locator("#dr-guidance input").first.wait_for()
    # put back, then shown
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => setTimeout(done, 200)))")
    newcomer.fill(guidance=3)
    page.click("#dr-class-draw")
    page.get_by_text("give one guidance for all, or one for each condition").wait_for()


def test_a_model_has_its_own_classes(newcomer: Visit) -> None:
    page = newcomer.page
    newcomer.turn("Class")
    for model, last in (("animals", "owl"), ("class", "star")):
        page.click("#dr-class-model input")
        page.get_by_role("option", name=model, exact=True).click()
        page.wait_for_function(
            "first => document.querySelector('#dr-class-label input').value === first",
            arg={"owl": "cat", "star": "circle"}[last],
        )
        page.click("#dr-class-label input")
        page.get_by_role("option", name=last).wait_for()
        assert page.get_by_role("option", name={"owl": "star", "star": "owl"}[last]).count() == 0
        page.get_by_role("option", name=last).click()
        job = newcomer.draw("class")
        assert (job["model"], job["asked"]["label"]) == (model, last)
    settings_back(newcomer, job, "class")
    assert page.input_value("#dr-class-label input") == "star"


def test_models_of_one_condition_have_one_guidance(regular: Visit) -> None:
    for tab, there in (("Class", 2), ("Map", 2), ("Layout", 0), ("Enlarge", 0), ("Free", 0)):
        regular.turn(tab)
        assert regular.page.locator(f"[id^=dr-{tab.lower()}-guidance_of_]").count() == there, tab


def test_a_guide_picture_pulls(newcomer: Visit) -> None:
    page, green = newcomer.page, (20, 200, 40)
    page.click("darkroom-guide summary")
    page.click("#dr-more >> button >> nth=0")
    page.set_input_files("darkroom-guide input", file("guide.png", png(Image.new("RGB", (8, 8), green))))
    page.locator("darkroom-guide img").wait_for()
    newcomer.turn("Free")
    newcomer.fill(seed=3, guide_weight=0.9)
    guided = newcomer.draw("free")
    assert guided["asked"]["guide_weight"] == 0.9
    assert [*guided["pictures"][0]["note"]["pictures"]] == ["guide"]
    newcomer.fill(guide_weight="")
    page.click("darkroom-guide >> text=Remove")
    page.click("darkroom-guide summary")
    free = newcomer.draw("free")
    assert "pictures" not in free["pictures"][0]["note"]
    away = [
        np.abs(np.asarray(newcomer.picture(job).convert("RGB"), int) - green).mean((0, 1)).sum()
        for job in (guided, free)
    ]
    assert away[0] < away[1]
    settings_back(newcomer, guided, "free")
    page.locator("darkroom-guide img").wait_for()
    assert data_of(newcomer, newcomer.draw("free")) == data_of(newcomer, guided)


def test_pictures_that_the_page_was_given_come_back_with_the_settings(newcomer: Visit) -> None:
    page = newcomer.page
    newcomer.turn("Inpaint")
    page.set_input_files("darkroom-hole input[type=file]", file("scene.png", png(colours())))
    page.locator("darkroom-hole canvas").wait_for()
    page.focus("darkroom-hole canvas")
    for key in ("ArrowLeft", "ArrowUp", "Space"):
        page.keyboard.press(key)
    newcomer.fill(seed=8)
    job = newcomer.draw("inpaint")
    painted = "document.querySelector('darkroom-hole').levels.filter((each) => each === 255).length"
    before = page.evaluate(painted)
    assert 9 < before < 100
    page.set_input_files("darkroom-hole input[type=file]", file("other.png", png(colours(2))))
    page.click("darkroom-hole >> text=Clear")
    assert page.evaluate(painted) == 0
    newcomer.fill(seed=9)
    settings_back(newcomer, job, "inpaint")
    page.locator("darkroom-result .dr-said", has_text="Settings are back.").wait_for()
    page.wait_for_function(f"() => {painted} === {before}")
    assert data_of(newcomer, newcomer.draw("inpaint")) == data_of(newcomer, job)
    newcomer.turn("Gallery")
    page.locator("darkroom-result").evaluate("element => { delete element.dataset.done; }")
    page.locator(f'.dr-card[data-job="{job["id"]}"]').get_by_role("button", name="Again").click()
    assert data_of(newcomer, newcomer.done()) == data_of(newcomer, job)


def test_a_png_made_elsewhere_says_which_pictures_must_be_given_again(newcomer: Visit, small: Small) -> None:
    page, mask = newcomer.page, Image.new("L", (16, 16))
    mask.paste(255, (4, 4, 12, 12))
    (drawn,) = small("plain").sample(image=colours(), mask=mask, seed=4)
    written = BytesIO()
    drawn.save(written, "PNG")
    newcomer.turn("Inpaint")
    page.set_input_files("darkroom-hole input[type=file]", file("other.png", png(colours(2))))
    newcomer.turn("Gallery")
    page.set_input_files("#dr-restore-drop input", file("made.png", written.getvalue()))
    page.locator("#dr-inpaint-draw").wait_for()
    said = page.locator("darkroom-result .dr-said")
    assert "Give the picture and the mask again" in said.inner_text()
    assert page.input_value("#dr-seed input") == "4"
    page.locator("darkroom-hole canvas").wait_for(state="hidden")  # no other picture is drawn with in its place
    page.click("#dr-inpaint-draw")
    page.get_by_text("give a picture first").wait_for()


def test_a_seed_beyond_what_browsers_count_is_not_drawn_as_another(newcomer: Visit, small: Small) -> None:
    (drawn,) = small("plain").sample(seed=2**53 + 1)
    written = BytesIO()
    drawn.save(written, "PNG")
    newcomer.turn("Gallery")
    newcomer.page.set_input_files("#dr-restore-drop input", file("made.png", written.getvalue()))
    newcomer.page.get_by_text("more digits than a browser counts").wait_for()


def test_dark_and_light_by_a_button(newcomer: Visit) -> None:
    page = newcomer.page
    said = "getComputedStyle(document.querySelector('.dr-said')).color"
    ground = "getComputedStyle(document.body).backgroundColor"

    def light(script: str) -> int:
        return sum(int(each) for each in page.evaluate(script).strip("rgba()").split(",")[:3])

    seen = []
    for _ in range(3):
        seen.append(light(ground))
        assert abs(light(said) - light(ground)) > 350, "words can be read"
        before = page.evaluate(ground)
        page.get_by_role("button", name="Dark or light").click()
        page.wait_for_function(f"was => {ground} !== was", arg=before)
    assert abs(seen[0] - seen[1]) > 350
    assert seen[2] == seen[0]


# Every text that is seen, with its contrast to what is behind it (WCAG 2): those below 4.5 to 1, the least of AA.
PALE = """() => {
    const pen = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const colour = (text) => {
        pen.clearRect(0, 0, 1, 1);
        pen.fillStyle = text;
        pen.fillRect(0, 0, 1, 1);
        const [red, green, blue, alpha] = pen.getImageData(0, 0, 1, 1).data;
        return [red, green, blue, alpha / 255];
    };
    const over = (top, below) => [0, 1, 2].map((each) => top[each] * top[3] + below[each] * (1 - top[3]));
    const ground = (element) => {
        const own = element ? colour(getComputedStyle(element).backgroundColor) : [255, 255, 255, 1];
        return own[3] === 1 ? own : over(own, ground(element.parentElement));
    };
    const light = (found) => [0.2126, 0.7152, 0.0722].reduce((sum, share, each) => {
        const level = found[each] / 255;
        return sum + share * (level <= 0.04045 ? level / 12.92 : ((level + 0.055) / 1.055) ** 2.4);
    }, 0);
    const pale = [];
    for (const each of document.querySelectorAll("body *")) {
        const texts = [...each.childNodes].filter((node) => node.nodeType === 3);
        const words = texts.map((node) => node.data.trim()).join("");
        if (!words || !each.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
        const frame = each.getBoundingClientRect();
        if (frame.width < 2 || frame.height < 2) continue;
        const below = ground(each);
        const lights = [light(over(colour(getComputedStyle(each).color), below)), light(below)].sort((a, b) => b - a);
        const contrast = (lights[0] + 0.05) / (lights[1] + 0.05);
        if (contrast < 4.5) pale.push(`${words}: ${contrast.toFixed(2)}`);
    }
    return pale;
}"""


def test_all_words_can_be_read_in_the_dark_and_in_the_light(newcomer: Visit) -> None:
    page = newcomer.page
    for title in ("settings", "more", "way"):
        page.click(f"#dr-{title} >> button >> nth=0")
        page.locator(f"#dr-{title} input").first.wait_for()
    page.click("darkroom-guide summary")
    newcomer.turn("Layout")
    newcomer.drag("darkroom-boxes .dr-stage", (0.1, 0.1), (0.6, 0.6))
    for _ in range(2):
        page.wait_for_timeout(300)  # colours fade
        assert page.evaluate(PALE) == []
        page.get_by_role("button", name="Dark or light").click()


def test_a_file_that_is_dropped_beside_is_not_opened_instead_of_the_page(regular: Visit) -> None:
    drop = (
        "(kind) => { const given = new DataTransfer();"
        " kind === 'file' ? given.items.add(new File(['x'], 'x.png')) : given.setData('text/plain', 'x');"
        " const event = new DragEvent('drop', { bubbles: true, cancelable: true, dataTransfer: given });"
        " document.body.dispatchEvent(event); return event.defaultPrevented; }"
    )
    assert regular.page.evaluate(drop, "file")
    assert not regular.page.evaluate(drop, "text")  # words may be dropped where words go


def test_a_place_for_pictures_opens_by_the_keyboard(newcomer: Visit) -> None:
    newcomer.turn("Enlarge")
    page, place = newcomer.page, newcomer.page.locator("darkroom-small input")
    place.evaluate(
        "input => input.addEventListener('click', (event) => { input.opened = true; event.preventDefault(); })"
    )
    place.focus()
    page.keyboard.press("Space")
    assert place.evaluate("input => input.opened")
    place.set_input_files(file("small.png", png(colours(side=8))))
    page.get_by_text("8 x 8 pixels").wait_for()
    place.set_input_files(file("none.png", b"no picture"))
    page.get_by_text("the one before stays").wait_for()
    assert newcomer.draw("enlarge")["state"] == "done"


def test_asked_twice_in_a_row_it_draws_the_last(regular: Visit) -> None:
    regular.page.evaluate(
        "() => { const asked = { model: 'plain', steps: 60, count: 2 };"
        " darkroom.result.draw({ ...asked, seed: 1 }); darkroom.result.draw({ ...asked, seed: 2 }); }"
    )
    assert regular.done()["asked"]["seed"] == 2
    jobs = regular.page.request.get(f"{regular.url}/v1/jobs?count=2").json()["jobs"]
    assert {job["asked"]["seed"]: job["state"] for job in jobs} == {1: "cancelled", 2: "done"}


def test_a_connection_that_breaks_is_taken_up_again(regular: Visit) -> None:
    broken: list[str] = []

    def once(route: Any) -> None:
        if broken:
            route.continue_()
        else:
            broken.append(route.request.url)
            route.abort()

    regular.page.route("**/events", once)
    regular.turn("Free")
    assert regular.draw("free")["state"] == "done"
    assert len(broken) == 1
    regular.page.unroute("**/events")
    regular.wrong[:] = [each for each in regular.wrong if "ERR_FAILED" not in each]


FORBIDDEN = {
    "img-src": "new Image().src = 'http://elsewhere.example/a.png'",
    "connect-src": "fetch('http://elsewhere.example/').catch(() => 0)",
    "script-src-elem": "document.head.append(Object.assign(document.createElement('script'), { text: 'evil = 1' }))",
    "frame-src": "document.body.append(Object.assign(document.createElement('iframe'), { src: '/studio/' }))",
}


def test_the_browser_keeps_the_page_to_its_policy(newcomer: Visit) -> None:
    newcomer.page.evaluate(
        "() => { window.kept = []; document.addEventListener('securitypolicyviolation',"
        " (event) => window.kept.push(event.effectiveDirective)); }"
    )
    for number, (directive, script) in enumerate(FORBIDDEN.items(), start=1):
        newcomer.page.evaluate(f"() => {{ {script}; }}")
        newcomer.page.wait_for_function(f"() => window.kept.length >= {number}")
        assert newcomer.page.evaluate("window.kept.at(-1)") == directive
    assert newcomer.page.evaluate("window.evil") is None
    newcomer.wrong[:] = [each for each in newcomer.wrong if "Content Security Policy" not in each]
    newcomer.elsewhere[:] = [each for each in newcomer.elsewhere if "elsewhere.example" not in each]


def test_the_gallery_shows_what_another_tab_drew(regular: Visit) -> None:
    page, jobs = regular.page, f"{regular.url}/v1/jobs"
    regular.turn("Gallery")
    page.locator("darkroom-gallery").wait_for()
    regular.turn("Draw")
    job = page.request.post(jobs, data={"model": "plain"}).json()["id"]
    page.request.get(f"{jobs}/{job}/events")  # until it has ended
    regular.turn("Gallery")
    card = page.locator(f'.dr-card[data-job="{job}"]')
    card.wait_for()
    assert page.request.delete(f"{jobs}/{job}").status == 204
    for _ in range(2):
        card.get_by_role("button", name="Delete").click()
    page.get_by_text("there is no such job").wait_for()
    card.wait_for(state="detached")
    regular.wrong[:] = [each for each in regular.wrong if "404" not in each]  # the browser tells of the status


def test_the_keyboard_alone_draws(regular: Visit) -> None:
    regular.page.fill("#dr-text-prompt textarea", "a red circle")
    regular.page.locator("#dr-text-prompt textarea").press("Shift+Enter")
    assert regular.done()["asked"]["prompt"] == "a red circle"


def test_loaded_again_the_page_goes_on_with_what_it_drew(regular: Visit) -> None:
    page = regular.page
    page.evaluate("() => void darkroom.result.draw({ model: 'plain', steps: 60, count: 3, seed: 6 })")
    page.locator("#dr-cancel").wait_for()
    page.reload()
    page.locator("darkroom-result .dr-said").wait_for()
    job = regular.done()
    assert (job["state"], job["asked"]["seed"]) == ("done", 6)
    assert page.locator("darkroom-result .dr-finished").count() == 3
    whole = page.locator("darkroom-result .dr-frame a").first.get_attribute("href")
    assert whole == job["pictures"][0]["url"]
