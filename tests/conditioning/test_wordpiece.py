"""The vocabulary: the same from the same words, and what byte-pair encoding says."""

from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from darkroom.conditioning.wordpiece import learn_pieces

WORDS = st.dictionaries(st.text("abcde", min_size=1, max_size=6), st.integers(1, 9), min_size=1, max_size=12)


def plainly(words: dict[str, int], size: int) -> list[str]:
    """The same, counting everything anew before every merge."""
    spelt = {word: [c if i == 0 else "##" + c for i, c in enumerate(word)] for word in words}
    letters = Counter({p: 0 for parts in spelt.values() for p in parts})
    for word, parts in spelt.items():
        for part in parts:
            letters[part] += words[word]
    pieces = sorted(letters, key=lambda p: (-letters[p], p))[:size]
    while len(pieces) < size:
        counts: Counter[tuple[str, str]] = Counter()
        for word, parts in spelt.items():
            for pair in pairwise(parts):
                counts[pair] += words[word]
        best = min(counts, key=lambda p: (-counts[p], p), default=None)
        if best is None or counts[best] < 2:
            break
        merged = best[0] + best[1].removeprefix("##")
        for word, parts in spelt.items():
            joined: list[str] = []
            for part in parts:
                if joined and (joined[-1], part) == best:
                    joined[-1] = merged
                else:
                    joined.append(part)
            spelt[word] = joined
        if merged not in pieces:
            pieces.append(merged)
    return pieces


@given(WORDS, st.integers(3, 40))
def test_it_merges_as_the_plain_algorithm_does(words: dict[str, int], size: int) -> None:
    assert learn_pieces(words, specials=(), size=size) == plainly(words, size)


def test_the_order_of_the_words_does_not_matter() -> None:
    words = {"red": 4, "reed": 4, "bread": 4, "blue": 4, "glue": 4}
    backwards = dict(reversed(words.items()))
    assert learn_pieces(words, specials=("[PAD]",), size=30) == learn_pieces(backwards, specials=("[PAD]",), size=30)


def test_whole_words_come_out_of_enough_merges() -> None:
    pieces = learn_pieces({"circle": 5, "star": 3}, specials=("[UNK]",), size=100)
    assert pieces[0] == "[UNK]"
    assert {"circle", "star"} <= set(pieces)
    assert len(set(pieces)) == len(pieces)
