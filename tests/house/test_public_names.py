"""The public names are the documented ones, they all resolve, and asking for help costs no torch."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import darkroom

QUICK = """
import sys
import darkroom
from darkroom.cli.main import VERBS, main
assert main(["--help"]) == 0
heavy = {"torch", "numpy", *(f"darkroom.cli.{verb}" for verb in VERBS)}
sys.exit(", ".join(sorted(heavy & set(sys.modules))) or 0)
"""


def documented(page: str) -> list[str]:
    """Names in the first column of the table between the two marks."""
    table = page.partition("<!-- public names -->")[2].partition("<!-- end of public names -->")[0]
    return re.findall(r"^\| `darkroom\.(\w+)", table, flags=re.MULTILINE)


def test_the_documented_list_is_the_public_list(root: Path) -> None:
    names = documented((root / "docs" / "architecture.md").read_text(encoding="utf-8"))
    assert sorted(names) == sorted(darkroom.__all__)


@pytest.mark.parametrize("name", darkroom.__all__)
def test_a_public_name_resolves_and_explains_itself(name: str) -> None:
    assert getattr(darkroom, name).__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = darkroom.lode


def test_the_version_is_listed_beside_the_names() -> None:
    assert {*darkroom.__all__, "__version__"} == set(dir(darkroom))


def test_help_imports_neither_torch_nor_a_verb() -> None:
    done = subprocess.run([sys.executable, "-c", QUICK], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"imported on the way to --help: {done.stderr}"
