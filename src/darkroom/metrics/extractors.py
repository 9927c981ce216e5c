"""What turns pictures into features for the measures of sets."""

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from darkroom.core.shapes import Images, PerSample


@runtime_checkable
class Extractor(Protocol):
    """A judging network; `nn.features.judge()` answers the one that comes with the package.

    name, hash: what a figure must be quoted with, for figures of different networks do not compare.
    """

    name: str
    hash: str

    def features(self, images: Images) -> Float[Tensor, "b d"]:
        """One vector a picture; pictures in [-1, 1]."""
        ...

    def distance(self, images: Images, others: Images) -> PerSample:
        """How unlike two pictures look, 0 for equal ones."""
        ...


@runtime_checkable
class PairDistance(Protocol):
    """A distance between pictures alone, such as LPIPS."""

    name: str
    hash: str

    def __call__(self, images: Images, others: Images) -> PerSample:
        """How unlike two pictures look; pictures in [-1, 1]."""
        ...
