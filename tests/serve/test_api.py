"""The HTTP API, over a live server: jobs of every task, events, galleries, tokens, and the shape of OpenAI's images."""

import base64
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from serving import SLOW, Served, engine_at, served, wait_for

from darkroom.tasks.model import Model
from darkroom.tasks.note import read_note

Small = Callable[[str], Model]


def png(picture: Image.Image) -> bytes:
    written = io.BytesIO()
    picture.save(written, "PNG")
    return written.getvalue()


def coded(picture: Image.Image) -> str:
    return base64.b64encode(png(picture)).decode()


def colours(seed: int = 1, side: int = 16) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8))


def hole() -> Image.Image:
    mask = Image.new("L", (16, 16))
    mask.paste(255, (4, 4, 12, 12))
    return mask


def ended(server: Served, begun: httpx.Response) -> dict[str, Any]:
    """The job that a request began, when it has ended."""
    assert begun.status_code == 202, begun.text
    id = begun.json()["id"]
    wait_for(lambda: server.client.get(f"/v1/jobs/{id}").json()["state"] in ("done", "failed", "cancelled"))
    return server.client.get(f"/v1/jobs/{id}").json()


def pictures(server: Served, job: dict[str, Any]) -> list[Image.Image]:
    found = [server.client.get(each["url"]) for each in job["pictures"]]
    assert {each.headers["content-type"] for each in found} == {"image/png"}
    return [Image.open(io.BytesIO(each.content)) for each in found]


LAYOUT = [{"category": "circle", "box": [0.1, 0.1, 0.4, 0.4]}, {"category": 2, "box": [0.5, 0.5, 0.5, 0.5]}]
MAP = Image.fromarray((np.arange(256, dtype=np.uint8) % 4).reshape(16, 16))
TASKS: dict[str, tuple[dict[str, Any], dict[str, Image.Image]]] = {
    "plain": ({}, {}),
    "text": ({"prompt": "a red circle", "negative": "a star", "guidance": 3}, {}),
    "class": ({"label": "star", "solver": "euler", "size": [16, 24]}, {}),
    "layout": ({"layout": LAYOUT}, {}),
    "map": ({}, {"map": MAP}),
    "low-res": ({}, {"low_res": colours(side=8)}),
    "inpaint": ({}, {"image": colours(), "mask": hole()}),
    "both": ({"prompt": "a", "label": 1, "guidance": {"caption": 2, "label": 1.5}}, {}),
}


@pytest.mark.parametrize("model", TASKS)
def test_every_task_draws_what_sample_draws(server: Served, small: Small, model: str) -> None:
    values, given = TASKS[model]
    asked = {"model": model, "seed": 5, **values}
    by_json = ended(server, server.client.post("/v1/jobs", json=asked | {key: coded(p) for key, p in given.items()}))
    files = {"request": (None, json.dumps(asked)), **{key: (f"{key}.png", png(p)) for key, p in given.items()}}
    by_form = ended(server, server.client.post("/v1/jobs", files=files))
    fields = {key: tuple(value) if key == "size" else value for key, value in values.items()}
    (expected,) = small(model).sample(seed=5, **fields, **given)
    for job in (by_json, by_form):
        assert job["state"] == "done", job
        (picture,) = pictures(server, job)
        assert picture.tobytes() == expected.tobytes()
        assert (
            json.loads(picture.info["darkroom"]) == job["pictures"][0]["note"] == json.loads(expected.info["darkroom"])
        )
        assert b"lgorithmicMedia" in picture.info["xmp"]


