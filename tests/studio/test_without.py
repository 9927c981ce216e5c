"""Serving where gradio is not installed."""

import builtins
import sys
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from darkroom.cli import serve
from darkroom.core.errors import InputError


@pytest.fixture
def no_gradio(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if it were not there."""
    importing = builtins.__import__

    def absent(name: str, *others: Any, **more: Any) -> Any:
        if name.partition(".")[0] == "gradio":
            raise ModuleNotFoundError("No module named 'gradio'", name="gradio")
        return importing(name, *others, **more)

    for each in [name for name in sys.modules if name.startswith("darkroom.studio")]:
        monkeypatch.delitem(sys.modules, each)
    monkeypatch.setattr(builtins, "__import__", absent)


@pytest.mark.usefixtures("no_gradio")
def test_it_serves_without_and_says_how_to_get_one(tmp_path: Path) -> None:
    app = FastAPI()
    said = serve._studio(app, None, follow=None)
    assert said == "no studio, for gradio is missing: pip install 'darkroom[studio]'"
    with pytest.raises(InputError, match=r"--follow: no studio.*darkroom\[studio\]"):
        serve._studio(app, None, follow=tmp_path)
