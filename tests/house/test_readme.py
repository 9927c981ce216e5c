"""What README.md and docs show is run, in order, in one folder for each page; training and drawing take few steps.

```bash       every line that starts with `darkroom` is run; `make NAME` must name a target of the Makefile
```python     the block is run
```console    shown only: what a command prints
```bash no-run, or python no-run, with a reason: shown only
"""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from warm import begun, darkroom, python

STEPS = [f"{stage}.train.{each}" for stage in ("first_stage", "denoiser") for each in ("steps=12", "warmup=2")]
SHORT = " ".join(["data.count=200", *STEPS])
FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@dataclass(frozen=True)
class Snippet:
    """A fenced block: its language, what else the fence says, and its text."""

    language: str
    note: str
    text: str


def snippets(page: str) -> list[Snippet]:
    """Every fenced block of a page, in order."""
    return [Snippet(language, note.strip(), text) for language, note, text in FENCE.findall(page)]


def lines(text: str) -> list[str]:
    """Logical lines: a backslash at the end goes on in the next."""
    return [line.strip() for line in text.replace("\\\n", " ").splitlines() if line.strip()]


def shortened(line: str) -> str:
    """Few steps of training, on few pictures, and of drawing; how long the shown ones take says docs/results.md."""
    line = re.sub(r"^(darkroom train \S+)", rf"\1 {SHORT}", line)
    return re.sub(r"^darkroom sample(?!.*--(steps|like))", "darkroom sample --steps 4", line)


def commands(page: str) -> list[list[str]]:
    """What a page asks to be run, as argument lists, in order."""
    found: list[list[str]] = []
    for snippet in snippets(page):
        if snippet.note.startswith("no-run"):
            continue
        if snippet.language == "bash":
            found += [
                ["bash", "-euc", shortened(line)] for line in lines(snippet.text) if re.match(r"darkroom\b", line)
            ]
        elif snippet.language == "python":
            found.append([sys.executable, "-c", snippet.text])
    return found


def run(command: list[str], *, folder: Path) -> None:
    """Run one command as a reader does, with this environment's `darkroom` first on the path."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command[-1]}\nanswered {done.returncode}:\n{done.stdout}{done.stderr}"


def carry_out(command: Sequence[str], *, folder: Path) -> None:
    """The same in a process that has torch already, and the package not yet: there are many, and each imports it anew.

    The words of a line are those that the shell makes of it.
    """
    program, _, text = command
    work, given = (python, text) if program == sys.executable else (darkroom, words_of(text, folder=folder))
    with begun(work, given, folder=folder / ".said", place=folder) as process:
        code = process.ended(seconds=300)
        assert code == 0, f"{text}\nanswered {code}:\n{process.out}{process.complaints}"


def words_of(line: str, *, folder: Path) -> list[str]:
    """What the shell gives to `darkroom`, which is all that a line may call."""
    told = ["bash", "-euc", f"darkroom() {{ printf '%s\\0' \"$@\"; }}; {line}"]
    done = subprocess.run(told, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.split("\0")[:-1]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_shows_runs(page: Path, tmp_path: Path) -> None:
    for command in commands(page.read_text(encoding="utf-8")):
        carry_out(command, folder=tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_is_not_run_says_why(page: Path) -> None:
    for snippet in snippets(page.read_text(encoding="utf-8")):
        assert snippet.note != "no-run", f"give a reason after no-run: {snippet.text[:60]}"


def test_targets_that_pages_name_exist(root: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (root / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    shown = [s for page in PAGES for s in snippets(page.read_text(encoding="utf-8")) if s.language == "bash"]
    named = {line.split()[1] for s in shown for line in lines(s.text) if line.startswith("make ")}
    assert {"demo", "check"} <= named <= targets


def test_the_reader_of_pages(tmp_path: Path) -> None:
    page = (
        "```bash\nmake demo\ndarkroom --version\ndarkroom recipes \\\n  --json   # all\n```\n"
        "```python no-run: needs a model\nboom()\n```\n```console\ndarkroom sampel\n```\n"
        "```python\nopen('seen', 'w').close()\n```\n"
    )
    found = commands(page)
    assert [command[-1] for command in found] == [
        "darkroom --version",
        "darkroom recipes    --json   # all",
        "open('seen', 'w').close()\n",
    ]
    for way in (run, carry_out):
        way(found[0], folder=tmp_path)
        way(found[2], folder=tmp_path)
        (tmp_path / "seen").unlink()
        with pytest.raises(AssertionError, match="answered 2"):
            way(["bash", "-euc", "darkroom sampel"], folder=tmp_path)
    assert words_of("darkroom sample 'a red star' --count 2   # two", folder=tmp_path) == [
        "sample",
        "a red star",
        "--count",
        "2",
    ]
