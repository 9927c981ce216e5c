"""Learning a WordPiece vocabulary from words, always the same one from the same words.

Pieces are merged as byte-pair encoding does (Sennrich et al. 2016): the most frequent neighbours first, equals in
alphabetical order. (The library's own trainer breaks ties by the order of a hash map, which differs from run to run.)
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final

LEAST: Final = 2  # times that neighbours come, to be merged
Pair = tuple[str, str]


def learn_pieces(words: Mapping[str, int], *, specials: Sequence[str], size: int) -> list[str]:
    """At most `size` pieces: the specials, every letter, then merges of neighbours by their count in `words`.

    words: word -> count. A piece inside a word begins with `##`. Letters that no longer fit, the rarest, are left out.
    """
    spelt = {word: _letters(word) for word in sorted(words)}
    letters: Counter[str] = Counter()
    for word, parts in spelt.items():
        for part in parts:
            letters[part] += words[word]
    ranked = sorted(letters, key=lambda part: (-letters[part], part))
    pieces = [*specials, *ranked[: max(0, size - len(specials))]]
    known, (counts, places) = set(pieces), _pairs(spelt, words)
    queue = [(-count, pair) for pair, count in counts.items()]
    heapq.heapify(queue)
    while len(pieces) < size and (best := _most(queue, counts)) is not None:
        merged, changed = best[0] + best[1].removeprefix("##"), set[Pair]()
        for word in sorted(places.pop(best)):
            changed |= set(pairwise(spelt[word]))
            _forget(spelt[word], word, weight=words[word], counts=counts, places=places)
            spelt[word] = _merge(spelt[word], best, merged=merged)
            _count(spelt[word], word, weight=words[word], counts=counts, places=places)
            changed |= set(pairwise(spelt[word]))
        counts.pop(best, None)
        for pair in changed & counts.keys():
            heapq.heappush(queue, (-counts[pair], pair))
        if merged not in known:
            known.add(merged)
            pieces.append(merged)
    return pieces


def _most(queue: list[tuple[int, Pair]], counts: Mapping[Pair, int]) -> Pair | None:
    """The most frequent neighbours, of equals the first in alphabetical order; None where none come twice.

    Looking through all counts before every merge took 3.4 s of a processor instead of 0.45 for 2000 pieces of 5000
    words. What the queue says of a pair whose count has changed since is passed over: the pair was put in anew.
    """
    while queue:
        count, pair = heapq.heappop(queue)
        if counts.get(pair) == -count:
            return pair if -count >= LEAST else None
    return None


def _letters(word: str) -> list[str]:
    return [letter if place == 0 else f"##{letter}" for place, letter in enumerate(word)]


def _pairs(
    spelt: Mapping[str, list[str]], words: Mapping[str, int]
) -> tuple[Counter[Pair], defaultdict[Pair, set[str]]]:
    """How often two pieces stand side by side, and in which words."""
    counts: Counter[Pair] = Counter()
    places: defaultdict[Pair, set[str]] = defaultdict(set)
    for word, parts in spelt.items():
        _count(parts, word, weight=words[word], counts=counts, places=places)
    return counts, places


def _count(
    parts: list[str], word: str, *, weight: int, counts: Counter[Pair], places: defaultdict[Pair, set[str]]
) -> None:
    for pair in pairwise(parts):
        counts[pair] += weight
        places[pair].add(word)


def _forget(
    parts: list[str], word: str, *, weight: int, counts: Counter[Pair], places: defaultdict[Pair, set[str]]
) -> None:
    for pair in pairwise(parts):
        counts[pair] -= weight
        if counts[pair] <= 0:
            del counts[pair]
        places[pair].discard(word)


def _merge(parts: list[str], pair: Pair, *, merged: str) -> list[str]:
    made: list[str] = []
    place = 0
    while place < len(parts):
        if tuple(parts[place : place + 2]) == pair:
            made.append(merged)
            place += 2
        else:
            made.append(parts[place])
            place += 1
    return made
