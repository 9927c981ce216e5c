"""Requests made to hurt: none is answered by 5xx, none touches a file it should not, and the server goes on."""

import base64
import contextlib
import io
import json
import socket
import struct
import zlib
from collections.abc import Generator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from PIL import Image
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import response_schema_conformance
from serving import KINDS, Served, engine_at, over, served, wait_for

from darkroom.core.errors import DarkroomError
from darkroom.serve.asked import parted
from darkroom.tasks.request import PICTURES as SENT
from darkroom.tasks.together import alike

EXAMPLES = 12  # of each operation


@pytest.fixture(scope="module")
def small_server(sources: list[str], tmp_path_factory: pytest.TempPathFactory) -> Generator[Served]:
    """A server with tight limits, so that what passes is soon drawn."""
    limits = {"steps": 4, "count": 2, "pixels": 1024, "body": 200_000, "picture": 10_000, "queue": 50, "sending": 1.0}
    limits["bodies"] = 300_000
    with served(engine_at(tmp_path_factory.mktemp("hostile") / "served", sources, limits=limits)) as found:
        wait_for(lambda: found.engine.ready)
        yield found


def everything(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, *, data: bytes = b"", extra: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + extra
        + chunk(b"IDAT", zlib.compress(data))
        + chunk(b"IEND", b"")
    )


def coded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def saved(kind: str) -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (16, 16)).save(written, kind)
    return written.getvalue()


def of_scans(*, more: int = 0, kind: str = "JPEG", between: bytes = b"", comment: bytes = b"") -> bytes:
    """A progressive JPEG whose last scan comes so many times more."""
    written, picture = io.BytesIO(), Image.new("L", (16, 16), 99)
    second = {"save_all": True, "append_images": [picture]} if kind == "MPO" else {}
    picture.save(written, kind, progressive=True, comment=comment, **second)
    whole = written.getvalue()
    end = whole.index(b"\xff\xd9")
    scan = whole[whole.rindex(b"\xff\xda", 0, end) : end]
    return whole[:end] + (between + scan) * more + whole[end:]


