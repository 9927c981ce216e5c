"""Every tab, used as a person does: real clicks, drawing on canvases, and the pictures read back."""

import numpy as np
from browsing import Visit, file, png
from PIL import Image

from darkroom.scenes.draw import draw
from darkroom.scenes.read import read
from darkroom.scenes.vocabulary import SceneObject


def middle(thing: SceneObject) -> tuple[float, float]:
    x, y, width, height = thing.box
    return x + width / 2, y + height / 2


def apart(one: tuple[float, float], other: tuple[float, float]) -> float:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def kinds(things: list[SceneObject]) -> set[tuple[str, str]]:
    return {(each.colour, each.shape) for each in things}


def test_there_is_a_tab_for_each_task_that_a_model_can_do(visit: Visit) -> None:
    titles = [each.strip() for each in visit.page.locator('#dr-tabs [role="tab"]').all_text_contents() if each.strip()]
    assert list(dict.fromkeys(titles)) == ["Text", "Class", "Layout", "Map", "Enlarge", "Inpaint", "Vary"]


def test_text(visit: Visit) -> None:
    visit.turn("Text")
    visit.page.fill("#dr-text-prompt textarea", "a blue star above a red heart")
    visit.fill(seed=7, count=2)
    previews = visit.page.evaluate_handle(
        "() => { const seen = new Set(); new MutationObserver(() => document.querySelectorAll('.dr-preview[src]')"
        ".forEach((each) => seen.add(each.src))).observe(document.querySelector('darkroom-result'),"
        " { subtree: true, childList: true, attributes: true }); return seen; }"
    )
    job = visit.draw("text")
    visit.fill(count=1)
    assert job["asked"]["seed"] == 7
    assert len(job["pictures"]) == 2
    assert any(kinds(visit.read(job, place)) == {("blue", "star"), ("red", "heart")} for place in range(2))
    assert previews.evaluate("seen => seen.size") >= 1


def test_class_by_name(visit: Visit) -> None:
    visit.turn("Class")
    visit.page.click("#dr-class-label input")
    visit.page.get_by_role("option", name="ring").click()
    job = visit.draw("class")
    assert job["asked"]["label"] == "ring"
    assert [each.shape for each in visit.read(job)] == ["ring"]


def test_layout_is_drawn_moved_and_named(visit: Visit) -> None:
    visit.turn("Layout")
    stage = "darkroom-boxes .dr-stage"
    visit.drag(stage, (0.06, 0.06), (0.44, 0.44))
    visit.page.select_option("#dr-layout-category", "star")
    visit.drag(stage, (0.1, 0.5), (0.48, 0.88))
    visit.page.select_option("#dr-layout-category", "circle")
    visit.drag(stage, (0.3, 0.7), (0.72, 0.72))  # moves it to the right
    job = visit.draw("layout")
    first, second = job["asked"]["layout"]
    assert (first["category"], second["category"]) == ("star", "circle")
    assert abs(second["box"][0] - 0.52) < 0.02
    found = visit.read(job)
    for asked in (first, second):
        x, y, width, height = asked["box"]
        centre = (x + width / 2, y + height / 2)
        near = [each.shape for each in found if apart(middle(each), centre) < 0.12]
        assert near == [asked["category"]]


def test_layout_by_keyboard(visit: Visit) -> None:
    visit.turn("Layout")
    visit.page.click("darkroom-boxes >> text=Clear")
    visit.page.focus("darkroom-boxes .dr-stage")
    for key in ("Enter", "ArrowRight", "ArrowRight", "Shift+ArrowDown"):
        visit.page.keyboard.press(key)
    boxes = visit.page.evaluate("async () => (await document.querySelector('darkroom-boxes').fields()).layout")
    assert boxes[0]["box"] == [0.33125, 0.3, 0.4, 0.415625]
    for key in ("Enter", "PageUp", "ArrowLeft"):
        visit.page.keyboard.press(key)
    boxes = visit.page.evaluate("async () => (await document.querySelector('darkroom-boxes').fields()).layout")
    assert [each["box"][0] for each in boxes] == [0.315625, 0.3]
    for left in (1, 0):
        visit.page.keyboard.press("Delete")
        assert visit.page.locator(".dr-box").count() == left
        said = visit.page.locator("darkroom-boxes [role=status]").inner_text()
        assert said == ("Box 1 of 1 is chosen: circle." if left else "No box yet.")


