"""Carrying out a recipe in a run folder: first stage, scale of latents, denoiser, one model file; resumes."""

import contextlib
import functools
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar, final

import torch

from darkroom.autoencoder.model import Autoencoder, AutoencoderSpec, Pixels
from darkroom.autoencoder.statistics import LatentStatistics
from darkroom.checkpoint.store import StoredModel, first_stage_of, load_model, save_model
from darkroom.conditioning.spatial import MapSpec
from darkroom.conditioning.text import TextSpec, Tokenizer
from darkroom.core.compute import Compute, training_compute
from darkroom.core.errors import InputError, SpecError
from darkroom.core.hashes import weights_hash
from darkroom.core.parallel import check_together, is_first, on_first
from darkroom.core.record import alone_in, atomic, disk_faults, read_json, writable_folder, write_yaml
from darkroom.data.examine import examine
from darkroom.data.inputs import captions, check_maps
from darkroom.data.sources import Splits, open_data
from darkroom.diffusion.model import LatentDiffusion
from darkroom.recipes.cached import cached, statistics_of
from darkroom.recipes.card import card_of
from darkroom.recipes.check import check_trainable
from darkroom.recipes.clock import RECIPE, Clock
from darkroom.recipes.distill import check_taught, lesson_of
from darkroom.recipes.given import begin_decoder, begin_first_stage, check_begin, with_first_stage
from darkroom.recipes.length import trained, written
from darkroom.recipes.preview import preview
from darkroom.recipes.read import read_recipe
from darkroom.recipes.report.afterwards import report_on
from darkroom.recipes.report.page import PAGE
from darkroom.recipes.resolve import resolve
from darkroom.recipes.schema import DataSpec, Recipe, difference, unshared
from darkroom.recipes.tune import begin_with, check_start
from darkroom.tasks.load import load
from darkroom.tasks.model import Model
from darkroom.train.denoiser import train_denoiser
from darkroom.train.events import Event, Sentence, Wrote
from darkroom.train.first_stage import measure_latents, train_decoder, train_first_stage
from darkroom.train.guesses import fit_guesses
from darkroom.train.optim import TrainSpec
from darkroom.train.session import STATE
from darkroom.train.state import before

T = TypeVar("T")
Tell = Callable[[str, int, int], None]
TOKENIZER, MODEL, BEST = "tokenizer.json", "model.safetensors", "best.safetensors"
MARKS = "denoiser/models"
PICTURES = "pictures.json"  # what a look at every picture found
GIVEN = "given.safetensors"  # the first stage that a decoder is trained for


def open_recipe_data(data: DataSpec, *, seed: int) -> Splits:
    """The splits a recipe trains and measures on; `SpecError` when it names no source."""
    if data.source is None:
        raise SpecError("this recipe needs pictures: give data.source=FOLDER")
    return open_data(
        data.source,
        seed=seed,
        size=data.size,
        limit=data.count,
        caption_field=data.caption_field,
        alpha=data.channels == 4,
    )


