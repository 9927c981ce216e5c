"""Tokens: who comes in by one, how often a wrong one may be tried, and how a browser leaves again."""

import contextlib
import socket
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Response
from serving import Served, engine_at, served, wait_for

from darkroom.serve import cookie, tokens
from darkroom.serve import server as server_module
from darkroom.serve.engine import Engine
from darkroom.serve.limits import Refused
from darkroom.serve.server import configured
from darkroom.serve.tokens import PAUSE, TRIES, Tries, owner_of, sender_of
from listening import listening

TOKEN, OTHER = "a-token-of-ours", "another-of-ours"


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def is_forgotten(answer: httpx.Response) -> bool:
    """Does it take the cookie away?"""
    words = {*answer.headers.get("set-cookie", "").lower().split("; ")}
    return {"max-age=0", "path=/"} <= words and f'{called(answer)}=""' in words


def called(answer: httpx.Response) -> str:
    """What the cookie of the server that answered is called."""
    return f"darkroom-{answer.url.port}"


def refusal(tries: Tries, address: str, token: str | None) -> tuple[int, int | None]:
    """With which status, and for how many seconds, a token is refused."""
    with pytest.raises(Refused) as refused:
        tries.let_in(address, token)
    return refused.value.status, refused.value.after


def test_wrong_tokens_are_tried_ten_times_and_then_once_in_ten_seconds() -> None:
    clock = Clock()
    tries = Tries(clock)
    assert [refusal(tries, "10.0.0.1", None) for _ in range(TRIES)] == [(401, None)] * TRIES
    for _ in range(3):
        assert refusal(tries, "10.0.0.1", None) == (429, PAUSE)
    assert refusal(tries, "10.0.0.1", TOKEN) == (429, PAUSE)  # else a guess that fits would be found all the same
    assert tries.let_in("10.0.0.2", TOKEN) == owner_of(TOKEN)
    clock.now += PAUSE
    assert refusal(tries, "10.0.0.1", None) == (401, None)
    assert refusal(tries, "10.0.0.1", None) == (429, PAUSE)
    clock.now += PAUSE - 2.5
    assert refusal(tries, "10.0.0.1", None) == (429, 3)
    clock.now += 3
    assert tries.let_in("10.0.0.1", TOKEN) == owner_of(TOKEN)


def test_whoever_came_in_is_not_shut_out_by_others_of_the_same_address() -> None:
    tries = Tries(Clock())
    tries.let_in("10.0.0.1", TOKEN)
    for _ in range(2 * TRIES):
        refusal(tries, "10.0.0.1", None)
    assert tries.let_in("10.0.0.1", TOKEN) == owner_of(TOKEN)
    assert refusal(tries, "10.0.0.1", OTHER)[0] == 429


def test_senders_are_forgotten_not_hoarded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "SENDERS", 3)
    tries = Tries(Clock())
    for number in range(9):
        refusal(tries, f"10.0.0.{number}", None)
    assert [*tries._senders] == ["10.0.0.6", "10.0.0.7", "10.0.0.8"]


@pytest.mark.parametrize(
    ("address", "sender"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unknown", "unknown"),
    ],
)
def test_one_sender(address: str, sender: str) -> None:
    assert sender_of(address) == sender


def test_a_ticket_is_of_one_token_and_ends() -> None:
    made = cookie.ticket(TOKEN, until=200)
    assert TOKEN not in made
    for before in ('a="1"', 'theme={"dark": true, "at": [1]}', "nameless", "\xe9=\xff", 'open="'):  # of other servers
        assert cookie.ticket_in(f"{before}; darkroom={made}; b=2", host="studio.example") == made
    both = f"darkroom-8000={made}; darkroom-8001=other"  # of two servers of one machine
    for host, found in (("127.0.0.1:8000", made), ("[::1]:8001", "other"), ("[::1]", None), ("8000", None), ("", None)):
        assert cookie.ticket_in(both, host=host) == found
    ours = (OTHER, TOKEN)
    assert cookie.token_of(made, tokens=ours, now=199.5) == TOKEN
    assert cookie.token_of(made, tokens=ours, now=200.0) is None
    assert cookie.token_of(made, tokens=(OTHER,), now=1.0) is None
    longer, seal = made.replace("200", "900", 1), made.partition(".")[2]
    for other in (longer, f"0{made}", f"{made}0", seal, f".{seal}", f"²00.{seal}", "9" * 5000, ""):
        assert cookie.token_of(other, tokens=ours, now=1.0) is None


def test_a_browser_signs_out(engine: Engine) -> None:
    with served(engine, tokens=(TOKEN,), hosts=None) as server:
        entered = server.client.post("/sign-in", data={"token": f" {TOKEN} "}, headers={"Origin": server.url})
        ticket = entered.cookies[called(entered)]
        kept = {"Cookie": f"{called(entered)}={ticket}"}
        assert httpx.get(f"{server.url}/v1/jobs", headers=kept).status_code == 200
        foreign = httpx.post(f"{server.url}/sign-out", headers=kept | {"Origin": "http://evil.example"})
        assert (foreign.status_code, "set-cookie" in foreign.headers) == (403, False)
        left = httpx.post(f"{server.url}/sign-out", headers=kept | {"Origin": server.url})
        assert (left.status_code, left.headers["location"]) == (303, "/sign-in")
        assert is_forgotten(left)
        assert left.headers["clear-site-data"] == '"cache"'


