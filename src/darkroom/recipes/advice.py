"""Why a recipe for a folder is what it is, and what the pictures are too few for, in plain sentences."""

from collections.abc import Mapping
from typing import Any, Final

from darkroom.autoencoder.model import AutoencoderSpec
from darkroom.conditioning.boxes import BoxesSpec
from darkroom.conditioning.label import ClassSpec
from darkroom.conditioning.layout import LayoutSpec
from darkroom.conditioning.spatial import LowResSpec, MapSpec, MaskedSpec
from darkroom.conditioning.text import TextSpec
from darkroom.recipes.schema import FirstStageRecipe, Recipe

FEW: Final = 1000  # pictures: below that a generator mostly learns them by heart
FEW_OF_CLASS: Final = 50
FEW_TO_MEASURE: Final = 50
_WORDS: Final = {TextSpec: "captions", ClassSpec: "classes"}
_PLAINLY: Final = {
    LayoutSpec: "layouts, boxes with their categories",
    BoxesSpec: "layouts, boxes with their categories",
    MapSpec: "semantic maps",
    LowResSpec: "low-resolution pictures, made of the pictures themselves",
    MaskedSpec: "pictures with a hole, made of the pictures themselves",
}
OFTEN: Final = 300  # times that each picture is seen by the denoiser
SHORT: Final = 1500  # steps of a denoiser
WHITE: Final = 256  # classes of maps in which white stands for one


def reasons(recipe: Recipe, found: Mapping[str, Any]) -> list[str]:
    """Why this task, size and first stage; `found` is what `darkroom.data.summary` says of the training pictures."""
    part, size = recipe.denoiser, recipe.data.size
    sentences = [_task(recipe, found)] if part is not None else []
    least = min(found[side]["min"] for side in ("width", "height"))
    enlarged = "; smaller ones are enlarged, which blurs them" if least < size else ""
    sentences.append(f"{size} px a side; the pictures have {_extent(found)}{enlarged}")
    model = recipe.first_stage.model
    if isinstance(model, AutoencoderSpec):
        side, before = size // model.factor, size * size * model.image_channels
        after = side * side * model.latent_channels
        sentences.append(
            f"a first stage of f = {model.factor} makes {side} x {side} x {model.latent_channels} numbers of each, "
            f"{before / after:.0f} times fewer" + _known(recipe.first_stage)
        )
    return sentences


def _known(part: FirstStageRecipe) -> str:
    """What of a first stage is there before the run, for the end of a sentence."""
    if part.train is None:
        return "; it is there already"
    return "" if part.begin is None else f"; it begins as {part.begin} and gets used to these pictures"


def doubts(recipe: Recipe, found: Mapping[str, Any], *, test: int) -> list[str]:
    """What there is too little of, and what follows from that; `test` is the number of test pictures."""
    count, part = int(found["count"]), recipe.denoiser
    sentences: list[str] = []
    if part is not None and part.train is not None:
        if count < FEW:
            more = "" if recipe.start is not None else "; fine-tuning a model that exists (--from) needs fewer"
            sentences.append(f"{count} pictures are few: expect variations of them rather than new things{more}")
        seen = part.train.steps * part.train.batch / count
        if seen > OFTEN and part.distill is None:  # a teacher's answers, and not pictures, are what is learnt
            sentences.append(f"every picture is seen {seen:.0f} times, enough to be learnt by heart")
        sentences += [sentence for sentence in [few(recipe)] if sentence]
        sentences += _small_classes(recipe, found)
        if any(isinstance(each, MapSpec) and each.classes == WHITE for each in part.conditioners):
            sentences.append(
                "maps have the id 255, so there are 256 classes; where it is but white, or belongs to no class, write "
                "maps whose ids count from 0, e.g. 0 and 1"
            )
    bare = count - int(found.get("captioned", count))
    if bare and part is not None and any(isinstance(each, TextSpec) for each in part.conditioners):
        sentences.append(f"{bare} of {count} pictures have no caption")
    if test < FEW_TO_MEASURE:
        sentences.append(f"figures measured on {test} test pictures say little")
    return sentences


def few(recipe: Recipe) -> str:
    """A sentence when the denoiser makes too few steps to draw well; empty else."""
    part = recipe.denoiser
    tuned = recipe.start is not None and not recipe.start.taught
    if part is None or part.train is None or part.train.steps >= SHORT or tuned:
        return ""
    return f"{part.train.steps} steps are few for a denoiser: expect blurred pictures, and train longer for better ones"


def _task(recipe: Recipe, found: Mapping[str, Any]) -> str:
    assert recipe.denoiser is not None
    kinds, begun = [type(each) for each in recipe.denoiser.conditioners], _begun(recipe)
    if len(kinds) > 1 or (kinds and kinds[0] in _PLAINLY):
        named = " and ".join(_PLAINLY.get(kind, _WORDS.get(kind, kind.__name__)) for kind in kinds)
        return f"{begun}a model steered by {named}"
    if TextSpec in kinds:
        words = "captions stand beside the pictures" if "caption" in found["fields"] else "class names are its prompts"
        return f"{begun}a model steered by text, for {words}"
    if ClassSpec in kinds:
        same = "" if found.get("captions_of_a_class") != 1 else ", and their captions say no more than that"
        return f"{begun}a model steered by class, for the pictures have {len(found.get('classes', {}))} classes{same}"
    if found.get("captions") == 1 and 2 * found.get("captioned", found["count"]) > found["count"]:
        return f"{begun}an unconditional model, for all captions are the same"
    if captioned := found.get("captioned", 0):
        return f"{begun}an unconditional model, for only {captioned} of {found['count']} pictures have a caption"
    return f"{begun}an unconditional model, for the pictures stand alone, without captions or classes"


def _begun(recipe: Recipe) -> str:
    """What it begins with, for a sentence to go on from."""
    if recipe.start is None:
        return ""
    distill = None if recipe.denoiser is None else recipe.denoiser.distill
    if distill is None:
        return f"on from {recipe.start.name}; "
    known = "" if distill.guidance == 1 else f", with its guidance of {distill.guidance:g} learnt by heart"
    return f"{recipe.start.name} in few steps{known}; "


def _extent(found: Mapping[str, Any]) -> str:
    sides = sorted(found[side]["median"] for side in ("width", "height"))
    return f"about {sides[0]} x {sides[1]} pixels" if sides[0] != sides[1] else f"about {sides[0]} pixels a side"


def _small_classes(recipe: Recipe, found: Mapping[str, Any]) -> list[str]:
    assert recipe.denoiser is not None
    if not any(isinstance(each, ClassSpec) for each in recipe.denoiser.conditioners):
        return []
    counts: Mapping[str, int] = found.get("classes", {})
    small = sorted((count, name) for name, count in counts.items() if count < FEW_OF_CLASS)
    if not small:
        return []
    named = ", ".join(f"{name} ({count})" for count, name in small[:3]) + (", ..." if len(small) > 3 else "")
    return [f"{len(small)} of {len(counts)} classes have fewer than {FEW_OF_CLASS} pictures: {named}"]
