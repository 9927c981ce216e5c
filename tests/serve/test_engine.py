"""The engine: batches of alike jobs, cancelling between steps, limits, failures that stay with their cause."""

import base64
import io
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from serving import SLOW, engine_at, over, ran, submit, wait_for

from darkroom.core.errors import InputError
from darkroom.serve import engine as engine_module
from darkroom.serve.engine import Engine
from darkroom.serve.limits import Refused
from darkroom.serve.news import Channel
from darkroom.serve.shelf import stocked
from darkroom.serve.sketch import Sketcher
from darkroom.serve.store import Store
from darkroom.tasks.model import Model

Small = Callable[[str], Model]
ROUNDING = 2  # levels of 255


def drawn(engine: Engine, id: str) -> list[np.ndarray]:
    return [np.asarray(Image.open(engine.store.path(id, place)), int) for place in engine.store.notes(id)]


def sent(side: int) -> str:
    """A square picture in base64."""
    written = io.BytesIO()
    Image.new("L", (side, side)).save(written, "PNG")
    return base64.b64encode(written.getvalue()).decode()


def batches_of(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures each batch has, while it goes on."""
    sizes: list[int] = []
    original = engine_module.draw
    monkeypatch.setattr(
        engine_module,
        "draw",
        lambda model, members, *, watch: sizes.append(len(members)) or original(model, members, watch=watch),
    )
    return sizes


def test_alike_jobs_share_batches_and_are_what_sample_draws(
    engine: Engine, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = batches_of(engine, monkeypatch)
    jobs = [
        submit(engine, f"{number}", model="text", prompt=prompt, count=count, seed=number)
        for number, (prompt, count) in enumerate([("a red circle", 1), ("a star", 3), ("a blue square", 2), ("a", 1)])
    ]
    other = submit(engine, "other", seed=5, steps=7)
    engine.start()
    assert [job.state for job in over(engine, *jobs, other)] == ["done"] * 5
    assert sizes == [7, 1]
    for number, job in enumerate(jobs):
        asked = ["a red circle", "a star", "a blue square", "a"][number]
        expected = small("text").sample(asked, count=job.total, seed=number)
        for picture, one in zip(drawn(engine, job.id), expected, strict=True):
            assert np.abs(picture - np.asarray(one, int)).max() <= ROUNDING
    (own,) = drawn(engine, other.id)
    assert (own == np.asarray(small("plain").sample(seed=5, steps=7)[0], int)).all()
    assert engine.unfinished == 0


def test_a_batch_is_smaller_where_pictures_are_larger(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = batches_of(engine, monkeypatch)
    job = submit(engine, count=5, size=[32, 32])
    engine.start()
    over(engine, job)
    assert sizes == [2, 2, 1]


def test_cancelling_frees_the_engine_within_a_step(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    original = engine_module.Batch.watch

    def counted(batch: Any, step: Any) -> None:
        seen.append(step.index)
        if step.index == 3:
            assert engine.cancel(job.id)
        original(batch, step)

    monkeypatch.setattr(engine_module.Batch, "watch", counted)
    job = submit(engine, **SLOW)
    engine.start()
    wait_for(lambda: len(seen) >= 4)
    after = submit(engine, steps=2)
    over(engine, after)
    assert seen == [0, 1, 2, 3, 0, 1]
    assert [each.state for each in over(engine, job, after)] == ["cancelled", "done"]
    assert not engine.cancel(job.id)


def test_a_waiting_job_is_cancelled_without_being_begun(engine: Engine) -> None:
    job, other = submit(engine), submit(engine, seed=4)
    assert engine.cancel(job.id)
    assert engine.waiting == 1
    engine.start()
    cancelled, done = over(engine, job, other)
    assert (cancelled.state, cancelled.attempts, done.state) == ("cancelled", 0, "done")


def test_whoever_shares_a_batch_with_a_failure_is_drawn_all_the_same(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = engine_module.draw

    def poisoned(model: Any, members: Any, *, watch: Any) -> Any:
        if any(each.wish.prompt == "poison" for each in members):
            raise KeyError("what a prompt should never do")
        return original(model, members, watch=watch)

    monkeypatch.setattr(engine_module, "draw", poisoned)
    prompts = ("a", "poison", "b")
    jobs = [submit(engine, each, model="text", prompt=each, count=2) for each in prompts]
    engine.start()
    ended = over(engine, *jobs)
    assert [job.state for job in ended] == ["done", "failed", "done"]
    assert ended[1].why == "it could not be drawn (KeyError)"
    assert [len(engine.store.notes(job.id)) for job in jobs] == [2, 0, 2]
    assert engine.alive


def test_a_job_that_takes_too_long_fails_and_frees_the_engine(model_files: dict[str, Path], tmp_path: Path) -> None:
    engine = engine_at(tmp_path / "served", [str(model_files["plain"])], limits={"seconds": 0.3})
    engine.start()
    long, short = over(engine, submit(engine, **SLOW), submit(engine, steps=1))
    engine.stop(0)
    assert (long.state, short.state) == ("failed", "done")
    assert long.why == "it took longer than the 0.3 seconds that this server allows"


@pytest.mark.parametrize(
    ("values", "code", "sentence"),
    [
        ({"count": 17}, "limit_count", "17 pictures were asked for; this server allows 16"),
        ({"steps": 5000}, "limit_steps", "5000 steps"),
        ({"size": [2048, 2048]}, "limit_pixels", r"4194304 pixels \(2048x2048\)"),
        ({"model": "text", "prompt": "a" * 2001}, "limit_prompt", "2001 characters in a prompt"),
        ({"size": [512, 512], "window": 8}, "limit_windows", "16129 windows of 8 pixels were asked for"),
        ({"image": sent(128), "window": 4}, "limit_windows", "3969 windows of 4 pixels"),
        ({"model": "nowhere"}, "no_model", "no model 'nowhere' is offered here"),
        ({"image": "bm8="}, "no_picture", "image: no readable picture"),
        ({"image": "%%%"}, "no_picture", "image: a picture in base64 is needed"),
    ],
)
def test_what_is_too_much_is_refused_at_once(engine: Engine, values: dict[str, Any], code: str, sentence: str) -> None:
    with pytest.raises(Refused, match=sentence) as refused:
        submit(engine, **values)
    assert refused.value.code == code
    assert engine.unfinished == 0


def test_too_large_a_picture_is_refused_before_it_is_decoded(model_files: dict[str, Path], tmp_path: Path) -> None:
    engine = engine_at(tmp_path / "served", [str(model_files["plain"])], limits={"picture": 100})
    with pytest.raises(Refused, match="20 x 20 pixels came, at most 100") as refused:
        submit(engine, image=sent(20))
    assert refused.value.status == 413
    engine.stop(0)


def test_the_queue_has_an_end_in_all_and_for_each(model_files: dict[str, Path], tmp_path: Path) -> None:
    engine = engine_at(tmp_path / "served", [str(model_files["plain"])], limits={"queue": 3, "share": 2})
    for client, code in (("a", None), ("a", None), ("a", "share_full"), ("b", None), ("c", "queue_full")):
        if code is None:
            submit(engine, client)
            continue
        with pytest.raises(Refused) as refused:
            submit(engine, client)
        assert (refused.value.status, refused.value.code) == (429, code)
    engine.stop(0)


def test_stopping_keeps_what_waits_and_what_is_drawn_for_the_next_start(
    engine: Engine, model_files: dict[str, Path], tmp_path: Path
) -> None:
    first = submit(engine, count=12, seed=3, **SLOW)
    waiting = submit(engine, "other", model="text", prompt="a star")
    engine.start()
    wait_for(lambda: engine.progress(first.id) > 0)
    engine.stop(0)
    with pytest.raises(Refused, match="this server is stopping"):
        submit(engine)
    again = engine_at(tmp_path / "served", [str(model_files["text"])])
    again.start()
    lost, done = over(again, first, waiting)
    assert (lost.state, lost.attempts, done.state) == ("failed", 1, "done")
    assert "no model 'plain' is offered here" in (lost.why or "")
    again.stop(0)


def test_a_job_begun_before_goes_on_with_its_missing_pictures(
    engine: Engine, model_files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit(engine, count=12, seed=3)
    original = Store.keep

    def kept_once(store: Store, *given: Any, now: float) -> Any:
        answer = original(store, *given, now=now)
        engine.closing(0)
        return answer

    monkeypatch.setattr(Store, "keep", kept_once)
    engine.start()
    engine._thread.join()
    monkeypatch.undo()
    path = engine.store.path(job.id, 0)
    before = path.stat().st_mtime_ns
    assert len(engine.store.notes(job.id)) == 8
    engine.stop(0)
    again = engine_at(tmp_path / "served", [str(model_files["plain"])])
    sizes = batches_of(again, monkeypatch)
    again.start()
    (done,) = over(again, job)
    assert (done.state, done.attempts, sizes) == ("done", 2, [4])
    assert path.stat().st_mtime_ns == before
    assert len({picture.tobytes() for picture in drawn(again, job.id)}) == 12
    again.stop(0)


def test_a_job_that_takes_the_server_with_it_is_given_up_and_does_not_take_others(
    engine: Engine, model_files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    twice, often, other = (submit(engine, seed=number) for number in range(3))
    for job, times in ((twice, 2), (often, engine_module.ATTEMPTS)):
        for _ in range(times):
            engine.store.begin([job.id], now=1.0)
            engine.store.unfinished()
    engine.stop(0)
    again = engine_at(tmp_path / "served", [str(model_files["plain"])])
    sizes = batches_of(again, monkeypatch)
    again.start()
    ended = over(again, twice, often, other)
    again.stop(0)
    assert [job.state for job in ended] == ["done", "failed", "done"]
    assert ended[1].why == "it was begun 5 times, and each time the server ended before it did"
    assert sizes == [1, 1]  # alike, but not in one batch


def test_what_is_asked_for_while_it_closes_is_refused_and_not_kept(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits has been told that the server closes; later jobs would be waited for in vain."""
    original = Engine._request

    def closed_meanwhile(self: Engine, *given: Any) -> Any:
        self.closing(0)
        return original(self, *given)

    monkeypatch.setattr(Engine, "_request", closed_meanwhile)
    with pytest.raises(Refused, match="stopping"):
        submit(engine)
    assert engine.store.unfinished() == []


def test_a_job_is_no_longer_found_once_it_has_ended(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one piece: what another thread finds in between, it may queue again, and nobody would know it."""
    original = Engine._over
    free: list[bool] = []

    def looked(self: Engine, *given: Any, **more: Any) -> None:
        other = threading.Thread(target=lambda: free.append(self._changed.acquire(blocking=False)))
        other.start()
        other.join()
        original(self, *given, **more)

    monkeypatch.setattr(Engine, "_over", looked)
    assert engine.cancel(submit(engine).id)
    assert free == [False]


def test_cancelled_jobs_do_not_pile_up(model_files: dict[str, Path], tmp_path: Path) -> None:
    engine = engine_at(tmp_path / "served", [str(model_files["plain"])], limits={"kept": 2})
    jobs = [submit(engine, seed=seed) for seed in range(4)]
    assert all(engine.cancel(job.id) for job in jobs)
    assert [job.id for job in engine.store.jobs(owner="", before=None, count=9)] == [jobs[3].id, jobs[2].id]
    engine.stop(0)


def test_an_engine_that_cannot_go_on_says_so_to_everybody(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    job = submit(engine)
    monkeypatch.setattr(engine.shelf, "open", lambda name: {}[name])

    async def follow() -> list[Any]:
        threading.Timer(0.05, engine.start).start()
        return [event.kind async for event in engine.follow(job.id) if event is not None]

    assert ran(follow)[-1] == "closing"
    wait_for(lambda: not engine.alive)
    assert isinstance(engine.fault, KeyError)
    with pytest.raises(Refused) as refused:
        submit(engine)
    assert refused.value.status == 503


def test_models_leave_memory_for_others(model_files: dict[str, Path], tmp_path: Path) -> None:
    engine = engine_at(tmp_path / "served", [str(model_files[kind]) for kind in ("plain", "class", "vector")])
    engine.shelf.memory = int(1.5 * max(each.bytes for each in engine.shelf.offers.values()))
    engine.start()
    gone: list[weakref.ref[Any]] = []  # models that left, memory and all
    for model, values in (("class", {"label": 1}), ("vector", {"label": 2}), ("plain", {}), ("class", {"label": 0})):
        (job,) = over(engine, submit(engine, model=model, **values))
        assert job.state == "done"
        assert engine.shelf.loaded == (model,)
        assert engine.shelf.used <= engine.shelf.memory
        assert [each() for each in gone] == [None] * len(gone)
        gone.append(weakref.ref(engine.shelf.open(model).model.diffusion))
    engine.stop(0)


def test_a_model_beyond_the_memory_and_two_of_one_name_are_refused(model_files: dict[str, Path]) -> None:
    plain = str(model_files["plain"])
    with pytest.raises(InputError, match=r"plain takes .* GB, more than --memory allows"):
        stocked([plain], memory=1000)
    with pytest.raises(InputError, match="two models are called 'plain'"):
        stocked([plain, plain], memory=10**9)
    with pytest.raises(InputError, match="a first stage alone"):
        stocked([str(model_files["first-stage"])], memory=10**9)
    found = stocked([], folder=model_files["plain"].parent, memory=10**9)
    assert "plain" in found.offers
    assert "first-stage" not in found.offers


def test_events_tell_the_whole_way_with_previews(engine: Engine) -> None:
    job = submit(engine, count=2, steps=40)

    async def follow() -> list[Any]:
        engine_thread = threading.Timer(0.05, engine.start)
        engine_thread.start()
        return [event async for event in engine.follow(job.id, previews=True)]

    events = ran(follow)
    kinds = [event.kind for event in events]
    assert kinds[0] == "state"
    assert {"step", "preview", "picture"} <= {*kinds}
    assert events[-1].data == {"state": "done", "over": True}
    numbers = [event.number for event in events]
    assert numbers == sorted(set(numbers))
    preview = next(event.data for event in events if event.kind == "preview")
    picture = Image.open(io.BytesIO(base64.b64decode(preview["picture"].partition(",")[2])))
    assert (picture.size, picture.format) == ((16, 16), "JPEG")
    assert [event.data["place"] for event in events if event.kind == "picture"] == [0, 1]


def test_nobody_pays_for_previews_that_nobody_sees(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sketcher, "pictures", lambda *_: pytest.fail("a preview was drawn"))
    engine.start()
    (job,) = over(engine, submit(engine))
    assert job.state == "done"


def test_a_preview_that_fails_takes_no_picture_with_it(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("no memory for that")

    monkeypatch.setattr(Sketcher, "pictures", broken)
    job = submit(engine, steps=40)

    async def follow() -> list[Any]:
        threading.Timer(0.05, engine.start).start()
        return [event.data async for event in engine.follow(job.id, previews=True)]

    assert ran(follow)[-1] == {"state": "done", "over": True}
    assert caplog.text.count("no previews of this batch: no memory for that") == 1


def test_a_channel_keeps_the_latest_of_what_replaces_itself() -> None:
    channel = Channel()
    for number in range(1000):
        channel.tell("step", {"done": number}, instead="step")
    channel.tell("picture", {"place": 0})
    assert [(event.number, event.kind) for event in channel.after(0)] == [(1000, "step"), (1001, "picture")]
    assert [event.number for event in channel.after(1000)] == [1001]
