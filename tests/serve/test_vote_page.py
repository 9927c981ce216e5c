"""The page of a preference study in a real browser, by keyboard alone."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from polls import fill, poll_of

from darkroom.serve.ballot import find_pairs, sheet
from darkroom.serve.server import configured
from darkroom.serve.tally import count
from darkroom.serve.votes import Votes
from darkroom.serve.voting import Booth, build_voting
from listening import listening

PATIENCE = 60_000.0  # milliseconds
# In one go, for pictures are not seen for long: what is on the page, and that a key is not taken before they vanish.
WHILE_SEEN = """() => {
    if (document.body.dataset.state !== "seen") return false;
    const seen = ["left", "between", "right"].map((id) => document.getElementById(id).offsetWidth > 0);
    dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowLeft" }));
    dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" }));
    return [document.getElementById("asks").textContent, ...seen, document.body.dataset.state];
}"""


def serving(booth: Booth, *, port: int = 0) -> AbstractContextManager[str]:
    """The address of the page, until the block ends."""
    return listening(configured(build_voting(booth), grace=2), port=port)


def state(page: Any, wanted: str, *, given: int | None = None) -> None:
    """Wait until the page has come so far."""
    told = "" if given is None else f" && document.body.dataset.given === '{given}'"
    page.wait_for_function(f"() => document.body.dataset.state === '{wanted}'{told}")


def test_a_study_by_keyboard_alone_with_a_reload_and_a_restart(chromium: Any, tmp_path: Path) -> None:
    one, two = fill(tmp_path / "one", count=3, level=60), fill(tmp_path / "two", count=3, level=190)
    pairs = find_pairs(one, two, between=fill(tmp_path / "small", count=3, level=0, side=8))
    poll = poll_of(pairs, shown=0.5, checks=0.3, question="Which is darker?")
    asked = sheet(poll, voter=1)
    wanted = ["left" if "first" in each.left and "broken" not in each.left else "right" for each in asked]
    wrong: list[str] = []
    context = chromium.new_context()
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    votes = Votes(tmp_path / "votes", poll)
    with serving(Booth(pairs, votes)) as address:
        page.goto(address)
        state(page, "waiting", given=0)
        page.keyboard.press("ArrowLeft")  # nothing is asked yet
        page.keyboard.press("Enter")
        assert page.wait_for_function(WHILE_SEEN).json_value() == ["Which is darker?", True, True, True, "seen"]
        state(page, "asked")
        assert not page.locator("#pictures").is_visible()  # seen for their time, and not longer
        page.keyboard.press(f"Arrow{wanted[0].capitalize()}")
        state(page, "waiting", given=1)
        page.reload()
        state(page, "waiting", given=1)  # the same voter goes on
        port = int(address.rsplit(":", 1)[1])
    votes.close()
    again = Votes(tmp_path / "votes", poll)
    with serving(Booth(pairs, again), port=port):
        for number, side in enumerate(wanted[1:], start=1):
            page.keyboard.press(" ")
            state(page, "asked")
            page.keyboard.press(f"Arrow{side.capitalize()}")
            state(page, "done" if number == len(wanted) - 1 else "waiting", given=number + 1)
        assert page.locator("#said").inner_text() == "That was all. Thank you!"
    context.close()
    assert not wrong
    assert all(url.startswith((address, "data:")) for url in requested)
    assert {number: vote.side for number, vote in again.given(1).items()} == dict(enumerate(wanted))
    assert all(0 < vote.seconds < 60 for vote in again.given(1).values())
    found = count(poll, again.all())
    assert (found.voters, found.attentive) == (1, 1)
    assert found.first is not None
    assert found.first.chosen == found.first.count == 3


def test_a_choice_is_sent_until_it_is_kept(chromium: Any, tmp_path: Path) -> None:
    pairs = find_pairs(fill(tmp_path / "one", count=1, level=60), fill(tmp_path / "two", count=1, level=190))
    poll = poll_of(pairs, shown=0.05, checks=0.0)
    context = chromium.new_context()
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    left = [429, 408]  # too many requests, one that was slow to come: both pass

    def refused(route: Any) -> None:
        if left:
            route.fulfill(status=left.pop(0), json={"error": {"message": "busy"}})
        else:
            route.continue_()

    page.route("**/votes", refused)
    votes = Votes(tmp_path / "votes", poll)
    with serving(Booth(pairs, votes)) as address:
        page.goto(address)
        state(page, "waiting", given=0)
        page.keyboard.press("Enter")
        state(page, "asked")
    page.keyboard.press("ArrowLeft")  # the server is gone
    page.wait_for_function("() => document.getElementById('said').textContent.startsWith('Not kept yet')")
    with serving(Booth(pairs, votes), port=int(address.rsplit(":", 1)[1])):
        state(page, "done", given=1)
    context.close()
    assert not left
    assert {number: vote.side for number, vote in votes.given(1).items()} == {0: "left"}
