"""What a person asks for, parsed once."""

from collections.abc import Mapping, Sequence
from typing import Any, final

from pydantic import Field

from darkroom.core.spec import Spec, parse


@final
class Request(Spec):
    """Pictures to draw: `count` of each prompt or label (none: of nothing in particular).

    size: (height, width) in pixels · steps, solver, guidance: None for the model's defaults · times: None for the
    model's best grid, else `original`, `original-quad` or `trailing`.
    """

    prompts: tuple[str, ...] = ()
    labels: tuple[int | str, ...] = ()
    negative: str | None = None
    count: int = Field(default=1, gt=0, le=1_000_000)
    seed: int = Field(default=0, ge=0, lt=2**63)
    first: int = Field(default=0, ge=0)
    size: tuple[int, int] | None = None
    solver: str | None = None
    steps: int | None = Field(default=None, gt=0)
    eta: float = Field(default=0.0, ge=0)
    guidance: float | None = None
    guidance_interval: tuple[float, float] | None = None
    guidance_rescale: float = Field(default=0.0, ge=0, le=1)
    times: str | None = None

    @classmethod
    def of(
        cls,
        *,
        prompt: str | Sequence[str] | None = None,
        label: str | int | Sequence[str | int] | None = None,
        size: Sequence[int] | int | None = None,
        others: Mapping[str, Any],
    ) -> "Request":
        """From the looser forms callers use; `others` are fields as they are. `SpecError` for what does not fit."""
        prompts = [prompt] if isinstance(prompt, str) else list(prompt or ())
        labels = [label] if isinstance(label, (str, int)) else list(label or ()) if label is not None else []
        sides = (size, size) if isinstance(size, int) else size
        values = {"prompts": prompts, "labels": labels, "size": sides, **others}
        return parse(cls, values, where="request")

    @property
    def total(self) -> int:
        """Number of pictures."""
        return self.count * max(1, len(self.prompts), len(self.labels))
