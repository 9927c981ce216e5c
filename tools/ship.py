"""Put the model of a finished run into the package, its denoiser in eight bits a weight, under a name of its own.

    python tools/ship.py runs/shapes-f8-0 shapes-f8 --dtype bfloat16
    python tools/ship.py runs/shapes-text shapes sample.steps=25 sample.guidance=2.5

Measure what was written, not the run: rounding may cost something. Weights are committed once, when they are final.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import darkroom
from darkroom.checkpoint.store import save_model
from darkroom.core.errors import DarkroomError, InputError
from darkroom.core.spec import override, parse
from darkroom.recipes.schema import SampleSpec
from darkroom.tasks.find import read_whole

MODELS = Path(darkroom.__file__).parent / "models"


def finished(model: Path) -> Path:
    """The file itself, or that of a run which has come to its end (one under way has a first stage at most)."""
    if not model.is_dir():
        return model
    if not (model / "model.safetensors").is_file():
        raise InputError(f"{model}: this run is not finished")
    return model / "model.safetensors"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", help="a run folder or a model file")
    parser.add_argument("name", help="what it is called from now on")
    parser.add_argument("--dtype", choices=["bfloat16", "int8"], default="int8", help="of the denoiser's weights")
    parser.add_argument("changes", nargs="*", help="to the card, e.g. how it is sampled by default: KEY=VALUE")
    options = parser.parse_args()
    try:
        stored = read_whole(finished(Path(options.model)))
        if not options.name or Path(options.name).name != options.name:
            raise InputError(f"{options.name!r} is no name: it may hold no folders")
        card = override(stored.card, options.changes) | {"name": options.name}
        if "sample" in card:
            parse(SampleSpec, card["sample"], where=f"how {options.name} is sampled")
        named = replace(stored, card=card)
        path = save_model(MODELS / f"{options.name}.safetensors", named, dtype=options.dtype)
    except DarkroomError as error:
        parser.error(str(error))
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