def test_several_prompts_are_one_job(server: Served, small: Small) -> None:
    prompts = ["a red circle", "a star"]
    asked = {"model": "both", "prompt": prompts, "label": 1, "count": 2, "seed": 6}
    job = ended(server, server.client.post("/v1/jobs", json=asked))
    expected = small("both").sample(prompts, label=[1, 1], count=2, seed=6)
    assert [each["note"]["prompt"] for each in job["pictures"]] == [prompts[0]] * 2 + [prompts[1]] * 2
    for picture, one in zip(pictures(server, job), expected, strict=True):
        assert np.abs(np.asarray(picture, int) - np.asarray(one, int)).max() <= 2
    for wrong, code in (([], "invalid_request"), (["a"] * 9, "limit_count"), (["a", 1], "invalid_request")):
        refused = server.client.post("/v1/jobs", json=asked | {"prompt": wrong})
        assert (refused.status_code, refused.json()["error"]["code"]) == (422, code)


def test_ways_variations_and_guides_go_with_any_model(server: Served) -> None:
    way = {"model": "text", "prompt": "a", "to": "a star", "count": 3, "to_seed": 9}
    varied = {"image": coded(colours()), "strength": 0.5}
    guided = {"guide": coded(colours(side=4)), "guide_weight": 0.5}
    for asked, total in ((way, 3), (varied, 1), (guided, 1)):
        job = ended(server, server.client.post("/v1/jobs", json=asked))
        assert (job["state"], job["total"], len(job["pictures"])) == ("done", total, total), job


def test_without_a_seed_one_is_drawn_and_told(server: Served) -> None:
    seeds = set()
    for _ in range(2):
        job = ended(server, server.client.post("/v1/jobs", json={}))
        seeds.add(job["asked"]["seed"])
        assert job["pictures"][0]["note"]["seed"] == job["asked"]["seed"]
    assert len(seeds) == 2


def test_a_downloaded_picture_is_drawn_again_by_like(server: Served, small: Small, tmp_path: Path) -> None:
    job = ended(server, server.client.post("/v1/jobs", json={"model": "class", "label": 1, "count": 2}))
    path = tmp_path / "second.png"
    path.write_bytes(server.client.get(job["pictures"][1]["url"]).content)
    assert read_note(path).index == 1
    (again,) = small("class").sample(like=path)
    assert np.abs(np.asarray(again, int) - np.asarray(Image.open(path), int)).max() <= 2


