"""Fine-tuning: a recipe that begins with the weights of a whole model, on other pictures, at another size perhaps."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Any, cast

import torch
from torch import Tensor

from darkroom.checkpoint.store import StoredModel
from darkroom.conditioning.label import ClassSpec
from darkroom.core.errors import InputError, SpecError
from darkroom.core.hashes import weights_hash
from darkroom.core.spec import parse
from darkroom.diffusion.model import LatentDiffusion, ModelSpec
from darkroom.recipes.schema import DataSpec, Recipe, StartSpec
from darkroom.recipes.teach import PORTS, fitted, taught
from darkroom.train.optim import TrainSpec

KEPT = ("network", "conditioners", "schedule", "prediction", "objective", "scale")
SPOILT = {"low_res": "degradation", "masked": "masks"}
LABELS = "conditioning.by_field.label.embedding.weight"


def from_model(
    recipe: Recipe,
    stored: StoredModel,
    *,
    name: str,
    size: int | None = None,
    train: TrainSpec | None = None,
    teach: bool = True,
) -> Recipe:
    """The recipe's data and training with all else of a model, whose first stage and scale of latents stay as they are.

    A recipe that is steered by other fields than the model teaches it those: conditioners, their ports and how it is
    sampled are the recipe's then, the body of the network is the model's.
    name: what the model is called · size: side of the pictures (None: what the model was trained on) · train: how a
    denoiser that is taught nothing is trained (None: as the recipe says) · teach: without it, the model says what
    steers it. `SpecError` for a first stage alone, a distilled model, or when nothing is trained.
    """
    spec = _whole(stored, name=name)
    _check_undistilled(stored, name=name)
    part, values = recipe.denoiser, recipe.plain()
    teaches = teach and part is not None and {each.field for each in part.conditioners} != set(spec.fields)
    given = None if part is None else (part.train if teaches else train or part.train)
    if part is None or given is None:
        raise SpecError(f"recipe {recipe.name!r} does not say how a denoiser is trained (denoiser.train)")
    values["data"] |= {"size": size or spec.image_size, "channels": spec.first_stage.image_channels}
    kept = set(spec.fields) & {each.field for each in part.conditioners} if teaches else set(spec.fields)
    values["data"] |= _spoiling(stored, kept)
    values["first_stage"] = {"model": spec.first_stage.plain(), "train": None}
    small = parse(DataSpec, values["data"], where=f"the data of recipe {recipe.name!r}").degradation.factor
    values["denoiser"] = {
        **{key: spec.plain()[key] for key in KEPT},
        **(taught(part, spec, name=name, small=small) if teaches else {}),
        "train": given.plain(),
        "sample": part.sample.plain() if teaches else _sampling(stored),
    }
    values["start"] = StartSpec(name=name, weights=weights_hash(stored.state.items()), taught=teaches).plain()
    return parse(Recipe, values, where=f"recipe {recipe.name!r} from {name}")


def check_start(recipe: Recipe, stored: StoredModel | None) -> None:
    """`SpecError` unless the recipe begins with just this model, unchanged but for classes and what counts how much.

    Where it is taught something, what steers both and all of the network but its ports are unchanged.
    """
    start = recipe.start
    if start is None and stored is not None:
        raise SpecError(f"recipe {recipe.name!r} begins with no model, and one is given; make it with `from_model`")
    if start is None:
        return
    if stored is None:
        word = "--from" if recipe.denoiser is None or recipe.denoiser.distill is None else "--distill"
        raise SpecError(f"this recipe begins with the model {start.name!r}; say where it is with {word}")
    if weights_hash(stored.state.items()) != start.weights:
        raise InputError(f"this run was begun from another {start.name!r}: its weights differ; choose another --out")
    assert recipe.denoiser is not None
    ours, theirs = recipe.denoiser.plain(), _whole(stored, name=start.name).plain()
    ours["first_stage"] = recipe.first_stage.model.plain()
    if start.taught:
        _leave_ports(ours, theirs)
    for each in (*ours["conditioners"], *theirs["conditioners"]):
        each.pop("drop")  # may change; the number of classes changes later, when the data are known
    for each in (ours["objective"], theirs["objective"]):
        each.pop("weighting")
        each.pop("times", None)  # what counts how much may change: no weight of the model depends on it
    changed = next((part for part in (*KEPT, "first_stage") if ours[part] != theirs[part]), None)
    if changed is not None:
        raise SpecError(f"{changed} differs from that of {start.name}; a model that is fine-tuned stays as it is")


def _leave_ports(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Take out of two plain denoisers what differs when one is taught what the other was not."""
    both = {each["kind"] for each in ours["conditioners"]} & {each["kind"] for each in theirs["conditioners"]}
    for part in (ours, theirs):
        part["conditioners"] = [each for kind in sorted(both) for each in part["conditioners"] if each["kind"] == kind]
        for port in PORTS:
            part["network"].pop(port, None)