BOMB = png_of(60_000, 60_000, data=bytes(1000))
TEXT_BOMB = png_of(4, 4, data=bytes(52), extra=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(30_000_000))))
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run\n"
JSON_BODIES: dict[str, tuple[Any, int]] = {
    "a path for a picture": ({"image": "/etc/passwd"}, 422),
    "a url for a picture": ({"image": "file:///etc/passwd"}, 422),
    "a web address for a picture": ({"image": "http://127.0.0.1:1/a.png"}, 422),
    "a data url of text": ({"image": "data:text/plain;base64,AAAA"}, 422),
    "a picture of too many pixels": ({"image": coded(BOMB)}, 413),
    "a picture with a bomb of text": ({"image": coded(TEXT_BOMB)}, 422),
    "a picture of very many scans": ({"image": coded(of_scans(more=40))}, 413),
    "two pictures in one, of very many scans": ({"image": coded(of_scans(more=40, kind="MPO"))}, 413),
    "a picture whose scans hide": ({"image": coded(of_scans(more=40, between=b"\xff\x01"))}, 413),
    "a picture of some scans": ({"image": coded(of_scans(more=5))}, 202),
    "a picture with what looks like scans": ({"image": coded(of_scans(comment=b"\xff\xda" * 99))}, 202),
    "a picture cut short": ({"image": coded(saved("JPEG")[:300])}, 422),
    "a drawing that names a file": ({"image": coded(SVG)}, 422),
    "postscript": ({"image": coded(EPS)}, 422),
    "a tiff": ({"image": coded(saved("TIFF"))}, 422),
    "a model by its path": ({"model": "../../etc/passwd"}, 404),
    "a model with a null byte": ({"model": "a\0b"}, 404),
    "a model that is no text": ({"model": ["plain"]}, 422),
    "an unknown key": ({"config": "/etc/passwd", "prompt": "a"}, 422),
    "a decoder": ({"decoder": "/tmp/evil.ckpt"}, 422),
    "a negative count": ({"count": -1}, 422),
    "a huge count": ({"count": 2**63 - 1}, 422),
    "a count that is a text": ({"count": "1"}, 422),
    "a count that is true": ({"count": True}, 422),
    "a truth that is a number": ({"inverted": 0}, 422),
    "a number that is whole": ({"eta": 0}, 202),
    "a count beyond any": ({"count": 10**400}, 422),
    "a huge size": ({"size": [10**9, 10**9]}, 422),
    "a size below nothing": ({"size": [-16, -16]}, 422),
    "a size of nothing by more than any number": ({"size": [0, 10**400]}, 422),
    "a key as long as a book": ({"k" * 150_000: 1}, 422),
    "a label as long as a book": ({"model": "class", "label": "l" * 150_000}, 422),
    "a guidance of a condition as long as a book": ({"model": "text", "prompt": "a", "guidance": {"g" * 9999: 1}}, 422),
    "a window of nothing": ({"window": 0}, 422),
    "a huge window": ({"window": 2**62}, 202),
    "a huge seed": ({"seed": 2**64}, 422),
    "an endless guidance": ({"model": "text", "prompt": "a", "guidance": 1e308}, 202),
    "a box outside": ({"model": "layout", "layout": [{"category": 1, "box": [0.9, 0, 0.9, 1]}]}, 422),
    "many objects": ({"model": "layout", "layout": [{"category": 1, "box": [0, 0, 1, 1]}] * 1000}, 422),
    "a prompt with a null byte": ({"model": "text", "prompt": "a\0b"}, 202),
    "a prompt of right to left marks": ({"model": "text", "prompt": "\u202e\ufeff" * 50}, 202),
    "a prompt in sql": ({"model": "text", "prompt": "'; DROP TABLE jobs; --"}, 202),
    "an image and a mask of unequal sizes": (
        {"image": coded(saved("PNG")), "mask": coded(png_of(2, 2, data=bytes(14)))},
        422,
    ),
    "an unknown solver": ({"solver": "__import__"}, 422),
    "times of another kind": ({"times": "/etc/passwd"}, 422),
}
RAW: dict[str, tuple[bytes, int]] = {
    "no json": (b"{", 400),
    "a list": (b"[]", 400),
    "deep json": (b"[" * 100_000, 400),
    "a number that is none": (b'{"at": NaN}', 400),
    "half an emoji": (b'{"prompt": "\\ud83d"}', 400),
    "no utf-8": (b'{"prompt": "\xff\xfe"}', 400),
    "too large": (b'{"prompt": "' + b"a" * 300_000 + b'"}', 413),
    "a long number": (b'{"seed": ' + b"9" * 10_000 + b"}", 400),
    "very many values": (b'{"layout": [' + b"1," * 90_000 + b"1]}", 413),
    "very many keys": (b"{" + b",".join(b'"%x":1' % number for number in range(20_000)) + b"}", 422),
}


@pytest.mark.parametrize("case", JSON_BODIES)
def test_a_hostile_job_is_refused_or_drawn_like_any(small_server: Served, case: str) -> None:
    body, status = JSON_BODIES[case]
    answer = small_server.client.post(
        "/v1/jobs", content=json.dumps(body), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == status, answer.text
    if status != 202:
        error = answer.json()["error"]
        assert len(error["message"]) < 1000
        assert "Traceback" not in error["message"]


@pytest.mark.parametrize("case", RAW)
def test_a_hostile_body_is_refused(small_server: Served, case: str) -> None:
    body, status = RAW[case]
    answer = small_server.client.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status, answer.text


@pytest.mark.parametrize(
    "path",
    [
        "/v1/jobs/../../etc/passwd",
        "/v1/jobs/..%2f..%2fdarkroom.sqlite",
        "/v1/jobs/%00",
        "/v1/jobs/" + "a" * 24 + "/pictures/..%2f..%2f..%2fdarkroom.sqlite",
        "/v1/jobs/" + "a" * 24 + "/pictures/-1",
        "/v1/jobs/" + "a" * 24 + "/pictures/99999999999999999999999999",
        "/static/../../etc/passwd",
        "/v1/jobs/'%20OR%201=1",
        "//etc/passwd",
    ],
)
def test_no_path_leads_to_files(small_server: Served, path: str) -> None:
    host, port = small_server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as raw:  # clients would tidy the path up
        raw.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: raw.recv(65536), b""))
    assert int(answer.split(b" ", 2)[1]) in (404, 405, 422), answer[:200]
    assert b"root:" not in answer
    assert b"SQLite" not in answer


