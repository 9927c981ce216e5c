"""The command in a process of its own: killed under load, stopped with care, and started again."""

import contextlib
import re
import signal
import socket
from collections.abc import Generator
from pathlib import Path

import httpx
import pytest
import uvicorn
from serving import submit, wait_for

from darkroom.core.errors import DarkroomError, ModelFileError
from darkroom.serve.api import GRACE, build
from darkroom.serve.engine import Engine
from darkroom.serve.server import _Server, listening, run
from darkroom.serve.store import Store
from warm import Begun, command

QUICK = {"steps": 20}


@contextlib.contextmanager
def serve(model: Path, data: Path, *words: str) -> Generator[tuple[Begun, httpx.Client]]:
    """`darkroom serve` on a free port, and a client of it."""
    line = ["serve", model, "--port", "0", "--data", data, "--batch", "2", *words]
    with command(line, folder=data.with_name("said")) as process:
        wait_for(lambda: "\n" in process.out or not process.alive)
        found = re.search(r"at (http://[\d.:]+)", process.out)
        assert found is not None, process.out + process.complaints
        with httpx.Client(base_url=found[1], timeout=30) as client:
            yield process, client


def states(client: httpx.Client) -> dict[str, str]:
    return {job["id"]: job["state"] for job in client.get("/v1/jobs", params={"count": 200}).json()["jobs"]}


def killed_under_load(model: Path, data: Path) -> list[str]:
    """Eight jobs of three pictures, and a process that died while it drew them."""
    with serve(model, data, "--no-studio") as (process, client):
        ids = [client.post("/v1/jobs", json={**QUICK, "count": 3, "seed": seed}).json()["id"] for seed in range(8)]
        wait_for(lambda: list(states(client).values()).count("done") >= 2)
        process.send(signal.SIGKILL)
        assert process.ended() == -signal.SIGKILL
    return ids


def test_killed_it_loses_nothing_and_draws_nothing_twice_and_stopped_it_keeps_what_waits(
    model_files: dict[str, Path], tmp_path: Path
) -> None:
    data, model = tmp_path / "served", model_files["plain"]
    ids = killed_under_load(model, data)
    files = {path.name: path.stat().st_mtime_ns for path in data.rglob("*.png") if not path.name.startswith(".")}
    with serve(model, data, "--limit", "steps=300") as (process, client):
        found = states(client)
        assert set(found) == set(ids)
        finished = [id for id, state in found.items() if state == "done"]
        wait_for(lambda: set(states(client).values()) == {"done"})
        slow = client.post("/v1/jobs", json={"steps": 300, "count": 16}).json()["id"]
        wait_for(lambda: states(client)[slow] == "running")
        process.send(signal.SIGTERM)
        assert (process.ended(), process.complaints) == (0, "")
    assert "stopped; jobs that wait go on when it is started again" in process.out
    store = Store(data)
    assert [job.id for job in store.unfinished()] == [slow]
    pictures = {path.name: path for path in data.rglob("*.png") if not path.name.startswith(slow)}
    store.close()
    assert len(finished) >= 2
    for name in [name for name in files if name.partition("-")[0] in finished]:
        assert pictures[name].stat().st_mtime_ns == files[name]
    assert {name.partition("-")[0] for name in pictures} == set(ids)
    assert len({path.read_bytes() for path in pictures.values()}) == len(pictures) == 24  # none twice, none another's


def test_a_signal_before_anybody_listens_to_signals_ends_it_too(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = uvicorn.Server.run

    def late(self: uvicorn.Server, *, sockets: list[socket.socket]) -> None:
        signal.raise_signal(signal.SIGTERM)
        original(self, sockets=sockets)

    monkeypatch.setattr(uvicorn.Server, "run", late)
    before = signal.getsignal(signal.SIGTERM)
    run(build(engine), engine, at=listening("127.0.0.1", 0))
    assert not engine.alive
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_waits_for_no_lock_of_the_thread_it_interrupts(engine: Engine) -> None:
    """Signals come between any two instructions, also while this thread tells of a job or listens to one."""
    job = submit(engine)
    with engine._live[job.id].channel._lock:
        server = _Server(uvicorn.Config(build(engine)), closing=lambda: engine.closing(GRACE), over=lambda: False)
        server.handle_exit(signal.SIGTERM, None)
    wait_for(lambda: engine.closed)


@pytest.mark.parametrize(
    ("error", "raised", "sentence"),
    [
        (ModelFileError("plain: broken"), ModelFileError, "plain: broken"),
        (KeyError("what"), DarkroomError, r"drawing has stopped \(KeyError\); jobs that wait go on"),
    ],
)
def test_a_server_whose_engine_cannot_go_on_ends(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, *, error: Exception, raised: type[Exception], sentence: str
) -> None:
    def broken(name: str) -> None:
        raise error

    monkeypatch.setattr(engine.shelf, "open", broken)
    with pytest.raises(raised, match=sentence):
        run(build(engine), engine, at=listening("127.0.0.1", 0))
