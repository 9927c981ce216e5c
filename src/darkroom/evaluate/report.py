"""What an evaluation answers: figures, and everything that is needed to get them again."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, final

from darkroom.metrics.contributions import Interval

Intervals = Mapping[str, Mapping[str, Interval]]  # by way and measure


@final
@dataclass(frozen=True)
class Figures:
    """What one way of reconstructing pictures is worth; None: not measured, the report's notes say why.

    psnr, psnr_std: dB, mean and deviation over pictures · ssim · l1: mean difference, pictures in [-1, 1] ·
    feature_distance: by the judge · lpips: by the published network · frechet_distance, kernel_distance, precision,
    recall: of the judge's features of originals and reconstructions (rFID and its like, but by our judge) ·
    scenes_right: share of the built-in world's scenes in which the reader still finds every object as it truly is.
    """

    psnr: float
    psnr_std: float
    ssim: float
    l1: float
    feature_distance: float
    lpips: float | None = None
    frechet_distance: float | None = None
    kernel_distance: float | None = None
    precision: float | None = None
    recall: float | None = None
    scenes_right: float | None = None


@final
@dataclass(frozen=True)
class CodeUse:
    """How much of a codebook is used: codes seen at least once, their share, and exp(entropy)."""

    codes: int
    used: int
    share: float
    perplexity: float


@final
@dataclass(frozen=True)
class FirstStageReport:
    """A first stage measured on pictures.

    figures: of the model · bicubic: the same of pictures made smaller and larger again, by factor (`"x4"`) · codes:
    VQ only · protocol: model, data, preprocessing and networks that judge, as JSON values · notes: sentences ·
    intervals: of figures, for cards.
    """

    figures: Figures
    bicubic: Mapping[str, Figures]
    codes: CodeUse | None
    protocol: Mapping[str, Any] = field(repr=False)
    notes: tuple[str, ...] = ()
    intervals: Intervals = field(default_factory=dict, repr=False)

    def plain(self) -> dict[str, Any]:
        """The report as JSON values, without the intervals."""
        values = {**asdict(self), "notes": list(self.notes)}
        return {name: value for name, value in values.items() if name != "intervals"}


@final
@dataclass(frozen=True)
class ConditionsReport:
    """Whether a model does what it is steered to.

    ways: figures by way (`read back`; the model and what takes no model) and by measure · protocol: model, data, how
    pictures were spoilt, the judge and sampling, as JSON values · intervals: of figures, for cards · notes: sentences.
    """

    ways: Mapping[str, Mapping[str, float]]
    protocol: Mapping[str, Any] = field(repr=False)
    notes: tuple[str, ...] = ()
    intervals: Intervals = field(default_factory=dict, repr=False)

    def plain(self) -> dict[str, Any]:
        """The report as JSON values, without the intervals."""
        values = {**asdict(self), "notes": list(self.notes)}
        return {name: value for name, value in values.items() if name != "intervals"}


@final
@dataclass(frozen=True)
class Obedience:
    """What became of captions that name so many things; shares are of the pictures drawn for them.

    obeyed: shows what is named and nothing else, sized and placed as the caption says · shown: likewise, wherever it
    lies · shuffled: obeys the caption of another picture; None where all captions are the same.
    """

    things: int
    prompts: int
    obeyed: float
    shown: float
    shuffled: float | None


@final
@dataclass(frozen=True)
class ObedienceReport:
    """Whether a text model draws what captions of the built-in world say.

    by_things: for one, two and three things · protocol: model, captions and sampling, as JSON values.
    """

    by_things: tuple[Obedience, ...]
    protocol: Mapping[str, Any] = field(repr=False)

    def plain(self) -> dict[str, Any]:
        """The report as JSON values."""
        return asdict(self)