def test_a_cookie_that_opens_nothing_is_taken_away(engine: Engine) -> None:
    with served(engine, tokens=(TOKEN,), hosts=None) as server:
        for path, status in (("/v1/jobs", 401), ("/", 303)):
            name = called(httpx.get(f"{server.url}/health"))
            stale = httpx.get(server.url + path, headers={"Cookie": f"{name}=1.0"})
            assert (stale.status_code, is_forgotten(stale)) == (status, True)
            assert "set-cookie" not in httpx.get(server.url + path).headers


def test_guessing_is_stopped_at_every_door(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tokens, "PAUSE", 10_000.0)  # longer than the slowest machine takes

    def by_header(token: str) -> httpx.Response:
        return httpx.get(f"{server.url}/v1/jobs", headers={"Authorization": f"Bearer {token}"})

    def by_form(token: str) -> httpx.Response:
        return httpx.post(f"{server.url}/sign-in", data={"token": token})

    def by_cookie(token: str) -> httpx.Response:
        made = cookie.ticket(token, until=10**12)
        name = called(httpx.get(f"{server.url}/health"))
        return httpx.get(f"{server.url}/v1/jobs", headers={"Cookie": f"{name}={made}"})

    with served(engine, tokens=(TOKEN,), hosts=None) as server:
        doors = (by_header, by_form, by_cookie)
        guesses = [doors[number % 3](f"guess-{number}") for number in range(TRIES)]
        assert {each.status_code for each in guesses} == {401}
        for door in doors:
            shut = door(TOKEN)
            assert (shut.status_code, "set-cookie" in shut.headers) == (429, False)
            assert 9_000 < int(shut.headers["retry-after"]) <= 10_000
            assert "too many wrong tokens came from your address" in shut.text
        assert httpx.get(f"{server.url}/v1/jobs").status_code == 401  # no guess
        assert httpx.get(f"{server.url}/sign-in").status_code == 200
    assert "wrong tokens came from 127.0.0.1" in caplog.text
    assert "guess" not in caplog.text


def test_a_stranger_sends_little(engine: Engine) -> None:
    with served(engine, tokens=(TOKEN,), hosts=None) as server:
        for large in (b"token=" + b"a&" * 5000, iter([b"token=", b"a&" * 5000])):
            refused = httpx.post(f"{server.url}/sign-in", content=large)
            assert (refused.status_code, refused.json()["error"]["code"]) == (413, "limit_body")


def test_silent_connections_are_closed_and_those_that_ask_are_not(engine: Engine) -> None:
    with served(engine, idle=1) as server:
        host, port = server.url.removeprefix("http://").split(":")
        at = (host, int(port))
        slow = server.client.post("/v1/jobs", json={"steps": 300}).json()["id"]
        with socket.create_connection(at, timeout=10) as mute, socket.create_connection(at, timeout=10) as halting:
            halting.sendall(b"GET /health HTT")
            assert mute.recv(100) == halting.recv(100) == b""
        with server.client.stream("GET", f"/v1/jobs/{slow}/events") as events:
            assert "event: done" in [*events.iter_lines()]


def test_what_nobody_reads_is_not_held_and_what_is_read_comes_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    app, size, lost = FastAPI(), 2**25, threading.Event()  # more than a system takes on the way
    app.add_api_route("/large", lambda: Response(bytes(size)))
    original = server_module._Impatient.connection_lost

    def noted(protocol: Any, error: Exception | None) -> None:
        original(protocol, error)
        lost.set()

    with listening(configured(app, idle=1)) as url:
        assert len(httpx.get(f"{url}/large").content) == size
        host, port = url.removeprefix("http://").split(":")
        monkeypatch.setattr(server_module._Impatient, "connection_lost", noted)
        with socket.create_connection((host, int(port)), timeout=10) as deaf:
            deaf.sendall(b"GET /large HTTP/1.1\r\nHost: here\r\n\r\n")
            assert lost.wait(10)
            read = 0
            while more := deaf.recv(2**20):
                read += len(more)
        assert 0 < read < size


def test_connections_have_an_end_and_those_that_are_there_go_on(model_files: dict[str, Path], tmp_path: Path) -> None:
    engine = engine_at(tmp_path / "served", [str(model_files["plain"])], limits={"connections": 3})
    with served(engine) as server:
        host, port = server.url.removeprefix("http://").split(":")

        def connected() -> socket.socket:
            return socket.create_connection((host, int(port)), timeout=10)

        assert server.client.get("/health").status_code == 200  # by a connection that it keeps
        with connected(), connected():
            with connected() as one_more, contextlib.suppress(ConnectionResetError):
                assert one_more.recv(100) == b""
            assert server.client.get("/health").status_code == 200
        wait_for(lambda: _answers(connected()))


def _answers(raw: socket.socket) -> bool:
    with raw, contextlib.suppress(OSError):
        raw.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        return raw.recv(100).startswith(b"HTTP/1.1 200")
    return False


def test_every_answer_is_the_askers_own(server: Served) -> None:
    assert server.client.get("/v1/jobs").headers["cache-control"] == "private"
