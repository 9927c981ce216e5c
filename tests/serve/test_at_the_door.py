"""The door: headers on every answer, faults that are counted, and who may sign in from where."""

import socket
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import Served, engine_at, ran, served, wait_for

from darkroom.serve.api import build
from darkroom.serve.engine import Engine
from darkroom.serve.guard import LONGEST

TOKEN = "a-token-of-ours"


@pytest.fixture(scope="module")
def locked(model_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Generator[Served]:
    """A server that a token opens."""
    engine = engine_at(tmp_path_factory.mktemp("locked") / "served", [str(model_files["plain"])])
    with served(engine, tokens=(TOKEN,), hosts=None) as found:
        yield found


def metric(server: Served, name: str, **headers: str) -> float:
    lines = server.client.get("/metrics", headers=headers).text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


Ask = Callable[[httpx.Client], httpx.Response]
ANSWERS: dict[str, tuple[Ask, int]] = {
    "an answer": (lambda client: client.get("/v1/models"), 200),
    "its description": (lambda client: client.get("/openapi.json"), 200),
    "plain text": (lambda client: client.get("/metrics"), 200),
    "a refusal": (lambda client: client.post("/v1/jobs", json={"steps": -1}), 422),
    "a refusal of the guard": (lambda client: client.get("/health", headers={"Host": "evil.example"}), 403),
    "nothing": (lambda client: client.get("/nowhere"), 404),
    "a method that is not taken": (lambda client: client.put("/v1/jobs"), 405),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_every_answer_forbids_to_be_framed_guessed_at_or_to_load_anything(server: Served, case: str) -> None:
    ask, status = ANSWERS[case]
    answer = ask(server.client)
    assert answer.status_code == status
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "http" not in policy
    assert answer.headers.get_list("x-content-type-options") == ["nosniff"]
    assert answer.headers["referrer-policy"] == "same-origin"


def test_a_fault_is_answered_counted_and_has_the_headers_too(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("a secret of ours")

    with served(engine) as server:
        monkeypatch.setattr(engine.store, "jobs", broken)
        answer = server.client.get("/v1/jobs")
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "broken")
        assert "secret" not in answer.text
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert metric(server, 'darkroom_responses_total{status="500"}') == 1


@pytest.mark.parametrize("origin", ["http://[", "null", "http://", "//", "http://127.0.0.1", "\xff", "http://evil\x80"])
def test_no_origin_confuses_it(server: Served, origin: str) -> None:
    sent = server.client.post("/v1/jobs", json={}, headers={b"Origin": origin.encode("latin-1")})
    assert (sent.status_code, sent.json()["error"]["code"]) == (403, "origin")


def test_an_upload_that_is_given_up_is_no_fault(engine: Engine) -> None:
    with served(engine) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as raw:
            head = "POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            raw.sendall(f"{head}Content-Length: 1000\r\n\r\n{{".encode())
        wait_for(lambda: metric(server, 'darkroom_responses_total{status="4') == 1)
        assert metric(server, 'darkroom_responses_total{status="5') == 0


def test_other_ways_to_speak_are_shut(engine: Engine) -> None:
    said: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        said.append(message)

    scope = {"type": "websocket", "path": "/v1/jobs", "headers": [], "query_string": b""}
    ran(lambda: build(engine)(scope, receive, send))
    assert [each["type"] for each in said] == ["websocket.close"]


def test_a_sentence_is_never_as_long_as_what_came(server: Served) -> None:
    answer = server.client.post("/v1/jobs", json={"model": "class", "label": "l" * 10**6})
    assert answer.status_code == 422
    assert len(answer.json()["error"]["message"]) <= LONGEST + 4


def test_only_our_own_form_signs_in_and_with_tls_the_cookie_needs_it(locked: Served) -> None:
    host = locked.url.removeprefix("http://")
    where, form = f"{locked.url}/sign-in", {"token": TOKEN}
    other = httpx.post(where, data=form, headers={"Origin": "http://evil.example"})
    assert (other.status_code, "set-cookie" in other.headers) == (403, False)
    for scheme, secure in (("http", False), ("https", True)):
        entered = httpx.post(where, data=form, headers={"Origin": f"{scheme}://{host}"})
        kept = entered.headers["set-cookie"].lower()
        assert entered.status_code == 303
        assert {"httponly", "samesite=strict", "path=/"} <= {*kept.split("; ")}
        assert ("secure" in kept.split("; ")) == secure
        assert TOKEN not in kept
        cookie = {"Cookie": kept.partition(";")[0]}
        assert httpx.get(f"{locked.url}/v1/jobs", headers=cookie).status_code == 200
        assert httpx.get(f"{locked.url}/v1/jobs", headers=cookie | {"Authorization": "Bearer x"}).status_code == 401


def test_a_token_in_an_address_opens_nothing(locked: Served) -> None:
    for words in (f"?token={TOKEN}", f"?access_token={TOKEN}", f"?authorization=Bearer%20{TOKEN}"):
        assert locked.client.get(f"/v1/jobs{words}").status_code == 401
