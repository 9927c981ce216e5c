"""A settled request becomes pictures: noise, conditions, the walk, decoding, a note in each."""

import contextlib
import functools
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import torch
from PIL import Image

from darkroom.core import seeds
from darkroom.core.compute import lacks_memory
from darkroom.core.errors import InputError
from darkroom.core.pictures import to_pictures
from darkroom.core.shapes import Images, Latent
from darkroom.diffusion.walk import Step, StepNoise, Wrap, seeded_noise, walk
from darkroom.tasks.between import noise_between, slerp
from darkroom.tasks.enlarge import enlarged
from darkroom.tasks.guide import guided
from darkroom.tasks.inpaint import composed, known_region, matched
from darkroom.tasks.input_picture import InputPicture
from darkroom.tasks.model import Model, Steps
from darkroom.tasks.note import KEY, SHARED, XMP_KEY, DecoderNote, Note, provenance, sign
from darkroom.tasks.request import EACH, PICTURES, PictureField, Request, Wish
from darkroom.tasks.settle import settle
from darkroom.tasks.steer import conditions_of, led_away_from, places, scales_of
from darkroom.tasks.vary import beginning, times_left, window_of

Watch: TypeAlias = Callable[[Step], None]


@final
@dataclass(frozen=True)
class Member:
    """A picture of a batch: one wish of a settled request."""

    request: Request
    wish: Wish


@final
@dataclass(frozen=True)
class Sampled:
    """A picture, its index in the seed, and what made it (plain values, kept in the picture and its PNG)."""

    picture: Image.Image
    index: int
    recipe: dict[str, Any]

    @property
    def metadata(self) -> dict[str, str]:
        """PNG text entries; no clock values, so equal requests give equal files."""
        painted = "mask" in self.recipe.get("pictures", {})
        return {KEY: str(self.picture.info[KEY]), XMP_KEY: provenance(painted=painted)}


def generate(
    model: Model, request: Request, *, batch: int = 16, on_step: Steps | None = None, places: range | None = None
) -> Iterator[Sampled]:
    """Draw the pictures of a request, `batch` at a time; `InputError`, before any work, for what does not fit.

    places: which pictures of the request are drawn (None: all).
    """
    if batch < 1:
        raise InputError(f"batch {batch} does not fit: pictures are drawn one at a time at least")
    settled = settle(model, request)
    members = [Member(settled, wish) for wish in settled.wishes()]
    members = members if places is None else [members[place] for place in places]
    groups = [members[start : start + batch] for start in range(0, len(members), batch)]
    return _run(model, groups, taken=steps_taken(model, settled), on_step=on_step)


def _run(model: Model, groups: Sequence[Sequence[Member]], *, taken: int, on_step: Steps | None) -> Iterator[Sampled]:
    for number, group in enumerate(groups):

        def watch(step: Step, number: int = number) -> None:
            if on_step is not None:
                on_step(number * taken + step.index + 1, taken * len(groups))

        yield from draw(model, group, watch=watch)


def steps_taken(model: Model, request: Request) -> int:
    """Steps of the walk of a settled request: fewer than its `steps` where it begins with a picture."""
    return len(times_left(model, request).visited)


def draw(model: Model, members: Sequence[Member], *, watch: Watch) -> list[Sampled]:
    """The pictures of one batch, in order. Requests in it must be settled and alike (`tasks.together.alike`).

    watch: called after each step; what it raises ends the walk. `InputError` when memory does not suffice.
    """
    request, group = members[0].request, [each.wish for each in members]
    with _memory_permitting(request, group), model.compute.gradients():  # guides and holes ask for some
        latents = None
        for step in _steps(model, request, group):
            latents = step.x
            watch(step)
        assert latents is not None
        images = enlarged(model, model.decode(latents), request=request, group=group)
        _check_finite(images)
        pictures = to_pictures(images)
    return [_signed(model, member, drawn) for member, drawn in zip(members, pictures, strict=True)]


