"""From a name or a path to something that runs."""

from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from darkroom.autoencoder.model import Autoencoder
from darkroom.autoencoder.preview import Preview
from darkroom.checkpoint.archive import check_torch_file
from darkroom.checkpoint.clip_text import find_clip_tokenizer
from darkroom.checkpoint.compvis import load_original
from darkroom.checkpoint.diffusers import INDEX, is_folder, load_first_stage, load_folder, load_unet
from darkroom.checkpoint.diffusers_text import read_words
from darkroom.checkpoint.previews import find_preview
from darkroom.checkpoint.store import (
    StoredHeader,
    StoredModel,
    build,
    is_ours,
    load_model,
    read_header,
    spec_hash,
)
from darkroom.conditioning.text import TextSpec, Tokenizer
from darkroom.core.compute import Compute, sampling_compute
from darkroom.core.conditions import Conditions
from darkroom.core.errors import ModelFileError, did_you_mean
from darkroom.core.hollow import hollow
from darkroom.core.shapes import Latent, Time
from darkroom.diffusion.engine import PLAIN, Engine, build_engine
from darkroom.diffusion.model import LatentDiffusion, ModelSpec
from darkroom.network.unet import UNet
from darkroom.nn.packed import pack
from darkroom.process.schedule import build_schedule
from darkroom.tasks.model import Model

DEFAULT = "shapes"


def load(
    source: str | Path = DEFAULT,
    *,
    config: str | Path | None = None,
    device: str = "auto",
    dtype: str = "auto",
    engine: str = "auto",
) -> Model:
    """A model from a built-in name, a file of ours, an original checkpoint with its YAML, a run or diffusers folder.

    config: the YAML of an original checkpoint (default: the only YAML beside it) · dtype: of convolutions and
    products, `auto` is float32 · engine: what runs network and decoder, `eager` (`auto`), `compiled` (needs a C++
    compiler, and a minute or more) or `openvino` (an extra, for processors). `ModelFileError` or `InputError` in one
    sentence.
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
    """The model without its weights: enough to settle requests to it, and next to no memory. Errors as for `load`.

    A file of ours is not read beyond its header.
    """
    path = find(source)
    ours = not path.is_dir() and not foreign(path, config=config)
    stored = read_header(path) if ours else read(path, config=config)
    spec = _whole(stored, path, source=source)
    with hollow():
        diffusion = LatentDiffusion(spec)
    diffusion.schedule = build_schedule(spec.schedule)  # a table of numbers, which times are checked with
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
        name=_called(path),
        card={**stored.card, "spec_hash": spec_hash(stored)},
        names=stored.names,
        tokenizer=_tokenizer(stored, beside=path.parent),
        odd=stored.odd if isinstance(stored, StoredModel) else (),
    )


def load_autoencoder(
    source: str | Path,
    *,
    config: str | Path | None = None,
    device: str = "auto",
    dtype: str = "auto",
) -> Autoencoder:
    """A first stage alone, or the one inside a whole model; weights in `dtype` (auto: float32)."""
    module = build(read_stage(find(source), config=config))
    first_stage = module.first_stage if isinstance(module, LatentDiffusion) else module
    if not isinstance(first_stage, Autoencoder):
        raise ModelFileError(f"{source}: this model works on pixels, it has no first stage")
    return pack(_placed(first_stage, device=device, dtype=dtype))


def load_decoder(source: str | Path, *, device: str = "auto") -> Autoencoder | Preview:
    """What makes pictures of latents: a first stage, or a tiny decoder of others (TAESD's, diffusers' AutoencoderTiny).

    Weights in float32. `ModelFileError` as for `load_autoencoder`.
    """
    path = find(source)
    ours = path.suffix == ".safetensors" and is_ours(path)
    found = None if ours else find_preview(path)
    if found is None:
        return load_autoencoder(source, device=device)
    return sampling_compute(device, "auto").host(pack(found.built())).eval()


def load_network(
    source: str | Path,
    *,
    config: str | Path | None = None,
    device: str = "auto",
    dtype: str = "auto",
    engine: str = "auto",
) -> UNet:
    """The U-Net of a model alone, called as (x_t, t, conditions); weights in `dtype` (auto: float32).

    Also of diffusers folders that hold nothing else, or more than is read yet. x_t, and with it the answer, is of the
    type of the weights. engine: see `load`; calls that ask for gradients go by the module itself.
    """
    running = build_engine(engine, compute=sampling_compute(device, dtype))
    path = find(source)
    if path.is_dir():
        _check_no_config(path, config)
        return _run_by(running, _placed(load_unet(path), device=device, dtype=dtype))
    module = build(read(path, config=config))
    if not isinstance(module, LatentDiffusion):
        raise ModelFileError(f"{source}: a first stage alone, it has no U-Net")
    return _run_by(running, _placed(module.network, device=device, dtype=dtype))


def _run_by(engine: Engine, module: UNet) -> UNet:
    """The module, whose calls without gradients go through the engine's form of it."""
    itself, form = module.forward, engine.network(module)
    if form is not module:

        def forward(x: Latent, t: Time, conditions: Conditions | None = None) -> Latent:
            x = x.to(module.stem.weight.dtype)  # as packed layers take it
            asked = torch.is_grad_enabled() and (x.requires_grad or module.stem.weight.requires_grad)
            return (itself if asked else form)(x, t, conditions or Conditions())

        module.forward = forward
    return module


