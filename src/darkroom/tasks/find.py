"""From a name or a path to what is stored there: our file, an original checkpoint, a run or diffusers folder."""

from dataclasses import replace
from importlib.resources import files
from pathlib import Path

from darkroom.checkpoint.archive import check_torch_file
from darkroom.checkpoint.clip_text import find_clip_tokenizer
from darkroom.checkpoint.compvis import load_original
from darkroom.checkpoint.diffusers import INDEX, is_folder, load_first_stage, load_folder
from darkroom.checkpoint.diffusers_text import read_words
from darkroom.checkpoint.header import holds_safetensors
from darkroom.checkpoint.store import StoredHeader, StoredModel, is_ours, load_model
from darkroom.conditioning.text import TextSpec, Tokenizer
from darkroom.core.errors import DataError, ModelFileError, did_you_mean
from darkroom.diffusion.model import ModelSpec

CHECKPOINTS = (".ckpt", ".safetensors", ".pt", ".pth", ".bin")  # how files of weights end, in small letters
DEFAULT = "shapes"  # the built-in model that draws where none is named


def built_in() -> dict[str, Path]:
    """Names and files of the models that come with the package."""
    folder = Path(str(files("darkroom"))) / "models"
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"), key=lambda path: path.stem)}


def find(source: str | Path) -> Path:
    """The file that a built-in name, a path or a run folder stands for; of a diffusers folder the folder itself.

    `ModelFileError` when there is no such thing.
    """
    path = Path(source)
    known = built_in()
    if str(source) in known:
        return known[str(source)]
    try:
        folder, there = path.is_dir(), path.exists()
    except OSError as error:  # a name that is too long, or a folder that may not be looked into
        raise ModelFileError(f"{str(source)[:100]}: cannot be read ({error.strerror or error})") from None
    if folder:
        return _inside(path)
    if not there:
        raise ModelFileError(f"{source}: no such file, run folder or built-in model{did_you_mean(str(source), known)}")
    return path


def _inside(folder: Path) -> Path:
    if (folder / INDEX).is_file():  # whatever else lies there, as the same weights for other programs
        return folder
    for name in ("model.safetensors", "first_stage/model.safetensors"):
        if (folder / name).exists():
            return folder / name
    if is_folder(folder):
        return folder
    if (folder / "unet").is_dir():
        raise ModelFileError(f"{folder}: {INDEX} is missing, which says what the parts of a diffusers folder make")
    if (folder / "recipe.yaml").exists():
        raise ModelFileError(f"{folder}: this run has not finished its first stage yet; run darkroom train again")
    raise ModelFileError(f"{folder}: no model in this folder (model.safetensors is missing){instead_of(folder)}")


def instead_of(folder: Path) -> str:
    """What to name where a folder is no model and holds files of weights; empty where it holds none."""
    found = sorted(each.name for each in folder.iterdir() if each.suffix.lower() in CHECKPOINTS)
    return f"; name one of its files itself: {', '.join(found[:5])}" if found else ""


def name_of(source: str | Path) -> str:
    """What a model is called: by its file; the `model.safetensors` of a run by the run's folder."""
    return called(find(source))


def called(path: Path) -> str:
    """`name_of` what `find` answered."""
    if path.is_dir():
        return path.resolve().name
    if path.name != "model.safetensors":
        return path.stem
    folder = path.resolve().parent
    return folder.parent.name if folder.name == "first_stage" else folder.name


def read(path: Path, *, config: str | Path | None = None, ema: bool = True) -> StoredModel:
    """What is stored at a path that `find` answered: in our file, an original checkpoint or a diffusers folder.

    config: the original checkpoint's YAML (None: the one beside it) · ema: take its averaged weights, where it has any.
    """
    if path.is_dir():
        check_no_config(path, config)
        return load_folder(path)
    return load_original(path, _config(path, config), ema=ema) if foreign(path, config=config) else load_model(path)


def read_stage(path: Path, *, config: str | Path | None = None) -> StoredModel:
    """As `read`; of a diffusers folder the first stage alone."""
    if path.is_dir():
        check_no_config(path, config)
        return load_first_stage(path)
    return read(path, config=config)


def read_whole(source: str | Path, *, config: str | Path | None = None, ema: bool = True) -> StoredModel:
    """What `load` makes a model of, as it is stored, with the tokenizer that lies beside the file put into it."""
    path = find(source)
    stored = read(path, config=config, ema=ema)
    if stored.tokenizer is None and isinstance(stored.spec, ModelSpec):
        found = tokenizer_of(stored, beside=path.parent)
        return stored if found is None else replace(stored, tokenizer=found.to_json())
    return stored


def tokenizer_of(stored: StoredModel | StoredHeader, *, beside: Path) -> Tokenizer | None:
    """The tokenizer that was stored with a model, or lies in a folder beside it; None where there is none."""
    assert isinstance(stored.spec, ModelSpec)
    spec = next((spec for spec in stored.spec.conditioners if isinstance(spec, TextSpec)), None)
    if spec is None:
        return None
    if stored.tokenizer is not None:
        try:
            return Tokenizer.from_json(stored.tokenizer, length=spec.encoder.length)
        except DataError as error:
            raise ModelFileError(f"the tokenizer that was stored with the model: {error}") from None
    if spec.encoder.family == "clip":
        return find_clip_tokenizer(beside, encoder=spec.encoder)
    vocabulary = beside / "vocab.txt"
    return read_words(vocabulary, encoder=spec.encoder) if vocabulary.is_file() else None


def foreign(path: Path, *, config: str | Path | None = None) -> bool:
    """Is this file to be read as an original checkpoint? It has its YAML, or is no file of tensors as ours are."""
    if config is not None or not holds_safetensors(path):
        return True
    return not is_ours(path) and bool(yaml_beside(path))


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
        if not holds_safetensors(path):
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


def check_no_config(folder: Path, config: str | Path | None) -> None:
    """`ModelFileError` for a YAML given with a diffusers folder."""
    if config is not None:
        raise ModelFileError(f"{folder}: a diffusers folder says itself what it is; leave the YAML away")
