"""Published weights: found in a cache or fetched into it, and read as tables of tensors alone."""

import hashlib
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from darkroom.core.errors import InputError, ModelFileError
from darkroom.core.fetch import PublishedFile, cache, fetch

_PIECE: Final = 2**20


def cached(published: PublishedFile, *, folder: str) -> Path:
    """Where a downloaded file is kept: in this folder of `$DARKROOM_CACHE`, else of `~/.cache/darkroom`."""
    return cache(folder) / published.url.rpartition("/")[2]


def of_torch_hub(published: PublishedFile) -> Path:
    """Where torch hub keeps a file of that name."""
    return Path(torch.hub.get_dir()) / "checkpoints" / published.url.rpartition("/")[2]


def find(published: PublishedFile, *, folder: str, hub: bool, needs: str, instead: str) -> Path:
    """The file in our cache, else in torch hub's, else fetched into ours.

    needs, instead: what asks for it and what works without, for the one sentence of the `InputError` when it is neither
    there nor to be had.
    """
    path, theirs = cached(published, folder=folder), of_torch_hub(published)
    if path.is_file():
        return path
    if hub and theirs.is_file():
        return theirs
    try:
        return fetch(published, path=path)
    except InputError as error:
        raise InputError(
            f"{needs} needs a file that is not here ({error}); put it at {path} yourself, or use {instead}, which "
            "works without"
        ) from None


def load_table(path: Path) -> dict[str, Tensor]:
    """The tensors in a torch file, on the CPU; nothing else of it is read or executed. `ModelFileError` if damaged."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch stumbles over a damaged file in a dozen ways, of which some are its own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelFileError(f"{path}: damaged, remove it so that it is fetched again ({reason})") from None
    if not isinstance(found, dict):
        raise ModelFileError(f"{path}: no table of tensors; remove it")
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


def is_whole(path: Path, published: PublishedFile) -> bool:
    """Are a file's bytes those that were published?"""
    digest = hashlib.new(published.digest.partition(":")[0], usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return f"{digest.name}:{digest.hexdigest()}".startswith(published.digest)
