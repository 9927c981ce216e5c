"""What the studio lets through to Gradio and back, and the policy of its page. No browser."""

import asyncio
import base64
import hashlib
import json
import math
import re
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest

from darkroom.core.errors import InputError
from darkroom.core.record import append_line, write_yaml

pytestmark = pytest.mark.skipif(find_spec("gradio") is None, reason="needs gradio, the extra [studio]")

OURS = ("'self'", "'none'", "data:", "blob:")


def policy_of(answer: httpx.Response) -> dict[str, list[str]]:
    """The sources of each kind that a page allows."""
    parts = [each.split() for each in answer.headers["content-security-policy"].split(";")]
    return {name: sources for name, *sources in parts}


def test_the_page_runs_its_own_scripts_and_loads_from_here_alone(small_address: str) -> None:
    answer = httpx.get(f"{small_address}/studio/", headers={"Accept-Encoding": "br, gzip"})
    found = policy_of(answer)
    inside = re.findall(r"<script(?: data-gradio-mode)?>(.*?)</script>", answer.text, flags=re.DOTALL)
    digests = {f"'sha256-{base64.b64encode(hashlib.sha256(each.encode()).digest()).decode()}'" for each in inside}
    assert len(inside) >= 3
    assert {*found["script-src"]} == {"'self'", "'unsafe-eval'"} | digests
    assert {*found["style-src"]} == {"'self'", "'unsafe-inline'"}
    others = [each for name, each in found.items() if name not in ("script-src", "style-src")]
    assert {source for sources in others for source in sources} <= {*OURS}
    assert {"default-src", "object-src", "base-uri", "form-action", "frame-ancestors"} <= found.keys()
    assert found["frame-ancestors"] == ["'none'"]


def test_what_is_not_the_page_may_load_nothing(small_address: str) -> None:
    for path in ("/studio-assets/studio.js", "/studio/config", "/favicon.ico", "/v1/training"):
        answer = httpx.get(small_address + path)
        assert answer.status_code == 200
        assert policy_of(answer)["default-src"] == ["'none'"]
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("query", ["page=nowhere", "page=../x", "deep_link=x", "deep_link=../../state", "__theme=dark"])
@pytest.mark.parametrize("page", ["/studio/", "/studio/config"])
def test_queries_choose_nothing(small_address: str, page: str, query: str) -> None:
    """Gradio would look a page up by it, or a file."""
    answer = httpx.get(f"{small_address}{page}?{query}")
    assert answer.status_code == 200
    assert '"deep_link_state":"valid"' not in answer.text


HEADERS = {
    "X-Gradio-Server": "http://[",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Proto": "gopher",
    "Referer": "http://[",
    "Cookie": "access-token-unsecure-x=1; \xff",
    "Range": "bytes=9-1",
}


@pytest.mark.parametrize("name", HEADERS)
def test_other_headers_confuse_nothing(small_address: str, name: str) -> None:
    answer = httpx.get(f"{small_address}/studio/", headers={name.encode(): HEADERS[name].encode("latin-1")})
    assert answer.status_code == 200
    assert "evil.example" not in answer.text


def test_pages_of_other_sites_may_not_read_it(small_address: str) -> None:
    for path in ("/studio/", "/studio/config", "/studio/theme.css", "/studio-assets/studio.js", "/v1/models"):
        answer = httpx.get(small_address + path, headers={"Origin": "http://evil.example"})
        assert answer.status_code == 200
        assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "path",
    [
        "/studio/gradio_api/file=/etc/passwd",
        "/studio/file=/etc/passwd",
        "/studio/static/../../../../../../etc/passwd",
        "/studio/static/%2e%2e/%2e%2e/share.html",
        "/studio/assets/..%2f..%2findex.html",
        "/studio/custom_component/1/server/component/x.js",
        "/studio/gradio_api/proxy=http://127.0.0.1/",
        "/studio/gradio_api/upload_progress?upload_id=1",
        "/studio/gradio_api/queue/data?session_hash=a",
        "/studio/svelte/x",
        "/studio-assets/..%2fmount.py",
        "/studio-assets/boxes.js",
        "/v1/training/denoiser/..%2f..%2frecipe.yaml",
        "/v1/training/denoiser/state",
        "/v1/training/latents/samples",
    ],
)
def test_no_path_reaches_a_file(small_address: str, path: str) -> None:
    assert httpx.get(small_address + path).status_code == 404


