"""Pictures drawn during training, with the fields of held-out examples."""

from PIL import Image

from darkroom.data.examples import Source
from darkroom.data.inputs import captions, label_of
from darkroom.data.transforms import TransformSpec
from darkroom.recipes.schema import SampleSpec
from darkroom.tasks.generate import generate
from darkroom.tasks.held_out import Spoiling, asked_of
from darkroom.tasks.model import Model
from darkroom.tasks.request import Request


def preview(
    model: Model, sample: SampleSpec, *, source: Source, transform: TransformSpec, spoiling: Spoiling
) -> list[Image.Image]:
    """`sample.count` pictures with the recipe's prompts, else with the fields of test examples in turn."""
    prompts = labels = None
    count = sample.count
    if "caption" in model.fields:
        texts = sample.prompts or captions(source, most=count)
        prompts = [texts[place % len(texts)] for place in range(count)]
    if "label" in model.fields:
        labels = [source.classes[place % len(source.classes)] for place in range(count)]
    rows = [place % len(source) for place in range(count)]
    asked = asked_of(model, source, rows=rows, transform=transform, spoiling=spoiling)
    if labels is not None and asked:  # the label of the very picture whose map or boxes are asked for
        labels = [source.classes[label_of(source, row)] for row in rows]
    if "caption" in model.fields and asked:
        prompts = [captions(source)[row] for row in rows]
    others = {
        **asked,
        "count": count if prompts is None and labels is None and not asked else 1,
        "seed": 0,
        "solver": sample.solver,
        "eta": sample.eta,
        "steps": sample.steps,
        "guidance": sample.guidance if model.spec.guided else 1.0,
    }
    request = Request.of(prompt=prompts, label=labels, others=others)
    return [sampled.picture for sampled in generate(model, request, batch=sample.count)]