FORMS: dict[str, bytes] = {
    "no boundary": b"--x\r\n\r\n",
    "no end": b'--b\r\nContent-Disposition: form-data; name="request"\r\n\r\n{',
    "a file that is no picture": b'--b\r\nContent-Disposition: form-data; name="image"; filename="../../x"\r\n\r\n'
    b"no\r\n--b--\r\n",
    "an unknown part": b'--b\r\nContent-Disposition: form-data; name="evil"; filename="/etc/x"\r\n\r\nno\r\n--b--\r\n',
    "a part without a name": b"--b\r\nContent-Disposition: form-data\r\n\r\nno\r\n--b--\r\n",
    "many parts": b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n' * 100 + b"--b--\r\n",
    "bytes": bytes(range(256)),
}


@pytest.mark.parametrize("case", FORMS)
@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/images/edits", "/v1/images/variations"])
def test_a_hostile_form_is_refused(small_server: Served, path: str, case: str) -> None:
    kind = "multipart/form-data" + ("" if case == "no boundary" else "; boundary=b")
    answer = small_server.client.post(path, content=FORMS[case], headers={"Content-Type": kind})
    assert answer.status_code in (400, 422), answer.text


def test_a_form_in_a_charset_of_its_choice_is_read_or_refused(small_server: Served) -> None:
    """Some have texts that nothing can be written in: here half of a pair of surrogates."""
    part = b'--b\r\nContent-Disposition: form-data; name="request"\r\n\r\n{"prompt": "+2AA-"}\r\n--b--\r\n'
    for charset, status in (("utf-7", 400), ("utf-8", 202)):
        kind = f"multipart/form-data; boundary=b; charset={charset}"
        body = part.replace(b'"prompt"', b'"prompt"' if status == 400 else b'"model": "text", "prompt"')
        answer = small_server.client.post("/v1/jobs", content=body, headers={"Content-Type": kind})
        assert answer.status_code == status, answer.text


NUMBERS = st.sampled_from(
    [None, True, "1", [], 0, -1, 1, 2, 15, 16, 10**9, 2**62, 2**63 - 1, 2**64, 10**400, 0.5, -0.5, 1e308, 5e-324]
)
NUMBERED = (
    *("to_seed", "at", "strength", "inverted", "guide_weight", "match", "count", "seed", "first", "window", "steps"),
    *("eta", "guidance", "guidance_rescale", "label", "to_label"),
)
SIDES = st.sampled_from([(1, 1), (16, 16), (16, 3), (3, 16), (31, 17), (48, 32)])


def sent(mode: str, size: tuple[int, int]) -> str:
    written = io.BytesIO()
    Image.new(mode, size, 1).save(written, "PNG")
    return coded(written.getvalue())


PICTURES = st.builds(sent, st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "I;16"]), SIDES)


@hypothesis.given(
    model=st.sampled_from(KINDS),
    numbers=st.dictionaries(st.sampled_from(NUMBERED), NUMBERS, max_size=4),
    pictures=st.dictionaries(st.sampled_from([*SENT]), PICTURES, max_size=2),
    pairs=st.dictionaries(st.sampled_from(["size", "guidance_interval"]), st.tuples(NUMBERS, NUMBERS), max_size=1),
    words=st.dictionaries(st.sampled_from(["prompt", "negative", "to", "solver", "times"]), st.text(max_size=9)),
)
@settings(max_examples=120, deadline=None, database=None, derandomize=True, suppress_health_check=[*HealthCheck])
def test_whatever_has_the_right_names_is_settled_or_refused(
    small_server: Served, *, model: str, numbers: Any, pictures: Any, pairs: Any, words: Any
) -> None:
    engine = small_server.engine
    layout = {"layout": [{"category": 1, "box": [0, 0, 1, 1]}]} if model == "layout" else {}
    with contextlib.suppress(DarkroomError):
        asked, given = parted({**layout, **numbers, **pictures, **pairs, **words})
        assert alike(engine._request(engine.shelf.offer(model), asked, given))


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("Content-Length: 99999999999", 413),
        ("Content-Length: 20", 408),  # and nothing follows
        ("Transfer-Encoding: chunked", 413),
    ],
)
def test_a_body_that_lies_about_its_length(small_server: Served, head: str, status: int) -> None:
    host, port = small_server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        start = f"POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n{head}\r\n\r\n"
        raw.sendall(start.encode())
        if "chunked" in head:
            for _ in range(30):
                raw.sendall(b"4000\r\n" + b" " * 0x4000 + b"\r\n")
        assert int(raw.recv(65536).split(b" ", 2)[1]) == status