def _check_finite(images: Images) -> None:
    """`InputError` for what would be saved as black pictures, as if somebody had drawn them."""
    if not bool(images.isfinite().all()):
        raise InputError(
            "the model answers numbers that are not finite, which are no picture: ask for less guidance, or for "
            "--precision float32 if it was another; else its weights are damaged"
        )


def _signed(model: Model, member: Member, drawn: Image.Image) -> Sampled:
    picture = composed(drawn, member.wish, channels=model.spec.first_stage.image_channels)
    recipe = _note(model, member.request, member.wish).recipe()
    sign(picture, recipe)
    return Sampled(picture, member.wish.index, recipe)


def _steps(model: Model, request: Request, group: Sequence[Wish]) -> Iterator[Step]:
    assert request.size is not None
    assert request.steps is not None
    assert request.solver is not None
    assert request.eta is not None
    noise, step_noise = _noises(group, model.diffusion.latent_shape(request.size))
    noise = torch.zeros_like(noise) if model.spec.regresses else noise
    conditions = conditions_of(model, group, size=request.size, window=request.window)
    start = beginning(model, request, group=group, noise=noise, conditions=conditions)
    low, high = request.guidance_interval or (0.0, None)
    return walk(
        model,
        model.compute.place(start.x),
        conditions=conditions,
        null=led_away_from(model, request, conditions=conditions, group=group),
        solver=request.solver,
        steps=request.steps,
        eta=request.eta,
        guidance=scales_of(request.guidance),
        guidance_interval=None if request.guidance_interval is None else (low, math.inf if high is None else high),
        guidance_rescale=request.guidance_rescale,
        times=start.times,
        step_noise=step_noise,
        constraint=known_region(model, request, group=group, noise=noise),
        wrap=_one_wrap([matched(model, request, group=group), guided(model, request, group=group)]),
        window=window_of(model, request),
    )


def _one_wrap(wraps: Sequence[Wrap | None]) -> Wrap | None:
    """The wraps as one, the first innermost; None where there is none."""
    found = [each for each in wraps if each is not None]
    return functools.reduce(lambda first, then: lambda denoise: then(first(denoise)), found) if found else None


def _noises(group: Sequence[Wish], shape: tuple[int, int, int]) -> tuple[Latent, StepNoise]:
    """Where the walk starts, and what its steps may add."""
    indices = [wish.index for wish in group]

    def of(seed: Sequence[int]) -> tuple[Latent, StepNoise]:
        start = seeds.normal(shape, seed=seed, indices=indices, purpose="noise")
        return start, seeded_noise(shape, seed=seed, indices=indices)

    start, steps = of([wish.seed for wish in group])
    ends = [wish.to_seed for wish in group if wish.to_seed is not None]
    if not ends:
        return start, steps
    last_start, last_steps = of(ends)
    at = places(group)
    return slerp(start, last_start, at=at), noise_between(steps, last_steps, at=at)


def _note(model: Model, request: Request, wish: Wish) -> Note:
    pictures: dict[PictureField, InputPicture | None] = {name: getattr(wish, name) for name in PICTURES}
    decoder = model.card.get("decoder")
    dtype = model.compute.dtype
    settings: dict[str, Any] = {name: getattr(request, name) for name in SHARED}
    settings |= {"inverted": request.inverted or None, "at": wish.at}
    settings |= {name: getattr(wish, name) for name in EACH if name not in PICTURES}
    return Note(
        **settings,
        model=model.name,
        spec_hash=model.card.get("spec_hash"),
        decoder=None if decoder is None else DecoderNote(**decoder),
        precision=None if dtype == torch.float32 else str(dtype).removeprefix("torch."),
        pictures={name: each.hash for name, each in pictures.items() if each is not None} or None,
        index=wish.index,
    )


@contextlib.contextmanager
def _memory_permitting(request: Request, group: Sequence[Wish]) -> Generator[None]:
    """Within the block, a lack of memory becomes an `InputError` in one sentence."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not lacks_memory(error):
            raise
        assert request.size is not None
        raise InputError(
            f"{len(group)} pictures of {request.size[0]}x{request.size[1]} at once need more memory than there is; "
            "ask for a smaller size or batch"
        ) from None