def built_in() -> dict[str, Path]:
    """Names and files of the models that come with the package."""
    folder = Path(str(files("darkroom"))) / "models"
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def find(source: str | Path) -> Path:
    """What is meant by a built-in name, a path or a run folder; `ModelFileError` when there is no such thing.

    A file, or the folder itself where diffusers made it.
    """
    path = Path(source)
    known = built_in()
    if str(source) in known:
        return known[str(source)]
    if path.is_dir():
        return _inside(path)
    if not path.exists():
        raise ModelFileError(f"{source}: no such file, run folder or built-in model{did_you_mean(str(source), known)}")
    return path


def name_of(source: str | Path) -> str:
    """What a file is called: its own name; for the `model.safetensors` of a run, that of the run."""
    return _called(find(source))


def _called(path: Path) -> str:
    if path.is_dir():
        return path.resolve().name
    if path.name != "model.safetensors":
        return path.stem
    folder = path.resolve().parent
    return folder.parent.name if folder.name == "first_stage" else folder.name


def read(path: Path, *, config: str | Path | None = None, ema: bool = True) -> StoredModel:
    """What a file holds, one of ours or an original checkpoint with its YAML; or a diffusers folder.

    ema: of an original checkpoint the averages are taken, where there are any.
    """
    if path.is_dir():
        _check_no_config(path, config)
        return load_folder(path)
    return load_original(path, _config(path, config), ema=ema) if foreign(path, config=config) else load_model(path)


def read_stage(path: Path, *, config: str | Path | None = None) -> StoredModel:
    """What `read` answers, but of a diffusers folder its first stage alone."""
    if path.is_dir():
        _check_no_config(path, config)
        return load_first_stage(path)
    return read(path, config=config)


def read_whole(source: str | Path, *, config: str | Path | None = None, ema: bool = True) -> StoredModel:
    """What `load` would make a model of, as it is stored; a tokenizer that lies beside the file is put into it."""
    path = find(source)
    stored = read(path, config=config, ema=ema)
    if stored.tokenizer is None and isinstance(stored.spec, ModelSpec):
        found = _tokenizer(stored, beside=path.parent)
        return stored if found is None else replace(stored, tokenizer=found.to_json())
    return stored


def foreign(path: Path, *, config: str | Path | None = None) -> bool:
    """Is this file to be read as an original checkpoint? It has its YAML, or is no `.safetensors`."""
    if config is not None or path.suffix != ".safetensors":
        return True
    return not is_ours(path) and bool(yaml_beside(path))


def _inside(folder: Path) -> Path:
    for name in ("model.safetensors", "first_stage/model.safetensors"):
        if (folder / name).exists():
            return folder / name
    if is_folder(folder):
        return folder
    if (folder / "unet").is_dir():
        raise ModelFileError(f"{folder}: {INDEX} is missing, which says what the parts of a diffusers folder make")
    if (folder / "recipe.yaml").exists():
        raise ModelFileError(f"{folder}: this run has not finished its first stage yet; run darkroom train again")
    raise ModelFileError(f"{folder}: no model in this folder (model.safetensors is missing)")


def _check_no_config(folder: Path, config: str | Path | None) -> None:
    if config is not None:
        raise ModelFileError(f"{folder}: a diffusers folder says itself what it is; leave the YAML away")


def find_config(path: Path, *, config: str | Path | None = None) -> Path | None:
    """The YAML of an original checkpoint: the one given, or of its name, or the only one beside it; else None.

    `ModelFileError` when the one given is not there.
    """
    if config is not None:
        if not Path(config).is_file():
            raise ModelFileError(f"{config}: no such config file")
        return Path(config)
    beside = yaml_beside(path)
    same = [each for each in beside if each.stem == path.stem]
    return (same or beside)[0] if len(same or beside) == 1 else None


def _config(path: Path, config: str | Path | None) -> Path:
    found = find_config(path, config=config)
    if found is None:
        if path.suffix != ".safetensors":
            check_torch_file(path)
        raise ModelFileError(f"{path}: {needs_yaml(path)}")
    return found


def needs_yaml(path: Path) -> str:
    """What an original checkpoint lacks, and which YAML files beside it leave the choice open."""
    several = ", ".join(each.name for each in yaml_beside(path)[:5])
    choice = f" (beside it lie {several})" if several else ""
    return f"an original checkpoint needs its YAML, which says what it is; give it with --config FILE{choice}"


def yaml_beside(path: Path) -> list[Path]:
    """YAML files beside a checkpoint, but for those named after another one."""
    others = {each.stem for ending in ("ckpt", "safetensors") for each in path.parent.glob(f"*.{ending}")} - {path.stem}
    found = sorted([*path.parent.glob("*.yaml"), *path.parent.glob("*.yml")])
    return [each for each in found if each.is_file() and each.stem not in others]


def _tokenizer(stored: StoredModel | StoredHeader, *, beside: Path) -> Tokenizer | None:
    assert isinstance(stored.spec, ModelSpec)
    spec = next((spec for spec in stored.spec.conditioners if isinstance(spec, TextSpec)), None)
    if spec is None:
        return None
    if stored.tokenizer is not None:
        return Tokenizer.from_json(stored.tokenizer, length=spec.encoder.length)
    if spec.encoder.family == "clip":
        return find_clip_tokenizer(beside, encoder=spec.encoder)
    vocabulary = beside / "vocab.txt"
    return read_words(vocabulary, encoder=spec.encoder) if vocabulary.is_file() else None


def _placed(module: Any, *, device: str, dtype: str) -> Any:
    compute = sampling_compute(device, dtype)
    return compute.host(module).to(compute.dtype).eval()