def class_names(stored: StoredModel, named: Sequence[str]) -> tuple[str, ...]:
    """The classes of a model, then those of a data set that it does not know; without names, numbers stand for them."""
    spec = _class_spec(cast("ModelSpec", stored.spec))
    known = stored.names.classes or (() if spec is None else tuple(str(number) for number in range(spec.classes)))
    return (*known, *(name for name in named if name not in known))


def begin_with(model: LatentDiffusion, stored: StoredModel) -> None:
    """Put a model's weights and scale into one that may have more classes, or other ports (`fitted`).

    New classes begin like no class at all.
    """
    before = cast("ModelSpec", stored.spec)
    old, new = _class_spec(before), _class_spec(model.spec)
    state = dict(stored.state)
    if old is not None and new is not None:
        state[LABELS] = _with_rows(state[LABELS], old=old, new=new)
    model.scale = torch.empty_like(state["scale"], device=model.scale.device)
    model.load_state_dict(state if model.spec.fields == before.fields else fitted(model, state, before=before))


def _with_rows(table: Tensor, *, old: ClassSpec, new: ClassSpec) -> Tensor:
    """The embedding of more classes; a null class after the last stays after the last."""
    last = table[old.classes :]
    begun = table[: old.classes].mean(0) if old.null is None else table[old.null]
    return torch.cat([table[: old.classes], begun.expand(new.classes - old.classes, -1), last])


def _class_spec(spec: ModelSpec) -> ClassSpec | None:
    return next((each for each in spec.conditioners if isinstance(each, ClassSpec)), None)


def _whole(stored: StoredModel, *, name: str) -> ModelSpec:
    if not isinstance(stored.spec, ModelSpec):
        raise SpecError(f"{name}: a first stage alone has no denoiser to fine-tune; use it with --first-stage")
    return stored.spec


def _check_undistilled(stored: StoredModel, *, name: str) -> None:
    """A model of few steps says where paths end; it has no paths of its own, and other training would undo it."""
    match stored.card:
        case {"distill": {}, "start": {"name": teacher}}:
            raise SpecError(
                f"{name} is distilled from {teacher} and draws in few steps, which more training would undo; take "
                f"{teacher} instead, and distill what comes of it (--distill)"
            )
        case _:
            pass


def _spoiling(stored: StoredModel, fields: AbstractSet[str]) -> dict[str, object]:
    """How pictures for these fields were made small or given holes when the model learnt, as far as its card tells."""
    match stored.card:
        case {"data": {**known}}:
            return {key: known[key] for field, key in SPOILT.items() if field in fields and key in known}
        case _:
            return {}


def _sampling(stored: StoredModel) -> dict[str, object]:
    """How the model is sampled, as far as its card tells."""
    match stored.card:
        case {"sample": {**known}}:
            return {key: known[key] for key in ("solver", "eta", "steps", "guidance", "match") if key in known}
        case _:
            return {}
