"""What a figure is quoted with: which model it is of."""

from darkroom.checkpoint.store import spec_hash
from darkroom.core.hashes import weights_hash
from darkroom.tasks.model import Model


def about(model: Model) -> dict[str, str]:
    """A whole model by name, spec, weights and the type it computes in."""
    return {
        "name": model.name,
        "spec_hash": spec_hash(model.spec),
        "weights_hash": weights_hash(model.diffusion.state_dict().items()),
        "precision": str(model.compute.dtype).removeprefix("torch."),
    }