@pytest.mark.parametrize(
    "path",
    ["gradio_api/upload", "gradio_api/queue/join", "gradio_api/run/predict", "gradio_api/component_server", "login"],
)
def test_gradio_takes_nothing(small_address: str, path: str) -> None:
    sent = httpx.post(f"{small_address}/studio/{path}", files={"files": ("x.txt", b"x")})
    assert sent.status_code == 404
    assert json.loads(sent.text)["error"]["code"] == "no_page"


def asked(path: str, **headers: str) -> tuple[int, list[str]]:
    """What a shutter answers, and the paths that got through it."""
    from darkroom.studio.shutter import Shutter

    through: list[str] = []
    said: list[Any] = []

    async def within(scope: Any, receive: Any, send: Any) -> None:
        through.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        said.append(message)

    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "GET", "path": path, "root_path": "/studio", "headers": raw, "query_string": b""}
    with ThreadPoolExecutor(1) as aside:  # a browser that is driven from this thread has a loop in it
        aside.submit(lambda: asyncio.run(Shutter(within)(scope, receive, send))).result()
    return said[0]["status"], through


@pytest.mark.parametrize("host", ["[", "a:b", "999.1.1.1", "\x00"])
def test_a_host_that_is_none_is_refused(host: str) -> None:
    """Of a server that is called by any name; Gradio makes addresses of it."""
    assert asked("/studio/", host=host) == (400, [])


def test_a_host_by_any_name_is_let_through() -> None:
    for host in ("localhost:80", "[::1]:8000", "studio.example", "10.0.0.7:9"):
        assert asked("/studio/", host=host) == (200, ["/studio/"])
    assert asked("/studio/theme.css") == (200, ["/studio/theme.css"])
    assert asked("/studio/gradio_api/info") == (404, [])


def test_a_training_that_diverged_is_told_as_it_is(tmp_path: Path) -> None:
    from darkroom.studio.follow import Followed

    write_yaml(tmp_path / "recipe.yaml", {"name": "run", "denoiser": {"train": {"steps": 4}}})
    (tmp_path / "denoiser").mkdir()
    for step, loss in ((1, 0.5), (2, math.inf), (3, math.nan)):
        append_line(tmp_path / "denoiser" / "log.jsonl", {"step": step, "loss": loss, "seconds": math.nan})
    state = Followed(tmp_path).state()
    (stage,) = json.loads(json.dumps(state, allow_nan=False))["stages"]
    assert (stage["step"], stage["latest"]["loss"], stage["left"]) == (3, None, None)


def test_a_training_that_stopped_is_told_from_one_that_goes_on(tmp_path: Path) -> None:
    from darkroom.studio.follow import Followed

    log = _run(tmp_path, b"name: run") / "denoiser" / "log.jsonl"
    log.parent.mkdir()
    append_line(log, {"step": 1, "loss": 0.5})
    followed = Followed(tmp_path, clock=lambda: log.stat().st_mtime + 300)
    assert followed.state()["silent"] == pytest.approx(300, abs=1e-3)
    for step in (2, 3):  # whatever was kept of the log, what is written is seen
        append_line(log, {"step": step, "loss": 0.25})
        assert [stage["step"] for stage in followed.state()["stages"]] == [step]
    log.unlink()
    assert followed.state()["stages"] == []


def test_a_recipe_that_is_none_tells_no_name(tmp_path: Path) -> None:
    from darkroom.studio.follow import Followed

    followed = Followed(_run(tmp_path, b"name: run"))
    assert followed.state()["name"] == "run"
    for broken in (b"- a list", b"{", b"\xff", b""):
        assert Followed(_run(tmp_path, broken)).state() == {
            "name": tmp_path.name,
            "summary": "",
            "finished": False,
            "silent": None,
            "stages": [],
        }


def _run(folder: Path, recipe: bytes) -> Path:
    (folder / "recipe.yaml").write_bytes(recipe)
    return folder


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    from darkroom.studio.follow import Followed

    with pytest.raises(InputError, match=r"recipe\.yaml"):
        Followed(tmp_path)
