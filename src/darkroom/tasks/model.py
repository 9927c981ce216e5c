"""`Model`: what `darkroom.load` returns; fields in a person's words outside, tensors inside."""

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast, final

import torch
from PIL import Image
from torch import Generator, Tensor

from darkroom.autoencoder import tiles
from darkroom.autoencoder.model import Autoencoder, FirstStage, same_latents
from darkroom.autoencoder.preview import Preview
from darkroom.checkpoint.store import spec_hash
from darkroom.conditioning.text import Tokenizer
from darkroom.core.compute import Compute
from darkroom.core.conditions import Conditions
from darkroom.core.errors import InputError
from darkroom.core.names import NAMELESS, Names
from darkroom.core.shapes import Images, Latent, Number, PerSample, Time
from darkroom.core.spec import parse
from darkroom.diffusion.denoiser import Network
from darkroom.diffusion.engine import PLAIN, Decode, Engine
from darkroom.diffusion.model import LatentDiffusion, ModelSpec
from darkroom.process.prediction import Prediction
from darkroom.process.schedule import Schedule
from darkroom.tasks.fields import Fields
from darkroom.tasks.find import name_of
from darkroom.tasks.note import again, check_maker, read_note
from darkroom.tasks.parts import load_decoder
from darkroom.tasks.request import Labels, Layouts, Pictures, Placed, Request, Texts, given

Steps = Callable[[int, int], None]


