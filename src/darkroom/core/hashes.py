"""Short hashes that identify weights and texts."""

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


def text_hash(text: str) -> str:
    """Thirty-two hexadecimal digits of a text (BLAKE2b), which may name files in any bytes."""
    return hashlib.blake2b(text.encode(errors="backslashreplace"), digest_size=16).hexdigest()
