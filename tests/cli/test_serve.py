"""`darkroom serve` refuses what does not fit before it listens, and says how to get what is missing."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from darkroom.cli import serve

Refused = Callable[..., str]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--host", "0.0.0.0"], "can be reached from elsewhere: give a --token, or --open if all may come in"),
        (["--host", "::"], "can be reached from elsewhere"),
        (["--token", "short"], "a token has 8 printable ASCII characters or more"),
        (["--no-studio", "--follow", "run"], "--follow does not fit: trainings are followed in the studio"),
        (["--limit", "stepz=3"], "unknown key 'stepz' (did you mean 'steps'?)"),
        (["--limit", "steps=0"], "'steps': input should be greater than 0 (0 came)"),
        (["nowhere"], "nowhere: no such file, run folder or built-in model"),
        (["shapes-f8"], "a first stage alone, which draws nothing"),
        (["shapes", "--models", "nowhere"], "nowhere: no such folder of models"),
        (["shapes", "--memory", "0.011"], "more than --memory allows"),
        (["shapes", "--decoder", "nowhere"], "nowhere: no such file"),
        (["shapes", "--device", "abacus"], "device 'abacus' is unknown"),
        (["shapes", "--precision", "float7"], "precision 'float7' is unknown"),
        (["shapes", "--engine", "steam"], "engine 'steam' is unknown"),
        (["shapes", "--host", "192.0.2.1", "--open"], "cannot listen there"),
    ],
)
def test_what_does_not_fit_is_refused(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, words: list[str], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert sentence in refused("serve", *words)
    assert list(tmp_path.iterdir()) == []


def test_without_its_libraries_it_says_how_to_get_them(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("darkroom.serve")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    assert "pip install 'darkroom[serve]'" in refused("serve")


def test_weights_may_take_half_of_the_memory_that_they_go_to(monkeypatch: pytest.MonkeyPatch) -> None:
    found = SimpleNamespace(total_memory=24 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: found)
    assert serve._memory(torch.device("cuda")) == 24
    assert serve._memory(torch.device("cpu")) != 24
    assert 0.1 < serve._memory(torch.device("cpu")) < 100_000
