"""Random choices that stay the same on every machine and version: all come from `random.Random.random`."""

import random
from collections.abc import Sequence
from typing import TypeVar, final

from darkroom.core.seeds import stream

T = TypeVar("T")


@final
class Dice:
    """The choices of one scene, a function of (seed, index)."""

    def __init__(self, seed: int, index: int) -> None:
        self._random = random.Random(stream(seed, index, purpose="scene")).random

    def between(self, low: float, high: float) -> float:
        """A number in [low, high)."""
        return low + (high - low) * self._random()

    def pick(self, options: Sequence[T]) -> T:
        """One of the options."""
        return options[int(self._random() * len(options))]

    def chance(self, probability: float) -> bool:
        """True as often as said."""
        return self._random() < probability
