"""What a figure is quoted with: which model it is of, and whether there were few pictures."""

from typing import Final

from darkroom.checkpoint.store import spec_hash
from darkroom.core.hashes import weights_hash
from darkroom.tasks.model import Model

FEW: Final = 10_000  # pictures below which a Fréchet distance is mostly its bias


def few(count: int) -> tuple[str, ...]:
    """Sentences that belong to a Fréchet distance of so many pictures (of the smaller set): a warning, or none."""
    if count >= FEW:
        return ()
    return (
        f"Fréchet distances of {count} pictures are biased upwards, by the same amount for equal counts; kernel "
        "distances are not",
    )


def about(model: Model) -> dict[str, str]:
    """A whole model by name, spec, weights and the type it computes in."""
    return {
        "name": model.name,
        "spec_hash": spec_hash(model.spec),
        "weights_hash": weights_hash(model.diffusion.state_dict().items()),
        "precision": str(model.compute.dtype).removeprefix("torch."),
    }
