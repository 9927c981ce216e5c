"""Votes over HTTP: every voter's own questions, nothing counted twice, nothing that was answered lost."""

import contextlib
import io
import json
import re
import signal
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from polls import choice, fill, poll_of, two_folders
from serving import wait_for

from darkroom.cli.main import main
from darkroom.serve.ballot import find_pairs, sheet
from darkroom.serve.tally import count
from darkroom.serve.votes import FILE, Votes
from darkroom.serve.voting import Booth, build_voting
from warm import command


@pytest.fixture
def booth(tmp_path: Path) -> Booth:
    pairs = two_folders(tmp_path, count=4)
    return Booth(pairs, Votes(tmp_path / "votes", poll_of(pairs, checks=0.5)))


def level(png: bytes) -> float:
    return float(np.asarray(Image.open(io.BytesIO(png)))[..., 1].mean())


def test_a_voter_sees_what_the_sheet_says_and_is_taken_at_the_first_word(booth: Booth) -> None:
    client = TestClient(build_voting(booth), base_url="http://localhost")
    told = client.post("/voters").json()
    name, asked = told["voter"], sheet(booth.votes.poll, voter=1)
    assert (told["of"], told["given"], told["asks"], told["shown"]) == (6, 0, "Which?", 3.0)
    for question in asked:
        assert told["question"] == question.number
        for side in ("left", "right"):
            came = client.get(told[side])
            assert came.headers["content-type"] == "image/png"
            assert came.headers["cache-control"] == "no-store"
            shown = question.chose(side)
            if not shown.startswith("broken"):
                assert (level(came.content) > 120) == (shown == "second")
        vote = {"question": question.number, "side": choice(question, 1, likes_first=1.0), "seconds": 0.7}
        other = "right" if vote["side"] == "left" else "left"
        told = client.post(f"/voters/{name}/votes", json=vote).json()
        again = client.post(f"/voters/{name}/votes", json={**vote, "side": other}).json()
        assert told["kept"] == again["kept"] == vote["side"]
        assert again["given"] == question.number + 1
    assert client.get(f"/voters/{name}").json() == {"of": 6, "given": 6, "question": None}
    found = count(booth.votes.poll, booth.votes.all())
    assert found.first is not None
    assert (found.first.chosen, found.first.count, found.attentive) == (4, 4, 1)


def test_what_lies_between_is_shown_where_there_is_something(tmp_path: Path, booth: Booth) -> None:
    client = TestClient(build_voting(booth), base_url="http://localhost")
    told = client.post("/voters").json()
    assert "between" not in told
    lost = client.get(f"/voters/{told['voter']}/questions/0/between")
    assert (lost.status_code, lost.json()["error"]["code"]) == (404, "no_picture")
    pairs = find_pairs(tmp_path / "one", tmp_path / "two", between=fill(tmp_path / "small", count=4, level=0, side=8))
    other = Booth(pairs, Votes(tmp_path / "others", poll_of(pairs)))
    client = TestClient(build_voting(other), base_url="http://localhost")
    shown = client.get(client.post("/voters").json()["between"])
    assert Image.open(io.BytesIO(shown.content)).size == (8, 8)


@pytest.mark.parametrize(
    ("ask", "status"),
    [
        (lambda client, me: client.get("/voters/nobody"), 404),
        (
            lambda client, me: client.post("/voters/nobody/votes", json={"question": 0, "side": "left", "seconds": 1}),
            404,
        ),
        (lambda client, me: client.post(f"{me}/votes", json={"question": 99, "side": "left", "seconds": 1}), 404),
        (lambda client, me: client.post(f"{me}/votes", json={"question": 0, "side": "both", "seconds": 1}), 422),
        (lambda client, me: client.post(f"{me}/votes", json={"question": 0, "side": "left", "seconds": -1}), 422),
        (lambda client, me: client.post(f"{me}/votes", json={"question": 0, "side": "left", "seconds": 1e99}), 422),
        (lambda client, me: client.post(f"{me}/votes", content=b"{" * 5000), 413),
        (lambda client, me: client.post(f"{me}/votes", content=b"\xff{"), 422),
        (lambda client, me: client.get(f"{me}/questions/0/middle"), 404),
        (lambda client, me: client.get(f"{me}/questions/-1/left"), 404),
        (lambda client, me: client.get(f"{me}/questions/{10**30}/left"), 404),
        (lambda client, me: client.get("/assets/..%2fvoting.py"), 404),
        (lambda client, me: client.get("/", headers={"host": "elsewhere.org"}), 403),
        (lambda client, me: client.post("/voters", headers={"origin": "http://elsewhere.org"}), 403),
    ],
)
def test_what_does_not_fit_changes_nothing(booth: Booth, ask: Callable[[Any, str], Any], status: int) -> None:
    client = TestClient(build_voting(booth, hosts=("localhost",)), base_url="http://localhost")
    me = f"/voters/{client.post('/voters').json()['voter']}"
    assert ask(client, me).status_code == status
    assert booth.votes.all() == {1: {}}