def test_what_is_sent_at_once_has_an_end_in_all(small_server: Served) -> None:
    host, port = small_server.url.removeprefix("http://").split(":")
    head = (
        b"POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 190000\r\n\r\n"
    )

    def one_more() -> int:
        more = b" " * 100_000 + b"[]"
        return small_server.client.post(
            "/v1/jobs", content=more, headers={"Content-Type": "application/json"}
        ).status_code

    def refused() -> bool:
        with contextlib.ExitStack() as held:
            for _ in range(2):
                raw = held.enter_context(socket.create_connection((host, int(port)), timeout=10))
                raw.sendall(head + b" " * 140_000)
            return one_more() == 429

    wait_for(refused, seconds=20)
    wait_for(lambda: one_more() == 400, seconds=5)


def test_a_full_queue_is_answered_by_429_at_once(model_files: dict[str, Path], tmp_path: Path) -> None:
    engine = engine_at(tmp_path / "served", [str(model_files["plain"])], limits={"queue": 5})
    with served(engine) as server:
        slow = [server.client.post("/v1/jobs", json={"steps": 1000, "count": 16}) for _ in range(20)]
        codes = [each.status_code for each in slow]
        assert {*codes} == {202, 429}
        assert all(each.headers["retry-after"] for each in slow if each.status_code == 429)


def _schema(server: Served) -> Any:
    described = server.client.get("/openapi.json").json()
    return schemathesis.openapi.from_dict(described, config=SchemathesisConfig.from_dict({"base-url": server.url}))


def drawn(server: Served) -> str:
    """The id of a job that has ended."""
    begun = server.client.post("/v1/jobs", json={"steps": 1}).json()["id"]
    job = server.engine.store.job(begun)
    assert job is not None
    return over(server.engine, job)[0].id


def answered(operation: Any, there: dict[str, Any]) -> list[int]:
    """How a route answers what is drawn for it, each second time with what is there in its path."""
    codes: list[int] = []

    @hypothesis.given(case=operation.as_strategy())
    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, suppress_health_check=[*HealthCheck]
    )
    def ask(case: Any) -> None:
        if len(codes) % 2 and case.path_parameters:
            case.path_parameters.update({name: there[name] for name in case.path_parameters})
        response = case.call(timeout=30)
        codes.append(response.status_code)
        case.validate_response(response, checks=[response_schema_conformance])
        assert response.status_code < 500, response.text

    ask()
    return codes


def test_what_the_description_allows_and_forbids_is_answered_below_500(small_server: Served) -> None:
    folder = small_server.engine.store.folder.parent
    before = {*everything(folder)}
    seen: dict[str, list[int]] = {}
    for found in _schema(small_server).get_all_operations():
        operation = found.ok()
        there = {"id": drawn(small_server), "place": 0, "name": "map"}  # else chance would name none that is there
        seen[operation.label] = answered(operation, there)
    every = [code for codes in seen.values() for code in codes]
    assert len(every) > 5 * EXAMPLES
    assert {200, 404, 422} <= {*every}
    never = {label for label, codes in seen.items() if not any(200 <= code < 300 for code in codes)}
    assert never <= {"POST /v1/images/edits", "POST /v1/images/variations"}  # which chance would have to draw a PNG for
    new = {name for name in everything(folder) if name not in before}
    assert all(name.startswith("served/pictures/") and name.endswith(".png") for name in new if "sqlite" not in name)


def test_after_all_that_it_still_draws(small_server: Served) -> None:
    """Runs last in this file: nothing waits for ever, nobody's pictures are lost."""
    wait_for(lambda: small_server.engine.unfinished == 0)
    begun = [small_server.client.post("/v1/jobs", json={"model": kind}).json() for kind in KINDS[:1]]
    jobs = [small_server.engine.store.job(each["id"]) for each in begun]
    assert [job.state for job in over(small_server.engine, *(job for job in jobs if job))] == ["done"]
    assert small_server.engine.alive
    text = small_server.client.get("/metrics").text
    assert 'status="5' not in text
