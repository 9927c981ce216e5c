"""What is around the tabs: settings, gallery, repeating, following, phones, tokens, and what is not there."""

from pathlib import Path
from typing import Any

import httpx
from browsing import Visit, file, studio

from darkroom.core.record import append_line


def test_every_setting_reaches_the_job_and_comes_back_from_a_png(visit: Visit) -> None:
    page = visit.page
    visit.turn("Text")
    page.fill("#dr-text-prompt textarea", "a green ring")
    page.click("#dr-settings >> button >> nth=0")
    visit.fill(seed=41, steps=9, guidance=2.5, eta=0.5, height=64, width=96)
    page.click("#dr-solver input")
    page.get_by_role("option", name="ddim", exact=True).click()
    job = visit.draw("text")
    asked = {key: job["asked"][key] for key in ("seed", "steps", "guidance", "eta", "size", "solver")}
    assert asked == {"seed": 41, "steps": 9, "guidance": 2.5, "eta": 0.5, "size": [64, 96], "solver": "ddim"}
    data = page.request.get(visit.url + job["pictures"][0]["url"]).body()
    for name in ("seed", "steps", "guidance", "eta", "height", "width"):
        page.locator(f"#dr-{name} input").first.fill("")
    page.fill("#dr-text-prompt textarea", "something else")
    visit.turn("Class")
    visit.turn("Gallery")
    page.set_input_files("#dr-restore-drop input", file("made.png", data))
    page.locator("#dr-text-draw").wait_for()
    assert page.input_value("#dr-text-prompt textarea") == "a green ring"
    again = visit.draw("text")
    assert {key: again["asked"][key] for key in asked} == asked
    assert page.request.get(visit.url + again["pictures"][0]["url"]).body() == data
    for name in ("seed", "steps", "guidance", "eta", "height", "width"):
        page.locator(f"#dr-{name} input").first.fill("")
    page.click("#dr-solver input")
    page.get_by_role("option", name="the model's").click()


def test_the_gallery_repeats_downloads_and_deletes(visit: Visit) -> None:
    page = visit.page
    visit.turn("Gallery")
    card = page.locator(".dr-card").first
    card.wait_for()
    before = page.locator(".dr-card").count()
    seed, job = card.get_attribute("data-seed"), card.get_attribute("data-job")
    data = page.request.get(f"{visit.url}/v1/jobs/{job}/pictures/0").body()
    with page.expect_download() as downloading:
        card.get_by_text("PNG", exact=True).click()
    assert Path(downloading.value.path()).read_bytes() == data
    page.locator("darkroom-result").evaluate("element => { delete element.dataset.done; }")
    card.get_by_role("button", name="Again").click()
    again = visit.done()
    assert str(again["asked"]["seed"]) == seed
    assert page.request.get(visit.url + again["pictures"][0]["url"]).body() == data
    visit.turn("Gallery")
    page.wait_for_function(f"() => document.querySelectorAll('.dr-card').length === {before + 1}")
    delete = page.locator(f'.dr-card[data-job="{again["id"]}"]').get_by_role("button", name="Delete")
    delete.click()
    page.get_by_role("button", name="Delete it for good?").wait_for()
    assert page.locator(".dr-card").count() == before + 1
    delete.click()
    page.wait_for_function(f"() => document.querySelectorAll('.dr-card').length === {before}")


def test_a_refusal_is_said_where_it_is_seen(visit: Visit) -> None:
    visit.turn("Draw")
    visit.turn("Text")
    visit.fill(height=30, width=64)
    visit.page.locator("#dr-text-draw").click()
    said = visit.page.locator("darkroom-result .dr-said.wrong")
    said.wait_for()
    assert "multiples of 16" in said.inner_text()
    visit.wrong[:] = [each for each in visit.wrong if "422" not in each]  # the browser tells of the answer's status
    for name in ("height", "width"):
        visit.page.locator(f"#dr-{name} input").first.fill("")


def test_a_job_is_cancelled_by_its_button(visit: Visit) -> None:
    visit.turn("Text")
    visit.fill(steps=250)
    visit.page.locator("#dr-text-draw").click()
    visit.page.locator("#dr-cancel").click()
    visit.page.get_by_text("The job was cancelled.").wait_for()
    visit.page.locator("#dr-steps input").first.fill("")


def test_a_training_is_followed_live(visit: Visit, run_folder: Path) -> None:
    visit.turn("Training")
    page = visit.page
    page.get_by_text("step 100 of 400, 2 min 30 s left").wait_for()
    assert page.locator("darkroom-follow polyline").count() >= 1
    assert (
        page.locator("darkroom-follow .dr-sheet").evaluate("image => image.decode().then(() => image.naturalWidth)")
        == 64
    )
    append_line(run_folder / "denoiser" / "log.jsonl", {"step": 200, "loss": 0.05, "seconds": 100.0})
    page.get_by_text("step 200 of 400").wait_for()
    visit.turn("Draw")


def test_it_fits_a_phone_in_the_dark(chromium: Any, address: str, visit: Visit) -> None:
    context = chromium.new_context(viewport={"width": 390, "height": 844}, color_scheme="dark", has_touch=True)
    phone = Visit(context.new_page(), address).open()
    page = phone.page
    for title in ("Class", "Layout", "Map", "Enlarge", "Inpaint", "Vary", "Text", "Gallery", "Training", "Draw"):
        phone.turn(title)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, title
    named = page.get_by_text("Pictures", exact=True).bounding_box()
    assert named["height"] < 30, "in one line"
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert sum(int(each) for each in ground.strip("rgba()").split(",")[:3]) < 200
    page.fill("#dr-text-prompt textarea", "a red circle")
    page.locator("#dr-count input").first.fill("1")
    phone.draw("text")
    assert not phone.wrong
    assert not phone.elsewhere
    context.close()


def test_a_token_is_asked_for_and_opens_the_studio(chromium: Any, tmp_path: Path) -> None:
    with studio(tmp_path, models=["shapes"], tokens=["a-long-token"]) as url:
        inside = ("/studio/config", "/studio-assets/studio.js", "/v1/jobs", "/v1/models")
        assert {httpx.get(url + path).status_code for path in inside} == {401}
        context = chromium.new_context()
        page = context.new_page()
        page.goto(url)
        page.fill("input[name=token]", "another-token")
        page.keyboard.press("Enter")
        page.get_by_text("opens nothing here").wait_for()
        page.fill("input[name=token]", "a-long-token")
        page.keyboard.press("Enter")
        page.locator("#dr-text-draw").wait_for()
        cookie = context.cookies()[0]
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
        assert "a-long-token" not in cookie["value"]
        sent = {"Cookie": f"{cookie['name']}={cookie['value']}", "Origin": "http://elsewhere.example"}
        assert httpx.post(f"{url}/v1/jobs", json={"prompt": "a star"}, headers=sent).status_code == 403
        page.get_by_role("button", name="Sign out").click()
        page.locator("input[name=token]").wait_for()
        assert context.cookies() == []
        page.goto(url)
        page.fill("input[name=token]", "a-long-token")
        page.keyboard.press("Enter")
        page.locator("#dr-text-draw").wait_for()
        context.clear_cookies()
        page.locator("#dr-text-draw").click()
        page.get_by_text("You are signed out.").wait_for()
        context.close()