def test_the_page_runs_nothing_but_its_own(booth: Booth) -> None:
    client = TestClient(build_voting(booth), base_url="http://localhost")
    page = client.get("/")
    assert "default-src 'none'; script-src 'self'" in page.headers["content-security-policy"]
    assert not re.search(r"(src|href)=\"(?!/assets/|data:,)[^\"]", page.text)
    assert client.get("/assets/vote.js").headers["content-type"].startswith("text/javascript")


def test_the_command_counts_and_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = two_folders(tmp_path)
    words = ["vote", str(tmp_path / "one"), str(tmp_path / "two"), "--out", str(tmp_path / "votes")]
    assert main([*words, "--tally"]) == 2
    assert "no votes are kept here" in capsys.readouterr().err
    assert not (tmp_path / "votes").exists()
    votes = Votes(tmp_path / "votes", poll_of(pairs, question="Which of the two pictures is better?"))
    votes.enter()
    for question in sheet(votes.poll, voter=1):
        votes.vote(1, question.number, side=choice(question, 1, likes_first=1.0), seconds=2.0)
    votes.close()
    assert main([*words, "--tally", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["first"]["chosen"], found["first"]["count"], found["seconds"]) == (6, 6, 2.0)
    assert found["first"]["chance"] == 2 / 64
    assert main([*words, "--tally", "--real"]) == 2
    assert "votes on something else are kept here (real, question differ)" in capsys.readouterr().err


def test_killed_while_many_vote_no_vote_that_was_answered_is_lost(tmp_path: Path) -> None:
    pairs = two_folders(tmp_path)
    line = ["vote", tmp_path / "one", tmp_path / "two", "--port", "0", "--out", tmp_path / "votes", "--checks", "0"]
    answered: list[tuple[str, int, str]] = []
    with command(line, folder=tmp_path / "said") as process:
        wait_for(lambda: "\n" in process.complaints or not process.alive)
        address = re.search(r"at (http://[\d.:]+);", process.complaints)
        assert address is not None, process.complaints

        def vote() -> None:
            with contextlib.suppress(httpx.HTTPError), httpx.Client(base_url=address[1], timeout=60) as client:
                while True:
                    told = client.post("/voters").json()
                    name = told["voter"]
                    while told["question"] is not None:
                        number = told["question"]
                        side = "left" if number % 2 else "right"
                        given = {"question": number, "side": side, "seconds": 1}
                        told = client.post(f"/voters/{name}/votes", json=given).json()
                        answered.append((name, number, side))

        voters = [threading.Thread(target=vote) for _ in range(4)]
        for each in voters:
            each.start()
        ticking = threading.Event()
        while len(answered) < 40 and process.alive:
            ticking.wait(0.01)
        process.send(signal.SIGKILL)
        for each in voters:
            each.join()
    votes = Votes(tmp_path / "votes", poll_of(pairs, question="Which of the two pictures is better?", checks=0.0))
    base = sqlite3.connect(tmp_path / "votes" / FILE)
    kept = set(base.execute("SELECT id, question, side FROM votes JOIN voters ON votes.voter = voters.number"))
    base.close()
    assert len(answered) >= 40
    assert set(answered) <= kept
    assert len(kept) <= len(answered) + len(voters)  # one of each voter may be on its way
    assert sum(map(len, votes.all().values())) == len(kept)
