"""One server and one browser for all tests of the studio."""

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from browsing import Visit, studio

from darkroom.checkpoint.store import load_model, save_model
from darkroom.core.names import Names
from darkroom.core.record import append_line, write_yaml
from small_models import model_files, small

__all__ = ["model_files", "small"]


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training that is under way, as one leaves it."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("run")
    write_yaml(
        folder / "recipe.yaml",
        {"name": "followed", "summary": "a training", "denoiser": {"train": {"steps": 400}}},
    )
    (folder / "denoiser").mkdir()
    for step in range(1, 101):
        values = {"step": step, "loss": 1 / step + 0.05, "learning_rate": 1e-4, "seconds": step * 0.5}
        append_line(folder / "denoiser" / "log.jsonl", values)
    Image.new("RGB", (64, 32), (200, 80, 20)).save(folder / "denoiser" / "samples.png")
    return folder


@pytest.fixture(scope="session")
def address(chromium: Any, run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """A studio with all built-in models."""
    with studio(tmp_path_factory.mktemp("studio"), follow=run_folder) as found:
        yield found


@pytest.fixture(scope="session")
def small_address(
    model_files: dict[str, Path], run_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Generator[str]:
    """A studio with small models of every kind that draw in no time; it needs no browser."""
    kinds = ("both", "plain", "class", "map", "text-map", "low-res", "layout")
    folder = tmp_path_factory.mktemp("small")
    stored = replace(load_model(model_files["class"]), names=Names(classes=("cat", "dog", "owl")))
    models = [str(model_files[kind]) for kind in kinds] + [str(save_model(folder / "animals.safetensors", stored))]
    with studio(folder, models=models, follow=run_folder) as found:
        yield found


@pytest.fixture(scope="session")
def desk(chromium: Any) -> Generator[Any]:
    """A window of the browser, whose pages need not load and translate Gradio's scripts again."""
    context = chromium.new_context(viewport={"width": 1200, "height": 900})
    yield context
    context.close()


@pytest.fixture
def newcomer(desk: Any, small_address: str) -> Generator[Visit]:
    """Somebody who opens the studio with small models for the first time; nothing may go wrong meanwhile."""
    found = Visit(desk.new_page(), small_address).open()
    found.fill(count=1)
    yield found
    found.page.evaluate("() => { localStorage.clear(); sessionStorage.clear(); }")
    found.page.close()
    desk.clear_cookies()
    assert not found.wrong
    assert not found.elsewhere


@pytest.fixture(scope="session")
def opened(desk: Any, small_address: str) -> Generator[Visit]:
    """The same page for all who do not mind what was done on it before: to open one takes two seconds."""
    found = Visit(desk.new_page(), small_address).open()
    found.fill(count=1)
    yield found
    found.page.close()


@pytest.fixture
def regular(opened: Visit) -> Generator[Visit]:
    """Somebody who has drawn there before, and begins with text; nothing may go wrong meanwhile."""
    opened.wrong.clear()
    opened.elsewhere.clear()
    opened.turn("Draw")
    opened.turn("Text")
    opened.page.locator("darkroom-result").evaluate("element => { delete element.dataset.done; }")
    yield opened
    assert not opened.wrong
    assert not opened.elsewhere


@pytest.fixture(scope="session")
def visit(chromium: Any, address: str) -> Generator[Visit]:
    """The studio on a desk's screen; nothing may go wrong on it all the while."""
    context = chromium.new_context(viewport={"width": 1200, "height": 900}, accept_downloads=True)
    found = Visit(context.new_page(), address).open()
    found.fill(count=1)
    yield found
    context.close()


@pytest.fixture(autouse=True)
def nothing_went_wrong(request: pytest.FixtureRequest) -> Generator[None]:
    """After every test of the studio: no error on the console, no request to another host."""
    yield
    if "visit" in request.fixturenames:
        seen: Visit = request.getfixturevalue("visit")
        assert not seen.wrong
        assert not seen.elsewhere
