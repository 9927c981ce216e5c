"""Studies by name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, final

from darkroom.core.errors import SpecError, did_you_mean
from darkroom.studies import compression, guidance, inpainting, solvers, speed, superres
from darkroom.studies.cells import Quality, Study
from darkroom.studies.wishes import Wishes, wishes


@final
@dataclass(frozen=True)
class Kind:
    """A study that may be asked for. takes: words of `Wishes` · of: what it is about, `pictures` or a `model`."""

    build: Callable[[str, Wishes], Study]
    takes: Sequence[str]
    of: str = "pictures"


STUDIES: Final[Mapping[str, Kind]] = {
    "compression": Kind(compression.compression, compression.TAKES),
    "speed": Kind(speed.speed, speed.TAKES),
    "super-resolution": Kind(superres.superres, superres.TAKES),
    "inpainting": Kind(inpainting.inpainting, inpainting.TAKES),
    "guidance": Kind(guidance.guidance, guidance.TAKES, of="model"),
    "solvers": Kind(solvers.solvers, solvers.TAKES, of="model"),
}


def build_study(name: str, of: str, *, changes: Sequence[str] = (), features: Sequence[str] = ()) -> Study:
    """The study of that name of pictures or of a model; `SpecError` in one sentence for what does not fit.

    changes: `key=value` · features: networks that sets are seen through, as of `darkroom evaluate`.
    """
    if name not in STUDIES:
        raise SpecError(f"unknown study {name!r}{did_you_mean(name, STUDIES)}; there are {', '.join(STUDIES)}")
    kind = STUDIES[name]
    asked = wishes(changes, study=name, takes=kind.takes)
    words = asked.model_dump(mode="json", exclude_unset=True)
    study = replace(kind.build(of, asked), asked={"of": of, **words})
    if features and not any(isinstance(cell, Quality) for cell in study.cells):
        raise SpecError(f"study {name} compares no pictures, so nothing would look through --features; leave it away")
    return replace(study, features=tuple(dict.fromkeys(features))) if features else study
