"""Pictures drawn during training, with the fields of held-out examples."""

from PIL import Image

from darkroom.data.examples import Source
from darkroom.recipes.resolve import captions
from darkroom.recipes.schema import SampleSpec
from darkroom.tasks.generate import generate
from darkroom.tasks.model import Model
from darkroom.tasks.request import Request


def preview(model: Model, sample: SampleSpec, *, source: Source, seed: int = 0) -> list[Image.Image]:
    """`sample.count` pictures with the recipe's prompts, else with captions or labels of test examples in turn."""
    prompts = labels = None
    count = sample.count
    if "caption" in model.fields:
        texts = sample.prompts or captions(source, most=count)
        prompts = [texts[place % len(texts)] for place in range(count)]
    if "label" in model.fields:
        labels = [source.classes[place % len(source.classes)] for place in range(count)]
    others = {
        "count": count if prompts is None and labels is None else 1,
        "seed": seed,
        "solver": sample.solver,
        "steps": sample.steps,
        "guidance": sample.guidance if model.spec.guided else 1.0,
    }
    request = Request.of(prompt=prompts, label=labels, others=others)
    return [sampled.picture for sampled in generate(model, request, batch=sample.count)]