@final
class Run:
    """A recipe being carried out in a folder. `develop` is the work; the rest says where things are.

    first_stage: one that is used as it is · start: the model that it begins with, or is taught by (`recipe.start`) ·
    splits: the recipe's data, opened already · spent: seconds of the recipe's `minutes` that are gone · keep: see
    `train.session.Session` · best: the model of the look with the least held-out loss is kept too · marks: the model of
    every look is, in `denoiser/models`.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        *,
        device: str = "auto",
        first_stage: StoredModel | None = None,
        start: StoredModel | None = None,
        splits: Splits | None = None,
        spent: float = 0.0,
        keep: int = 0,
        best: bool = False,
        marks: bool = False,
    ) -> None:
        self.folder = folder
        self.device = device
        self.start, self.keep, self.best, self.marks = start, keep, best, marks
        check_start(recipe, start)
        check_taught(recipe, start)
        self.given = None if first_stage is None else first_stage_of(first_stage)
        recipe = written(recipe, self.folder / RECIPE)
        if self.given is not None:
            recipe = with_first_stage(recipe, self.given)
        elif start is not None and isinstance(recipe.first_stage.model, AutoencoderSpec):
            self.given = first_stage_of(start)
        check_trainable(recipe, given=self.given is not None or start is not None)
        self.splits = splits or open_recipe_data(recipe.data, seed=recipe.seed)
        train, test = self.splits
        self.resolved = resolve(recipe, train, tokenizer=self._tokenizer(recipe), start=start, held_out=test)
        self._clock = Clock(folder, spent=spent)
        on_first(self._claim)
        check_together(folder, self.recipe.plain())

    @property
    def recipe(self) -> Recipe:
        """The recipe, fitted to its data."""
        return self.resolved.recipe

    @property
    def begun(self) -> bool:
        """Has a step been made in this folder before?"""
        states = (STATE, before(Path(STATE)).name)
        return any((self.folder / stage / name).exists() for stage in ("first_stage", "denoiser") for name in states)

    def develop(self, *, tell: Tell | None = None, page: bool = True) -> Generator[Event]:
        """All that is left to do; stop listening at any event and run again to go on.

        tell: called with (what, done, of) during work between events; it may raise, nothing is then half-written ·
        page: look back at the end, and write the report.
        """
        alone = alone_in(self.folder) if is_first() else contextlib.nullcontext()
        with disk_faults(self.folder, kept="the last state that was saved is whole"), alone:
            yield from self._developed(tell, page=page)

    def _developed(self, tell: Tell | None, *, page: bool) -> Generator[Event]:
        path = self.folder / MODEL
        if path.exists() and (not page or (self.folder / PAGE).exists()):
            yield Sentence("this run is finished")
            yield Wrote("model", path)
            return
        yield from self._examined(tell)
        if not path.exists():
            yield from self._cut_captions()
            on_first(lambda: self._check_maps(tell))
            yield from self._stages(tell)
        yield Wrote("model", path)
        if page:
            yield Wrote("report", on_first(lambda: self._reported(path, tell)))

    def _reported(self, path: Path, tell: Tell | None) -> Path:
        return report_on(
            self.folder,
            self.recipe,
            splits=self.splits,
            transform=self.recipe.transform.squared,  # as large as what the model draws unasked
            model=None if self.recipe.denoiser is None else load(path, device=self.device),
            device=self.device,
            tell=tell,
        )

    def _stages(self, tell: Tell | None) -> Generator[Event]:
        first_stage = yield from self._first_stage()
        if self.recipe.denoiser is not None:
            yield from self._denoiser(first_stage, tell=tell)
        else:
            on_first(lambda: save_model(self.folder / MODEL, load_model(self.folder / "first_stage" / MODEL)))

    def _examined(self, tell: Tell | None) -> Iterator[Event]:
        """Look at every pixel of the pictures once; a run that goes on leaves out what it left out before."""
        progress = None if tell is None else functools.partial(tell, "looking at pictures")
        self.splits = on_first(lambda: examine(self.splits, memo=self.folder / PICTURES, progress=progress))
        left_out = self.splits.left_out
        if left_out:
            name, reason = left_out[0]
            yield Sentence(f"{len(left_out)} picture{'s' * (len(left_out) > 1)} left out, e.g. {name}: {reason}")

    def _check_maps(self, tell: Tell | None) -> None:
        """Every map is looked at before anything is trained on the pictures."""
        part = self.recipe.denoiser
        for spec in () if part is None or self.begun else part.conditioners:
            if isinstance(spec, MapSpec):
                for source in self.splits:
                    progress = None if tell is None else functools.partial(tell, "looking at maps")
                    check_maps(source, classes=len(source.map_classes) or spec.classes, progress=progress)

    def _cut_captions(self) -> Iterator[Event]:
        tokenizer = self.resolved.tokenizer
        texts = captions(self.splits.train) if tokenizer is not None and not self.begun else []
        cut = sum(tokenizer.cuts(text) for text in texts) if tokenizer is not None else 0
        if cut:
            assert tokenizer is not None
            yield Sentence(f"{cut} captions are longer than {tokenizer.length} tokens; what is beyond is not seen")

    def _first_stage(self) -> Generator[Event, None, Autoencoder | Pixels]:
        part = self.recipe.first_stage
        if not isinstance(part.model, AutoencoderSpec):
            return Pixels(part.model)
        path = self.folder / "first_stage" / MODEL
        if path.exists():
            model = Autoencoder(part.model)
            model.load_state_dict(dict(load_model(path).state))
            return model.eval()
        assert part.train is not None
        compute = self._compute(part.train)
        model = compute.host(_seeded(lambda: Autoencoder(part.model), seed=self.recipe.seed))
        begin_first_stage(model, part)
        measure = functools.partial(
            measure_latents, source=self.splits.train, transform=self.recipe.transform, compute=compute
        )
        known, stage = None, train_first_stage
        if part.only is not None:
            assert self.given is not None
            full, known = begin_decoder(model, self.given, measure=measure)
            stage = functools.partial(train_decoder, full=full)
        yield from stage(
            model,
            self.splits,
            transform=self.recipe.transform,
            loss=part.loss,
            train=part.train,
            compute=compute,
            folder=path.parent,
            seed=self.recipe.seed,
            keep=self.keep,
        )
        report = on_first(lambda: read_json(path.parent / "report.json"))
        stored = StoredModel(
            kind="first-stage",
            spec=part.model,
            state=model.state_dict(),
            card=card_of(self.recipe, pictures=len(self.splits.train), quality={"first_stage": report}),
            latents=known or on_first(lambda: measure(model)),
        )
        on_first(lambda: save_model(path, stored))
        yield Sentence(_first_stage_sentence(report))
        yield Wrote("first stage", path)
        return model

    def _denoiser(self, first_stage: Autoencoder | Pixels, *, tell: Tell | None) -> Iterator[Event]:
        part, spec = self.recipe.denoiser, self.recipe.model_spec()
        assert part is not None
        assert part.train is not None
        assert spec is not None
        model = _seeded(lambda: LatentDiffusion(spec), seed=self.recipe.seed + 1)
        if self.start is not None:
            begin_with(model, self.start)
        model.first_stage.load_state_dict(first_stage.state_dict())
        compute = self._compute(part.train)
        middle = ", cut from their middle: random crops are for first stages yet" * self.recipe.transform.random
        yield Sentence(f"caching latents of {len(self.splits.train)} training pictures{middle}")
        latents = cached(
            model,
            self.splits,
            resolved=self.resolved,
            transform=self.recipe.transform,
            folder=self.folder / "latents",
            compute=compute,
            progress=None if tell is None else functools.partial(tell, "latents"),
        )
        for path in (*latents.train.remade, *latents.test.remade):
            yield Sentence(f"{path} was damaged, and was made anew")
        statistics = statistics_of(latents.train, self.folder / "latents")
        if spec.scale is None and self.start is None:
            model.scale = statistics.scale(part.spread).to(model.scale.device)
        if self.start is None:
            fit_guesses(model, latents, compute=compute)
        self.resolved.tell_empty(model.conditioning)
        whole = self._model(model, compute=compute)
        keep, marks = functools.partial(self._kept, model, statistics), self.folder / MARKS
        yield from train_denoiser(
            model,
            latents,
            train=self._adopt(self._clock.settled(self.recipe, device=self.device)),
            compute=compute,
            folder=self.folder / "denoiser",
            seed=self.recipe.seed,
            lesson=lesson_of(self.resolved, self.start),
            keep=self.keep,
            best=(lambda: keep(self.folder / BEST, what="the best model so far")) if self.best else None,
            mark=(lambda step: keep(marks / f"{step:08}.safetensors", what=f"model of {step}")) if self.marks else None,
            preview=lambda: preview(
                whole,
                part.sample,
                source=self.splits.test,
                transform=self.recipe.transform.squared,
                spoiling=self.recipe.data.spoiling,
            ),
            settle=lambda step: self._adopt(on_first(lambda: self._clock.settled_again(self.recipe, step=step))),
        )
        on_first(lambda: self._save(model, self.folder / MODEL, statistics))

    def _kept(self, model: LatentDiffusion, statistics: LatentStatistics, path: Path, *, what: str) -> Event:
        self._save(model, writable_folder(path.parent) / path.name, statistics)
        return Wrote(what, path)

    def _adopt(self, recipe: Recipe) -> TrainSpec:
        """Go on with this recipe, which differs in its length; answers how its denoiser is trained."""
        self.resolved = replace(self.resolved, recipe=recipe)
        return trained(recipe)["denoiser"]

    def _model(self, diffusion: LatentDiffusion, *, compute: Compute) -> Model:
        return Model(
            diffusion,
            compute=compute,
            name=self.recipe.name,
            card=card_of(self.recipe, pictures=len(self.splits.train), quality={}),
            names=self.resolved.names,
            tokenizer=self.resolved.tokenizer,
        )

    def _save(self, model: LatentDiffusion, path: Path, statistics: LatentStatistics) -> None:
        tokenizer = self.resolved.tokenizer
        quality = {
            stage: read_json(report)
            for stage in ("first_stage", "denoiser")
            if (report := self.folder / stage / "report.json").exists()
        }
        stored = StoredModel(
            kind="model",
            spec=model.spec,
            state=model.state_dict(),
            card=card_of(self.recipe, pictures=len(self.splits.train), quality=quality),
            names=self.resolved.names,
            tokenizer=None if tokenizer is None else tokenizer.to_json(),
            latents=statistics,
        )
        save_model(path, stored)

    def _compute(self, train: TrainSpec) -> Compute:
        return training_compute(self.device, train.precision)

    def _tokenizer(self, recipe: Recipe) -> Tokenizer | None:
        """The tokenizer of this folder's run, if it has made one."""
        path = self.folder / TOKENIZER
        if not (self.folder / RECIPE).exists():  # what is there belongs to a run that never began
            return None
        part = recipe.denoiser
        spec = next((each for each in part.conditioners if isinstance(each, TextSpec)), None) if part else None
        if spec is None or not path.exists():
            return None
        return Tokenizer.from_json(path.read_text(encoding="utf-8"), length=spec.encoder.length)

    @property
    def _given_path(self) -> Path:
        """Where a given first stage is kept: it is the run's own, unless its decoder is still to be trained."""
        return self.folder / ("first_stage/" + MODEL if self.recipe.first_stage.only is None else GIVEN)

    def _claim(self) -> None:
        """Write the recipe into a new folder, alone; refuse a folder in which another recipe was begun."""
        path = self.folder / RECIPE
        with alone_in(writable_folder(self.folder)):  # of two that begin at once, one alone says what is done here
            if not path.exists():
                self._begin(path)
                return
        before, now = unshared(read_recipe(path)), unshared(self.recipe)
        if before != now:
            raise InputError(
                f"{self.folder}: another recipe was begun here ({difference(before, now)}); choose another --out, or "
                f"run it unchanged to go on; what is finished goes on with --from {self.folder} and another --out"
            )
        self._same_first_stage()

    def _begin(self, path: Path) -> None:
        check_begin(self.recipe.first_stage)
        with disk_faults(self.folder, kept="nothing was begun"):
            if self.given is not None:
                save_model(self._given_path, self.given)
            if self.resolved.tokenizer is not None:
                with atomic(self.folder / TOKENIZER) as temporary:
                    temporary.write_text(self.resolved.tokenizer.to_json(), encoding="utf-8")
            write_yaml(path, self.recipe.plain())

    def _same_first_stage(self) -> None:
        """Refuse to go on with another first stage than the one that this run was begun with."""
        path = self._given_path
        if self.given is None or not path.exists():
            return
        if weights_hash(load_model(path).state.items()) != weights_hash(self.given.state.items()):
            raise InputError(f"{self.folder}: this run was begun with another first stage; choose another --out")


def _seeded(build: Callable[[], T], *, seed: int) -> T:
    """What `build` makes with fresh weights drawn from `seed`; torch's own generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def _first_stage_sentence(report: dict[str, float]) -> str:
    found, plain = f"{report['psnr']:.2f} dB PSNR", f"{report['bicubic_psnr']:.2f} dB"
    if "distance" in report:
        found += f", feature distance {report['distance']:.4f}"
        plain += f", {report['bicubic_distance']:.4f}"
    beside = f"bicubic at the same factor: {plain}"
    if "full_psnr" in report:
        beside = f"the full decoder: {report['full_psnr']:.2f} dB; {beside}"
    return f"first stage: {found} on {report['pictures']:.0f} test pictures ({beside})"
