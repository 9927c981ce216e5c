"""Engines and servers with small models, each over a folder of its own."""

from collections.abc import Generator
from pathlib import Path

import pytest
from serving import KINDS, Served, engine_at, served, wait_for

from darkroom.serve.engine import Engine
from small_models import model_files, small

__all__ = ["model_files", "small"]


@pytest.fixture(scope="session")
def sources(model_files: dict[str, Path]) -> list[str]:
    """Files of small models, one for each kind of steering."""
    return [str(model_files[kind]) for kind in KINDS]


@pytest.fixture(scope="session")
def server(sources: list[str], tmp_path_factory: pytest.TempPathFactory) -> Generator[Served]:
    """One server for all tests that leave it as it was."""
    with served(engine_at(tmp_path_factory.mktemp("served"), sources)) as found:
        wait_for(lambda: found.engine.ready)
        yield found


@pytest.fixture
def engine(model_files: dict[str, Path], tmp_path: Path) -> Generator[Engine]:
    """An engine of its own, not started."""
    found = engine_at(tmp_path / "served", [str(model_files[kind]) for kind in ("plain", "text")])
    yield found
    found.stop(0)