def test_map_is_painted_with_the_classes_of_the_model(visit: Visit) -> None:
    visit.turn("Map")
    visit.page.click('darkroom-map [data-name="circle"]')
    assert visit.page.get_by_role("button", name="circle", pressed=True).count() == 1
    visit.page.locator("darkroom-map .dr-range").fill("22")
    visit.drag("darkroom-map canvas", (0.3, 0.35), (0.3, 0.35))
    job = visit.draw("map")
    found = visit.read(job)
    assert [each.shape for each in found] == ["circle"]
    assert apart(middle(found[0]), (0.3, 0.35)) < 0.08


def test_a_small_picture_is_enlarged_and_compared(visit: Visit) -> None:
    scene = draw(5, 3)
    small = Image.fromarray(scene.image).resize((16, 16), Image.Resampling.BICUBIC)
    visit.turn("Enlarge")
    visit.page.set_input_files("darkroom-small input", file("small.png", png(small)))
    visit.page.locator("darkroom-small .dr-given").wait_for()
    job = visit.draw("enlarge")
    drawn = visit.picture(job)
    assert drawn.size == (64, 64)
    assert kinds(visit.read(job)) == kinds(read(scene.image))
    slider = visit.page.locator("darkroom-result .dr-comparing input")
    slider.fill("25")
    assert "75%" in visit.page.locator(".dr-before").evaluate("element => element.style.clipPath")


def test_a_hole_is_painted_and_only_there_the_picture_changes(visit: Visit) -> None:
    scene = next(each for each in (draw(11, index) for index in range(99)) if len(each.objects) == 2)
    gone, kept = scene.objects
    visit.turn("Inpaint")
    visit.page.set_input_files("darkroom-hole input[type=file]", file("scene.png", png(Image.fromarray(scene.image))))
    canvas = "darkroom-hole canvas"
    visit.page.locator(canvas).wait_for()
    visit.page.click('darkroom-hole [data-name="Paint here"]')
    visit.page.locator("darkroom-hole .dr-tools .dr-range").fill("10")
    x, y, width, height = gone.box
    rows = [y + height * share for share in (0, 0.25, 0.5, 0.75, 1)]
    visit.page.locator(canvas).scroll_into_view_if_needed()
    visit.drag(canvas, *((side, row) for row in rows for side in (x, x + width)))
    levels = np.array(visit.page.evaluate("[...document.querySelector('darkroom-hole').levels]"))
    job = visit.draw("inpaint")
    hole = levels.reshape(64, 64) == 255
    drawn = np.array(visit.picture(job).convert("RGB"))
    assert 0.02 < hole.mean() < 0.6
    assert np.array_equal(drawn[~hole], scene.image[~hole])
    assert np.abs(drawn[hole].astype(int) - scene.image[hole]).mean() > 5
    assert (kept.colour, kept.shape) in kinds(visit.read(job))


def test_variations_keep_what_strength_leaves(visit: Visit) -> None:
    scene = next(each for each in (draw(2, index) for index in range(99)) if len(each.objects) == 1)
    (thing,) = scene.objects
    visit.turn("Vary")
    visit.page.set_input_files(
        "darkroom-image[data-tab=vary] input", file("one.png", png(Image.fromarray(scene.image)))
    )
    visit.page.fill("#dr-vary-prompt textarea, #dr-vary-prompt input", f"a {thing.colour} {thing.shape}")
    visit.page.locator("#dr-vary-strength input[type=number]").fill("0.3")
    visit.page.locator("#dr-vary-strength input[type=number]").press("Tab")
    job = visit.draw("vary")
    assert job["asked"]["strength"] == 0.3
    assert not np.array_equal(np.array(visit.picture(job).convert("RGB")), scene.image)
    assert kinds(visit.read(job)) == {(thing.colour, thing.shape)}
