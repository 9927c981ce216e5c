"""What a server bears: many clients at once, batches against one at a time, the first preview, cancelling.

    python tools/measure_serve.py --clients 200 --seconds 120
    python tools/measure_serve.py --clients 8 --seconds 5 --model shapes

Each part starts `darkroom serve` anew on a free port, over a folder of its own. Answers JSON. So many pictures as
`--checked` says are compared with what `Model.sample` draws for the same prompt and seed; more than 2 of 255 levels
away is wrong.
"""

import argparse
import base64
import contextlib
import io
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import numpy as np
from PIL import Image

import darkroom

PROMPTS = (
    "a red heart",
    "a small blue star",
    "a large green triangle",
    "a purple ring",
    "a yellow circle",
    "a cyan cross",
)
ROUNDING = 2


@contextlib.contextmanager
def server(model: str, *words: str) -> Generator[tuple[str, int]]:
    """Its address and process id."""
    with tempfile.TemporaryDirectory() as folder:
        line = [sys.executable, "-m", "darkroom.cli.main", "serve", model, "--port", "0", "--data", folder, *words]
        with subprocess.Popen(
            line, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
        ) as it:
            assert it.stdout is not None
            found = re.search(r"at (http://[\d.:]+)", it.stdout.readline())
            assert found is not None
            while httpx.get(f"{found[1]}/ready").status_code != 200:
                time.sleep(0.05)
            try:
                yield found[1], it.pid
            finally:
                it.terminate()


def memory(pid: int) -> float:
    """MB that a process holds."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class Clients:
    """Many threads that ask, wait and ask again."""

    def __init__(self, url: str, *, steps: int | None) -> None:
        self.url, self.steps = url, steps
        self.codes: Counter[int] = Counter()
        self.took: list[float] = []
        self.drawn: list[tuple[str, int, bytes]] = []
        self._lock = threading.Lock()

    def run(self, count: int, seconds: float) -> float:
        """Pictures a second, over the time until the last came."""
        begun = time.monotonic()
        threads = [threading.Thread(target=self._ask, args=(number, begun + seconds)) for number in range(count)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        return len(self.drawn) / (time.monotonic() - begun)

    def _ask(self, number: int, until: float) -> None:
        chosen = random.Random(number)
        with httpx.Client(base_url=self.url, timeout=600) as client:
            while time.monotonic() < until:
                prompt, seed = chosen.choice(PROMPTS), chosen.randrange(2**31)
                asked = {"prompt": prompt, "seed": seed} | ({} if self.steps is None else {"steps": self.steps})
                before = time.monotonic()
                answer = client.post("/v1/images/generations", json=asked)
                with self._lock:
                    self.codes[answer.status_code] += 1
                    if answer.status_code == 200:
                        self.took.append(time.monotonic() - before)
                        self.drawn.append((prompt, seed, base64.b64decode(answer.json()["data"][0]["b64_json"])))


def wrong(clients: Clients, model: str, *, checked: int) -> int:
    """Of so many pictures those that are not what was asked for."""
    drawing = darkroom.load(model)
    chosen = random.Random(0).sample(clients.drawn, min(checked, len(clients.drawn)))
    count = 0
    for prompt, seed, data in chosen:
        (expected,) = drawing.sample(prompt, seed=seed, steps=clients.steps)
        found = np.asarray(Image.open(io.BytesIO(data)), int)
        count += int(np.abs(found - np.asarray(expected, int)).max() > ROUNDING)
    return count


def load(given: argparse.Namespace) -> dict[str, Any]:
    """Many clients for a while: what came, how long it took, and what memory did."""
    with server(given.model) as (url, pid):
        clients = Clients(url, steps=given.steps)
        held: list[float] = []
        done = threading.Event()

        def look() -> None:
            while not done.wait(1.0):
                held.append(memory(pid))

        watcher = threading.Thread(target=look)
        watcher.start()
        rate = clients.run(given.clients, given.seconds)
        done.set()
        watcher.join()
    warm = held[len(held) // 4 :] or held
    return {
        "clients": given.clients,
        "pictures": len(clients.drawn),
        "pictures_a_second": round(rate, 3),
        "statuses": dict(clients.codes),
        "median_seconds": round(median(clients.took), 2),
        "wrong": wrong(clients, given.model, checked=given.checked),
        "checked": min(given.checked, len(clients.drawn)),
        "memory_mb": {"after_a_quarter": round(warm[0]), "most": round(max(held)), "last": round(held[-1])},
    }


def batching(given: argparse.Namespace) -> dict[str, Any]:
    """Pictures a second in batches of 8 and one at a time, by equally many clients."""
    rates: dict[str, float] = {}
    for name, batch in (("one", 1), ("batches", 8)):
        with server(given.model, "--batch", str(batch)) as (url, _):
            rates[name] = Clients(url, steps=given.steps).run(min(given.clients, 32), given.seconds / 4)
    return {
        **{name: round(rate, 3) for name, rate in rates.items()},
        "ratio": round(rates["batches"] / rates["one"], 2),
    }


def first_preview(given: argparse.Namespace) -> dict[str, Any]:
    """Seconds from the request to the first preview, and from cancelling to the next job's first step."""
    previews: list[float] = []
    with server(given.model) as (url, _), httpx.Client(base_url=url, timeout=60) as client:
        for seed in range(given.tries):
            before = time.monotonic()
            id = client.post("/v1/jobs", json={"prompt": PROMPTS[0], "seed": seed}).json()["id"]
            with client.stream("GET", f"/v1/jobs/{id}/events") as events:
                for line in events.iter_lines():
                    if line == "event: preview":
                        previews.append(time.monotonic() - before)
                        break
            client.post(f"/v1/jobs/{id}/cancel")
        freed = [freeing(client) for _ in range(given.tries)]
    return {
        "first_preview_seconds": {"median": round(median(previews), 3), "most": round(max(previews), 3)},
        "cancel_to_next_first_step_seconds": {"median": round(median(freed), 3), "most": round(max(freed), 3)},
    }


def freeing(client: httpx.Client) -> float:
    """Seconds from cancelling a large job to the first step of one that waits."""
    large = client.post("/v1/jobs", json={"prompt": PROMPTS[0], "count": 8, "steps": 250}).json()["id"]
    while client.get(f"/v1/jobs/{large}").json()["progress"] == 0:
        time.sleep(0.01)
    small = client.post("/v1/jobs", json={"prompt": PROMPTS[1], "steps": 2}).json()["id"]
    with client.stream("GET", f"/v1/jobs/{small}/events", params={"previews": False}) as events:
        before = time.monotonic()
        httpx.post(f"{client.base_url}/v1/jobs/{large}/cancel")
        for line in events.iter_lines():
            if line == "event: step":
                break
        return time.monotonic() - before


def main() -> None:
    """Measure and say so."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="shapes")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--checked", type=int, default=64)
    parser.add_argument("--tries", type=int, default=5)
    parser.add_argument("--parts", nargs="+", default=["first_preview", "batching", "load"])
    given = parser.parse_args()
    parts = {"load": load, "batching": batching, "first_preview": first_preview}
    print(json.dumps({name: parts[name](given) for name in given.parts}, indent=2))


if __name__ == "__main__":
    main()
