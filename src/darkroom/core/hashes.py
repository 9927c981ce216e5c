"""A short hash that identifies weights."""

import hashlib
from collections.abc import Iterable

from torch import Tensor


def weights_hash(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Twelve hexadecimal digits of the float32 values and their names (sha256), whatever file they came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors, key=lambda pair: pair[0]):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]
