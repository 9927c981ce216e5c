"""Words for numbers, and words that stand for none."""

import pytest

from darkroom.core.errors import InputError
from darkroom.core.names import number_of


def test_names_and_numbers() -> None:
    assert [number_of(word, ("a", "b"), count=2, what="class") for word in ("b", "0", 1)] == [1, 0, 1]
    for word, message in (("c", "unknown class 'c'"), (2, "class 2 is out of range; this model has 2, 0..1")):
        with pytest.raises(InputError, match=message):
            number_of(word, ("a", "b"), count=2, what="class")


def test_a_name_beyond_what_the_model_tells_apart() -> None:
    """A file may have more names than its model has categories; the last would be another token altogether."""
    with pytest.raises(InputError, match="category 'c' is out of range; this model has 2"):
        number_of("c", ("a", "b", "c"), count=2, what="category")
