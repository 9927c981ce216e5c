"""What turns pictures into features for the measures of sets."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

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


@runtime_checkable
class FeatureNetwork(Protocol):
    """A network that sets of pictures are seen through, with what is done to a picture before.

    name, hash: as of an `Extractor` · preprocessing: resizing, its filter, normalisation, as JSON values.
    """

    name: str
    hash: str
    preprocessing: Mapping[str, Any]

    def look(self, images: Images) -> dict[str, Tensor]:
        """`features` (b, d) float32 on the CPU of pictures in [-1, 1]; `logits` (b, classes) where it names classes."""
        ...
