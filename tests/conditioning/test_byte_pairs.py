"""CLIP's tokenizer beside that of transformers."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from darkroom.conditioning.byte_pairs import pieces_of, read_pieces
from darkroom.conditioning.text import Tokenizer
from stable import MERGES, ids, pieces, words, write_words

TEXTS = st.text(st.characters(codec="utf-8") | st.sampled_from("catherd'slm  .,!?<|>12\n"), max_size=120)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("words")


def test_both_kinds_of_files_say_the_same(place: Path) -> None:
    words(place).save_pretrained(place / "whole")
    assert pieces_of(place / "whole" / "tokenizer.json") == (pieces(), list(MERGES))
    assert read_pieces(place / "vocab.json", place / "merges.txt") == (pieces(), list(MERGES))


def test_ids_of_any_text(place: Path) -> None:
    theirs = words(place)
    ours = Tokenizer.from_pieces(*read_pieces(place / "vocab.json", place / "merges.txt"), length=77)
    stored = Tokenizer.from_json(ours.to_json(), length=77)

    @settings(max_examples=60)
    @given(st.lists(TEXTS, min_size=1, max_size=8))
    def same(texts: list[str]) -> None:
        wanted = ids(theirs, texts)
        assert torch.equal(ours(texts), wanted)
        assert torch.equal(stored(texts), wanted)

    same()
    marks = ["", "<|endoftext|> the CAT <|startoftext|>", "cat " * 90, "  we'll I'VE don't", "e\u0301 \u00c9"]
    assert torch.equal(ours(marks), ids(theirs, marks))


def test_words_that_are_spelt(place: Path) -> None:
    write_words(place)
    ours = Tokenizer.from_pieces(pieces(), MERGES, length=77)
    assert ours.spelt("The red cat, a café") == ["café"]
    assert ours.cuts("cat " * 76)
    assert not ours.cuts("cat " * 75)