@final
class Model:
    """A latent diffusion model ready to use: network, first stage, conditioners, tokenizer, class names, card.

    It has the `network`, `schedule` and `prediction` that solvers need, so `darkroom.sample_latents` and
    `darkroom.walk` take it. decoder: the first stage's own, unless another was given (`with_decoder`) · engine: runs
    network and decoder while nobody asks for gradients.
    """

    def __init__(
        self,
        diffusion: LatentDiffusion,
        *,
        compute: Compute,
        name: str = "model",
        card: dict[str, Any] | None = None,
        names: Names = NAMELESS,
        tokenizer: Tokenizer | None = None,
        odd: Sequence[str] = (),
        decoder: Autoencoder | Preview | None = None,
        engine: Engine = PLAIN,
    ) -> None:
        self.diffusion = compute.host(diffusion).eval()
        self.decoder: FirstStage | Preview = (
            self.diffusion.first_stage if decoder is None else compute.host(decoder).eval()
        )
        self.compute = compute
        self.engine = engine
        self.name = name
        self.card = card or {}
        self.names = names
        self.tokenizer = tokenizer
        self.words = Fields(diffusion.spec, model=name, names=names, tokenizer=tokenizer)
        self.odd = tuple(odd)

    def __repr__(self) -> str:
        """What whoever looks at it in a session of Python wants to know: its size, and what to ask it for."""
        side = self.spec.image_size
        return f"<Model {self.name}: {side} x {side} pixels, {self.words.takes().removeprefix('it is ')}>"

    @property
    def spec(self) -> ModelSpec:
        """What the model is made of."""
        return self.diffusion.spec

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels 0, 1, ..."""
        return self.names.classes

    @property
    def first_stage(self) -> FirstStage:
        """The first stage, in its own units (no scale applied)."""
        return self.diffusion.first_stage

    @property
    def schedule(self) -> Schedule:
        """alpha and sigma of every time."""
        return self.diffusion.schedule

    @property
    def prediction(self) -> Prediction:
        """What the network's raw output stands for."""
        return self.diffusion.prediction

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields that steer it: `caption`, `label`, ..."""
        return self.spec.fields

    def network(self, x_t: Latent, t: Time, conditions: Conditions) -> Latent:
        """The raw output in the trained parameterisation; t is integer for discrete schedules.

        It carries gradient to an x_t that asks for one, and to nothing else.
        """
        asked = torch.is_grad_enabled() and x_t.requires_grad
        network = self.diffusion.network if asked else self._network
        with torch.set_grad_enabled(asked), self.compute.autocast():
            output = self.diffusion.whole(network)(
                self.compute.place(x_t), t.to(self.compute.device), conditions.map(self.compute.place)
            )
        return output.to(x_t)

    @functools.cached_property
    def _network(self) -> Network:
        """The engine's form of the network, made when it is first needed."""
        return self.engine.network(self.diffusion.network)

    @functools.cached_property
    def _decode(self) -> Decode:
        """The engine's form of the decoder, likewise."""
        return self.engine.decode(self.decoder)

    @torch.no_grad()
    def encode(self, images: Images, *, generator: Generator | None = None) -> Latent:
        """Latents in the denoiser's units; without generator the posterior mean, with one a draw from it.

        images: (b, c, H, W) in [-1, 1], sides multiples of the first stage's factor, else `InputError`.
        """
        noise = None
        if generator is not None:
            height, width = images.shape[-2:]
            shape = (len(images), *self.diffusion.latent_shape((height, width)))
            noise = torch.randn(shape, generator=generator, device=generator.device)
            noise = noise.to(self.compute.device)
        with self.compute.autocast():
            return self.diffusion.encode(self.compute.place(images), noise=noise).float()

    @torch.no_grad()
    def decode(self, latents: Latent) -> Images:
        """Pictures in about [-1, 1] from latents in the denoiser's units; large ones in tiles, and then on the CPU."""
        with self.compute.autocast():
            placed = self._for_decoder(latents)
            return tiles.decoded(self._decode, placed, factor=self.spec.first_stage.factor).float()

    def decode_smoothly(self, latents: Latent) -> Images:
        """`decode` for guidance: it carries gradient, quantises nothing and decodes the picture as a whole."""
        with self.compute.autocast():
            raw = self.decoder.decode_raw if isinstance(self.decoder, Autoencoder) else self.decoder.decode
            return raw(self._for_decoder(latents)).float()

    def _for_decoder(self, latents: Latent) -> Latent:
        """Latents in the units that the decoder takes."""
        placed = self.compute.place(latents)
        return placed if isinstance(self.decoder, Preview) else self.diffusion.unscaled(placed)

    def with_decoder(self, decoder: Autoencoder | Preview | str | Path) -> "Model":
        """The same model with another decoder for its latents, such as a tiny one; this one stays as it is.

        decoder: a first stage, what `darkroom.load_autoencoder` takes, or a tiny decoder made elsewhere (TAESD's file,
        a folder of diffusers' AutoencoderTiny). `InputError` when it was made for other latents: its encoder and
        codebook must be this model's, up to rounding to bfloat16. Tiny decoders made elsewhere do not say for which
        latents they are, so only their sizes are compared.
        """
        given = isinstance(decoder, Autoencoder | Preview)
        found = copy.deepcopy(decoder).float() if given else load_decoder(decoder, device=str(self.compute.device))
        name = "decoder" if given else name_of(decoder)
        if not isinstance(self.first_stage, Autoencoder):
            raise InputError(f"{self.name} works on pixels, so there are no latents for {name} to decode")
        check_decoder(self.first_stage, found, model=self.name, name=name)
        return Model(
            self.diffusion,
            compute=self.compute,
            name=self.name,
            card={**self.card, "decoder": {"name": name, "spec_hash": spec_hash(found.spec)}},
            names=self.names,
            tokenizer=self.tokenizer,
            odd=self.odd,
            decoder=found,
            engine=self.engine,
        )

    @torch.no_grad()
    def condition(
        self,
        *,
        caption: Sequence[str] | str | None = None,
        caption_ids: Tensor | None = None,
        label: Sequence[int | str] | Tensor | int | str | None = None,
        objects: Sequence[Sequence[Placed | Mapping[str, Any]]] | None = None,
        layout_ids: Tensor | None = None,
        map: Tensor | None = None,
        low_res: Tensor | None = None,
        embedding: Tensor | None = None,
        image: Tensor | None = None,
        mask: Tensor | None = None,
        size: tuple[int, int] | None = None,
    ) -> Conditions:
        """The three ports from the fields this model takes; others are refused by name.

        caption: texts, or caption_ids (b, l) · label: class names or numbers · objects: of each sample a list of
        {category: name or number, box: x, y, width, height in 0..1}, or layout_ids (b, l) · map: one-hot
        (b, classes, H, W) or ids (b, H, W) · low_res: (b, c, h, w) in [-1, 1] at latent size · image: (b, c, H, W) in
        [-1, 1] with mask (b, 1, H, W), 1 where to paint · embedding: (b, l, d) · size: height and width of the pictures
        to draw; with it fields that training dropped may be left out.
        """
        for one, other, names in (
            (caption, caption_ids, "caption and caption_ids"),
            (objects, layout_ids, "objects and layout_ids"),
        ):
            if one is not None and other is not None:
                raise InputError(f"{names} say the same thing; give one of them")
        words = self.words
        given: dict[str, Tensor | None] = {
            "caption": words.caption_ids(caption) if caption is not None else caption_ids,
            "label": None if label is None else words.label_ids(label),
            "objects": words.layouts(objects, size=size) if objects is not None else layout_ids,
            "map": None if map is None else words.one_hot(map),
            "low_res": None if low_res is None else words.low_res(low_res),
            "masked": None if image is None and mask is None else words.masked(image, mask),
            "embedding": embedding,
        }
        inputs = {field: self.compute.place(values) for field, values in given.items() if values is not None}
        latent = None if size is None else self.diffusion.latent_shape(size)[1:]
        with self.compute.autocast():
            return self.diffusion.condition(self.diffusion.prepared(inputs), size=latent).map(torch.Tensor.float)

    @torch.no_grad()
    def null(self, conditions: Conditions, drop: Sequence[str] | None = None) -> Conditions:
        """Conditions of the same shapes that say nothing about the fields `drop` (None: those training dropped)."""
        with self.compute.autocast():
            return self.diffusion.null(conditions.map(self.compute.place), drop=drop).map(torch.Tensor.float)

    @torch.no_grad()
    def loss(self, latents: Latent, *, t: Time, noise: Latent, conditions: Conditions) -> PerSample:
        """The training loss of each sample: latents and noise (b, c, h, w), t (b,)."""
        with self.compute.autocast():
            return self.diffusion.loss(
                self.compute.place(latents),
                t=t.to(self.compute.device),
                noise=self.compute.place(noise),
                conditions=conditions.map(self.compute.place),
            )

    def sample(
        self,
        prompt: Texts | None = None,
        *,
        count: int = 1,
        seed: int | None = None,
        first: int | None = None,
        label: Labels | None = None,
        layout: Layouts | None = None,
        map: Pictures | None = None,
        low_res: Pictures | None = None,
        image: Pictures | None = None,
        mask: Pictures | None = None,
        strength: Number | None = None,
        inverted: bool | None = None,
        guide: Pictures | None = None,
        guide_weight: Number | None = None,
        match: int | None = None,
        negative: Texts | None = None,
        to: Texts | None = None,
        to_label: Labels | None = None,
        to_seed: int | None = None,
        at: Number | None = None,
        size: tuple[int, int] | int | None = None,
        window: int | None = None,
        steps: int | None = None,
        solver: str | None = None,
        eta: Number | None = None,
        guidance: Number | Mapping[str, Number] | None = None,
        guidance_interval: tuple[Number, Number | None] | None = None,
        guidance_rescale: Number | None = None,
        times: str | None = None,
        like: Image.Image | str | Path | None = None,
        batch: int = 16,
        on_step: Steps | None = None,
    ) -> list[Image.Image]:
        """Pictures: `count` of each prompt, label, layout or picture given, in order.

        prompt, label, negative (what to steer away from): one for all, or one for each · layout: a list of {category,
        box: x, y, width, height in 0..1}, or several.
        map, low_res, image, mask, guide: a picture, a file, or several. map: levels are class ids · low_res: what is to
        be enlarged · image with mask (white: paint here): the hole is painted, all else stays as it is · image alone:
        variations of it, which begin with the noise that leads to it if `inverted`; strength, up to 1: how much of it
        is left open (0.6) · guide: what the drawn picture shall be when made small; guide_weight (1): share of the way
        that each step goes there · match: with a mask, how many times a later step is moved to where its picture meets
        the known pixels at the rim of the hole; with low_res 1 or 0, whether the drawn picture made small is exactly
        the given one (1 for models of plain bicubic reduction).
        to, to_label, to_seed: another end. The `count` pictures then lead evenly from prompt, label and seed to it,
        both ends included; with at (0 to 1) all stand at that place on the way, and differ by their k.
        seed (0): picture k of a seed is the same in any batch · first: the k to begin with (0) · size: (height, width)
        in pixels, or one side · window: side in pixels of overlapping windows, for pictures larger than that.
        steps, solver, eta, guidance, times: None for the model's defaults; guidance also one for each field, by its
        name · guidance_interval: guide only at noise levels sigma / alpha in (low, high], high None for any.
        like: a picture or PNG of this model to draw again, with whatever else is given changed · batch: pictures drawn
        together · on_step: called with (steps done, steps in all).
        Each picture says in `info["darkroom"]` how it was made, and so does the PNG that its `save` writes.
        `InputError` for fields the model does not take and sizes it cannot make.
        """
        from darkroom.tasks.generate import generate  # noqa: PLC0415  (generate takes a Model)

        fields = given(
            {
                "prompt": prompt,
                "label": label,
                "negative": negative,
                "to": to,
                "to_label": to_label,
                "to_seed": to_seed,
                "at": at,
                "layout": layout,
                "map": map,
                "low_res": low_res,
                "image": image,
                "mask": mask,
                "guide": guide,
                "count": count,
                "seed": seed,
                "first": first,
                "size": size,
                "window": window,
                "strength": strength,
                "inverted": inverted,
                "guide_weight": guide_weight,
                "match": match,
                "steps": steps,
                "solver": solver,
                "eta": eta,
                "guidance": guidance,
                "guidance_interval": guidance_interval,
                "guidance_rescale": guidance_rescale,
                "times": times,
            }
        )
        request = parse(Request, fields, where="request") if like is None else self._like(like, changes=fields)
        return [sampled.picture for sampled in generate(self, request, batch=batch, on_step=on_step)]

    def _like(self, picture: Image.Image | str | Path, *, changes: dict[str, Any]) -> Request:
        note = read_note(picture)
        where = "the picture given" if isinstance(picture, Image.Image) else str(picture)
        check_maker(note, name=self.name, card=self.card, where=where)
        return again(note, changes)

    def default(self, name: str, otherwise: Any) -> Any:
        """A sampling default from the card (`solver`, `eta`, `steps`, `guidance`, `match`), or `otherwise`."""
        defaults = cast("dict[str, Any]", self.card.get("sample", {}))
        return defaults.get(name, otherwise)


def check_decoder(first_stage: Autoencoder, decoder: Autoencoder | Preview, *, model: str, name: str) -> None:
    """`InputError` when a decoder was made for other latents than those of a first stage, as far as that is known."""
    if isinstance(decoder, Autoencoder):
        if not same_latents(first_stage, decoder):
            raise InputError(f"{name} does not fit {model}: its encoder is another, so it was made for other latents")
        return
    sizes = ("latent_channels", "factor", "image_channels")
    ours, theirs = (tuple(getattr(each.spec, size) for size in sizes) for each in (first_stage, decoder))
    if ours != theirs:
        words = "latents of {} channels, f = {} and pictures of {} channels"
        raise InputError(f"{name} does not fit {model}: it has {words.format(*theirs)}, not {words.format(*ours)}")
