"""What the API answers: the shapes that its OpenAPI description shows."""

import json
from typing import Any, final

from darkroom.conditioning.boxes import BoxesSpec
from darkroom.conditioning.conditioner import ConditionerSpec
from darkroom.conditioning.label import ClassSpec
from darkroom.conditioning.layout import LayoutSpec, LayoutTokensSpec
from darkroom.conditioning.spatial import MapSpec
from darkroom.core.spec import Spec
from darkroom.serve.engine import Engine
from darkroom.serve.shelf import Offer
from darkroom.serve.store import Job, State
from darkroom.tasks.fields import task_of


@final
class PictureView(Spec):
    """A finished picture: its place in the job, where it is, and its note, which says how it was made."""

    place: int
    url: str
    note: dict[str, Any]


@final
class JobView(Spec):
    """A job. asked: what came, the seed filled in, without pictures · ahead: jobs that get their turn before ·
    progress: share of its steps that are done · created, started, ended: seconds since 1970 · error: why it failed."""

    id: str
    number: int
    state: State
    model: str
    asked: dict[str, Any]
    total: int
    progress: float
    ahead: int | None = None
    created: float
    started: float | None = None
    ended: float | None = None
    error: str | None = None
    pictures: tuple[PictureView, ...] = ()


@final
class JobsView(Spec):
    """Jobs, the newest first. next: give it as `before` to see older ones."""

    jobs: tuple[JobView, ...]
    next: int | None = None


@final
class ModelView(Spec):
    """A model on offer, in the shape of OpenAI's. fields: what steers it · guided: of these, what guidance leads by;
    several may have a scale each · counts: of classes by field (label, objects, map), numbers from 0 where they have no
    names · size: height and width it was trained on · multiple: that sides of pictures are multiples of · spec_hash: as
    the notes of its pictures have it."""

    id: str
    object: str = "model"
    created: int = 0
    owned_by: str = "darkroom"
    task: str
    fields: tuple[str, ...]
    guided: tuple[str, ...] = ()
    counts: dict[str, int]
    size: tuple[int, int]
    multiple: int
    classes: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    map_classes: tuple[str, ...] = ()
    spec_hash: str | None = None
    defaults: dict[str, Any]
    loaded: bool


@final
class ModelsView(Spec):
    """The models on offer, the default first."""

    object: str = "list"
    data: tuple[ModelView, ...]


@final
class ImageView(Spec):
    """A picture in the shape of OpenAI's: in base64, or where it is."""

    b64_json: str | None = None
    url: str | None = None
    revised_prompt: str | None = None


@final
class ImagesView(Spec):
    """Pictures in the shape of OpenAI's; job and seed are ours."""

    created: int
    data: tuple[ImageView, ...]
    job: str
    seed: int


@final
class Said(Spec):
    """What went wrong, in one sentence; code: for programs."""

    message: str
    type: str
    param: str | None = None
    code: str


@final
class ErrorView(Spec):
    """An error in the shape of OpenAI's."""

    error: Said


def job_view(engine: Engine, job: Job) -> JobView:
    """A job as it stands now."""
    asked = json.loads(job.asked)
    shares = {"done": 1.0, "running": engine.progress(job.id)}
    return JobView(
        id=job.id,
        number=job.number,
        state=job.state,
        model=job.model,
        asked={**asked["ask"], "seed": asked["seed"]},
        total=job.total,
        progress=shares.get(job.state, 0.0),
        ahead=engine.ahead(job.id) if job.state == "queued" else None,
        created=job.created,
        started=job.started,
        ended=job.ended,
        error=job.why,
        pictures=tuple(
            PictureView(place=place, url=picture_url(job.id, place), note=note)
            for place, note in engine.store.notes(job.id).items()
        ),
    )


def picture_url(id: str, place: int) -> str:
    """Where a picture is, from the root of the server."""
    return f"/v1/jobs/{id}/pictures/{place}"


def model_view(offer: Offer, *, loaded: bool) -> ModelView:
    """A model on offer."""
    spec, names = offer.outline.spec, offer.outline.names
    known = offer.outline.card.get("sample", {})
    return ModelView(
        id=offer.name,
        task=task_of(spec),
        fields=spec.fields,
        guided=tuple(each.field for each in spec.conditioners if each.drop > 0),
        counts={each.field: count for each in spec.conditioners if (count := _count(each)) is not None},
        size=(spec.image_size, spec.image_size),
        multiple=spec.size_multiple,
        classes=names.classes,
        categories=names.categories,
        map_classes=names.map_classes,
        spec_hash=offer.outline.card.get("spec_hash"),
        defaults=known if isinstance(known, dict) else {},
        loaded=loaded,
    )


def _count(spec: ConditionerSpec) -> int | None:
    """Of the classes that it tells apart; None where it tells none."""
    match spec:
        case ClassSpec() | MapSpec():
            return spec.classes
        case BoxesSpec():
            return spec.categories
        case LayoutSpec(scheme=LayoutTokensSpec(categories=categories)):
            return categories
        case _:
            return None


def schema_of(kind: type[Spec]) -> dict[str, Any]:
    """The JSON schema of a spec in one piece, for descriptions have their definitions elsewhere."""
    schema = kind.model_json_schema()
    definitions = schema.pop("$defs", {})

    def whole(part: Any) -> Any:
        match part:
            case {"$ref": str(name)}:
                return whole(definitions[name.rpartition("/")[2]])
            case {**keys}:
                return {key: whole(value) for key, value in keys.items()}
            case [*parts]:
                return [whole(each) for each in parts]
            case _:
                return part

    return whole(schema)
