"""From a name or a path to a model that draws, or to its outline without weights."""

from pathlib import Path

import torch

from darkroom.checkpoint.store import StoredHeader, StoredModel, build, read_header, spec_hash
from darkroom.core.compute import Compute, sampling_compute
from darkroom.core.errors import ModelFileError
from darkroom.core.hollow import hollow
from darkroom.diffusion.engine import PLAIN, Engine, build_engine
from darkroom.diffusion.model import LatentDiffusion, ModelSpec
from darkroom.process.schedule import build_schedule
from darkroom.tasks.find import DEFAULT, called, find, foreign, read, tokenizer_of
from darkroom.tasks.model import Model


def load(
    source: str | Path = DEFAULT,
    *,
    config: str | Path | None = None,
    device: str = "auto",
    dtype: str = "auto",
    engine: str = "auto",
) -> Model:
    """A model from a built-in name, a file of ours, an original checkpoint with its YAML, a run or diffusers folder.

    config: the YAML of an original checkpoint (None: the only one beside it) · dtype: of convolutions and products,
    `auto` is float32 · engine: what runs network and decoder: `eager` (`auto`), `compiled` (needs a C++ compiler, and a
    minute or more) or `openvino` (an extra, for processors). `ModelFileError` or `InputError` in one sentence.
    """
    compute = sampling_compute(device, dtype)
    running = build_engine(engine, compute=compute)
    path = find(source)
    stored = read(path, config=config)
    _whole(stored, path, source=source)
    diffusion = build(stored)
    assert isinstance(diffusion, LatentDiffusion)
    return _model(diffusion, stored, path=path, compute=compute, engine=running)


def outline(source: str | Path, *, config: str | Path | None = None) -> Model:
    """The model without its weights, which requests can be settled on with next to no memory.

    Of our file only the header is read. Errors as for `load`.
    """
    path = find(source)
    ours = not path.is_dir() and not foreign(path, config=config)
    stored = read_header(path) if ours else read(path, config=config)
    spec = _whole(stored, path, source=source)
    with hollow():
        diffusion = LatentDiffusion(spec)
    diffusion.schedule = build_schedule(spec.schedule)  # requests ask it for its times, so its table must hold numbers
    return _model(diffusion, stored, path=path, compute=Compute(torch.device("meta")))


def _whole(stored: StoredModel | StoredHeader, path: Path, *, source: str | Path) -> ModelSpec:
    """The spec of a model that draws; `ModelFileError` for a first stage alone."""
    if isinstance(stored.spec, ModelSpec):
        return stored.spec
    if (path.resolve().parent.parent / "recipe.yaml").exists():
        raise ModelFileError(f"{source}: this run has only its first stage yet; run darkroom train again to go on")
    raise ModelFileError(
        f"{path}: a first stage alone, which draws nothing; `darkroom reconstruct` takes it and "
        "`darkroom evaluate --first-stage`, in Python darkroom.load_autoencoder"
    )


def _model(
    diffusion: LatentDiffusion,
    stored: StoredModel | StoredHeader,
    *,
    path: Path,
    compute: Compute,
    engine: Engine = PLAIN,
) -> Model:
    return Model(
        diffusion,
        compute=compute,
        engine=engine,
        name=called(path),
        card={**stored.card, "spec_hash": spec_hash(stored)},
        names=stored.names,
        tokenizer=tokenizer_of(stored, beside=path.parent),
        odd=stored.odd if isinstance(stored, StoredModel) else (),
    )