def lines_of(response: httpx.Response) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Server-sent events: id, kind, data."""
    told: dict[str, str] = {}
    for line in response.iter_lines():
        if not line and "data" in told:
            yield told["id"], told["event"], json.loads(told["data"])
        if not line:
            told = {}
        name, _, value = line.partition(": ")
        told[name] = value


def test_events_lead_to_the_finished_job_and_go_on_after_the_last_seen(server: Served) -> None:
    begun = server.client.post("/v1/jobs", json={"count": 2, "steps": 100}).json()
    where = f"/v1/jobs/{begun['id']}/events"
    with server.client.stream("GET", where) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        first = [each for each, _ in zip(lines_of(response), range(3), strict=False)]
    assert first[0][1] == "state"
    with server.client.stream("GET", where, headers={"Last-Event-ID": first[-1][0]}) as response:
        rest = list(lines_of(response))
    assert not {each for each, _, _ in first} & {each for each, _, _ in rest}
    assert "preview" in {kind for _, kind, _ in [*first, *rest]}
    kind, job = rest[-1][1:]
    assert (kind, job["state"], len(job["pictures"])) == ("done", "done", 2)
    with server.client.stream("GET", where, params={"previews": False}) as response:
        late = list(lines_of(response))
    assert [(kind, data["id"]) for _, kind, data in late] == [("done", job["id"])]


def test_cancel_then_forget(server: Served) -> None:
    begun = server.client.post("/v1/jobs", json=SLOW).json()
    where = f"/v1/jobs/{begun['id']}"
    wait_for(lambda: server.client.get(where).json()["progress"] > 0)
    assert server.client.delete(where).json()["error"]["code"] == "not_ended"
    assert server.client.post(f"{where}/cancel").json()["state"] == "cancelled"
    assert server.client.post(f"{where}/cancel").json()["state"] == "cancelled"
    assert server.client.delete(where).status_code == 204
    assert server.client.get(where).status_code == 404


def test_a_picture_that_somebody_took_away_is_not_there(server: Served) -> None:
    job = ended(server, server.client.post("/v1/jobs", json={"steps": 1}))
    where = job["pictures"][0]["url"]
    assert server.client.get(where).headers["content-type"] == "image/png"
    server.engine.store.path(job["id"], 0).unlink()
    gone = server.client.get(where)
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "no_picture")


def test_the_gallery_is_read_page_by_page(server: Served) -> None:
    jobs = [ended(server, server.client.post("/v1/jobs", json={"seed": seed}))["id"] for seed in range(3)]
    first = server.client.get("/v1/jobs", params={"count": 2, "state": "done"}).json()
    second = server.client.get("/v1/jobs", params={"count": 2, "state": "done", "before": first["next"]}).json()
    assert [job["id"] for job in [*first["jobs"], *second["jobs"]]][:3] == jobs[::-1]


def test_models_say_what_steers_them(server: Served) -> None:
    found = {each["id"]: each for each in server.client.get("/v1/models").json()["data"]}
    assert list(found) == list(TASKS)
    assert (found["class"]["task"], found["class"]["classes"]) == ("class", ["circle", "square", "star"])
    assert found["text"]["size"] == [16, 16]
    assert (found["plain"]["guided"], found["both"]["guided"]) == ([], ["caption", "label"])
    job = ended(server, server.client.post("/v1/jobs", json={}))
    assert found["plain"]["spec_hash"] == job["pictures"][0]["note"]["spec_hash"]


def test_it_says_how_it_is(server: Served) -> None:
    assert server.client.get("/health").json() == {"status": "ok"}
    assert server.client.get("/ready").json() == {"status": "ready"}
    text = server.client.get("/metrics").text
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(lines["darkroom_jobs_waiting"]) == 0
    assert float(lines['darkroom_responses_total{status="200"}']) > 0
    ended(server, server.client.post("/v1/jobs", json={}))
    later = dict(line.rsplit(" ", 1) for line in server.client.get("/metrics").text.splitlines() if line[0] != "#")
    assert float(later["darkroom_pictures_total"]) >= float(lines.get("darkroom_pictures_total", 0)) + 1


def test_pictures_as_openais_clients_ask_for_them(server: Served, small: Small) -> None:
    asked = {"model": "text", "prompt": "a star", "n": 2, "size": "24x16", "seed": 4, "quality": "hd", "user": "me"}
    answer = server.client.post("/v1/images/generations", json=asked).json()
    expected = small("text").sample("a star", count=2, seed=4, size=(16, 24))
    drawn = [Image.open(io.BytesIO(base64.b64decode(each["b64_json"]))) for each in answer["data"]]
    assert [each.size for each in drawn] == [(24, 16)] * 2
    for picture, one in zip(drawn, expected, strict=True):
        assert np.abs(np.asarray(picture, int) - np.asarray(one, int)).max() <= 2
    (linked,) = server.client.post("/v1/images/generations", json={"response_format": "url"}).json()["data"]
    assert server.client.get(linked["url"]).headers["content-type"] == "image/png"


def test_edits_paint_where_the_mask_is_transparent(server: Served) -> None:
    picture = colours()
    clear = Image.new("RGBA", (16, 16), (0, 0, 0, 255))
    clear.paste((0, 0, 0, 0), (4, 4, 12, 12))
    with_holes = picture.convert("RGBA")
    with_holes.putalpha(clear.getchannel("A"))
    for files in (
        {"image": ("a.png", png(picture)), "mask": ("m.png", png(clear))},
        {"image[]": ("a.png", png(with_holes))},
    ):
        answer = server.client.post("/v1/images/edits", files=files, data={"model": "inpaint", "n": "1", "seed": "3"})
        assert answer.status_code == 200, answer.text
        drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer.json()["data"][0]["b64_json"]))))
        changed = (drawn != np.asarray(picture)).any(axis=-1)
        assert changed[4:12, 4:12].mean() > 0.9
        changed[4:12, 4:12] = False
        assert not changed.any()
    whole = server.client.post("/v1/images/edits", files={"image": ("a.png", png(picture))}, data={"model": "inpaint"})
    assert (whole.status_code, whole.json()["error"]["code"]) == (422, "no_hole")


def test_variations(server: Served) -> None:
    files = {"image": ("a.png", png(colours()))}
    answer = server.client.post("/v1/images/variations", files=files, data={"strength": "0.5", "n": "2"})
    assert len(answer.json()["data"]) == 2


def test_whoever_leaves_while_waiting_leaves_no_work_behind(server: Served) -> None:
    with pytest.raises(httpx.ReadTimeout):
        server.client.post("/v1/images/generations", json={"steps": 1000, "n": 16}, timeout=0.3)
    wait_for(lambda: server.engine.unfinished == 0, seconds=20)
    newest = server.client.get("/v1/jobs", params={"count": 1}).json()["jobs"][0]
    assert newest["state"] == "cancelled"


def test_a_token_opens_its_own_jobs_only(model_files: dict[str, Path], tmp_path: Path) -> None:
    engine = engine_at(tmp_path / "served", [str(model_files["plain"])])
    with served(engine, tokens=("first-token", "second-token"), hosts=None) as server:
        first, second, wrong = ({"Authorization": f"Bearer {each}-token"} for each in ("first", "second", "wrong"))
        for headers in ({}, wrong, {"Authorization": "Basic first-token"}, {"Authorization": "first-token"}):
            refused = server.client.get("/v1/jobs", headers=headers)
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        id = server.client.post("/v1/jobs", json={}, headers=first).json()["id"]
        assert server.client.get(f"/v1/jobs/{id}", headers=first).status_code == 200
        assert server.client.get(f"/v1/jobs/{id}", headers=second).status_code == 404
        assert server.client.post(f"/v1/jobs/{id}/cancel", headers=second).status_code == 404
        assert server.client.get("/v1/jobs", headers=second).json()["jobs"] == []
        assert server.client.get("/health").status_code == 200
        assert server.client.get("/metrics").status_code == 401
        found = engine.store.job(id)
        assert found is not None
        assert "token" not in found.owner + found.client


def test_pages_of_other_sites_are_kept_out(server: Served) -> None:
    renamed = server.client.get("/v1/models", headers={"Host": "evil.example"})
    assert (renamed.status_code, renamed.json()["error"]["code"]) == (403, "host")
    sent = server.client.post("/v1/jobs", json={}, headers={"Origin": "http://evil.example"})
    assert (sent.status_code, sent.json()["error"]["code"]) == (403, "origin")
    own = server.client.post("/v1/jobs", json={"steps": 1}, headers={"Origin": server.url})
    assert own.status_code == 202


def test_a_stopping_server_says_so_and_ends_streams(model_files: dict[str, Path], tmp_path: Path) -> None:
    engine = engine_at(tmp_path / "served", [str(model_files["plain"])])
    with served(engine) as server:
        id = server.client.post("/v1/jobs", json=SLOW | {"count": 16}).json()["id"]
        with server.client.stream("GET", f"/v1/jobs/{id}/events") as response:
            lines = lines_of(response)
            next(lines)
            engine.closing(0)
            kinds = [kind for _, kind, _ in lines]
        assert "done" not in kinds
        assert server.client.get("/ready").status_code == 503
        refused = server.client.post("/v1/jobs", json={})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "stopping")
    again = engine_at(tmp_path / "served", [str(model_files["plain"])])
    assert [job.id for job in again.store.unfinished()] == [id]
    again.stop(0)
