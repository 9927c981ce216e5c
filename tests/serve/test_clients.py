"""What programs of others rely on: OpenAI's client, a browser's EventSource, Prometheus, forms."""

import json
from typing import Any

import pytest
from serving import Served, over, served
from test_api import colours, lines_of, png

from darkroom.serve.counts import Counts
from darkroom.serve.engine import Engine
from darkroom.serve.store import Job


def finished(server: Served, **asked: Any) -> Job:
    id = server.client.post("/v1/jobs", json={"steps": 1, **asked}).json()["id"]
    job = server.engine.store.job(id)
    assert job is not None
    return over(server.engine, job)[0]


def test_an_event_source_that_was_told_all_is_sent_away(server: Served) -> None:
    """It asks again after the end of every stream, until it is answered with 204."""
    where = f"/v1/jobs/{finished(server).id}/events"
    with server.client.stream("GET", where) as response:
        ((last, kind, _),) = lines_of(response)
    assert kind == "done"
    again = server.client.get(where, headers={"Last-Event-ID": last})
    assert (again.status_code, again.content) == (204, b"")
    other_start = f"{'0' * 8}-{last.partition('-')[2]}"  # the server was started anew meanwhile
    assert server.client.get(where, headers={"Last-Event-ID": other_start}).status_code == 204
    for early in ("0-1", "", "x", f"{server.engine.epoch}-1"):
        assert "event: done" in server.client.get(where, headers={"Last-Event-ID": early}).text


def test_a_model_is_found_by_its_name(server: Served) -> None:
    every = server.client.get("/v1/models").json()["data"]
    for each in every:
        assert server.client.get(f"/v1/models/{each['id']}").json() == each
    missing = server.client.get("/v1/models/dall-e-3")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "no_model")


def test_classes_without_names_are_counted(server: Served) -> None:
    counts = {each["id"]: each["counts"] for each in server.client.get("/v1/models").json()["data"]}
    assert counts["both"] == {"label": 3}
    assert (counts["layout"], counts["map"]) == ({"objects": 3}, {"map": 4})
    assert counts["plain"] == counts["text"] == counts["inpaint"] == {}


def test_where_pictures_are_is_told_in_whole(server: Served) -> None:
    """OpenAI's clients hand the address on as it is."""
    asked = {"response_format": "url", "steps": 1, "stream": False, "partial_images": None}
    (found,) = server.client.post("/v1/images/generations", json=asked).json()["data"]
    assert found["url"].startswith(f"{server.url}/v1/jobs/")
    assert server.client.get(found["url"]).headers["content-type"] == "image/png"
    for said, scheme in (("https", "https"), ("gopher", "http"), ("https, http", "http")):
        headers = {"X-Forwarded-Proto": said}
        (found,) = server.client.post("/v1/images/generations", json=asked, headers=headers).json()["data"]
        assert found["url"].partition("://")[0] == scheme


def test_what_is_not_sent_is_refused_not_left_out(server: Served) -> None:
    for asked in ({"stream": True}, {"partial_images": 2}, {"output_format": "webp"}):
        refused = server.client.post("/v1/images/generations", json=asked)
        assert (refused.status_code, refused.json()["error"]["type"]) == (422, "invalid_request_error")
        assert next(iter(asked)) in refused.json()["error"]["message"]


def test_of_two_pictures_none_is_left_out(server: Served) -> None:
    one, other = (("a.png", png(colours(seed))) for seed in range(2))
    for files in ([("image[]", one), ("image[]", other)], [("image", one), ("image[]", other)]):
        refused = server.client.post("/v1/images/variations", files=files, data={"strength": "0.5"})
        assert refused.status_code == 422, refused.text
        assert "two" in refused.json()["error"]["message"]
    single = server.client.post("/v1/images/variations", files=[("image[]", one)], data={"n": "1", "stream": "false"})
    assert single.status_code == 200, single.text


def test_what_is_left_empty_in_a_form_is_not_asked_for(server: Served) -> None:
    empty = {"model": "", "label": "", "negative": "", "seed": "", "size": "", "n": ""}
    answer = server.client.post(
        "/v1/images/variations", files={"image": ("a.png", png(colours(1)))}, data={**empty, "strength": "0.5"}
    )
    assert answer.status_code == 200, answer.text


def test_a_form_says_everything_once(server: Served) -> None:
    request = ("request", (None, json.dumps({"steps": 1})))
    refused = server.client.post("/v1/jobs", files=[request, request])
    assert (refused.status_code, "'request'" in refused.text) == (422, True)


@pytest.mark.parametrize("count", [1, 999_999, 1_234_567, 2**40 + 1])
def test_counters_do_not_stand_still_when_they_are_large(count: int) -> None:
    counts = Counts()
    counts.add("pictures", count)
    counts.add("pictures")
    for _ in range(3):
        counts.took("job", 0.2)
    lines = counts.text({"models_bytes": count}).splitlines()
    assert f"darkroom_pictures_total {count + 1}" in lines
    assert f"darkroom_models_bytes {count}" in lines
    assert {'darkroom_job_seconds_bucket{le="0.3"} 3', "darkroom_job_seconds_count 3"} <= {*lines}


def test_every_sample_belongs_to_the_type_before_it(engine: Engine) -> None:
    with served(engine) as server:
        finished(server)
        answer = server.client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    name, seen = "", set()
    for line in answer.text.splitlines():
        if line.startswith("# TYPE "):
            name = line.split()[2]
            assert name not in seen, "one block a name"
            seen.add(name)
        else:
            assert line.startswith(name), line
            float(line.rsplit(" ", 1)[1])
    assert {"darkroom_pictures_total", "darkroom_batch_seconds", "darkroom_jobs_waiting"} <= seen
    assert answer.text.endswith("\n")
