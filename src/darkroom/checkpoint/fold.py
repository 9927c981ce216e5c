"""The factor on latents as part of the first stage, for formats that have no word for it."""

from dataclasses import replace

import torch
from einops import rearrange
from jaxtyping import Float64
from torch import Tensor

from darkroom.autoencoder.bottleneck import KLSpec, VQSpec
from darkroom.autoencoder.model import AutoencoderSpec
from darkroom.checkpoint.store import FIRST_STAGE, StoredModel
from darkroom.core.errors import ModelFileError
from darkroom.diffusion.model import ModelSpec

TO, FROM, CODES = (f"{FIRST_STAGE}{name}" for name in ("to_latent", "from_latent", "codebook.codes.weight"))


def with_scale_one(stored: StoredModel) -> StoredModel:
    """The same model with latents in the denoiser's units throughout: z = s E(x) is made by its last 1 x 1 convolution.

    The mean's rows of that convolution are multiplied by s, the log-variance's get 2 log s, the decoder's first one is
    divided by s, and so is everything that the two convolutions share: codes are multiplied by s. Exact but for
    rounding. `ModelFileError` for a scale per channel of a codebook, whose nearest codes would be others.
    """
    spec = stored.spec
    assert isinstance(spec, ModelSpec)
    assert isinstance(spec.first_stage, AutoencoderSpec)
    channels, bottleneck = spec.first_stage.latent_channels, spec.first_stage.bottleneck
    scale = stored.state["scale"].double()
    if scale.ndim and isinstance(bottleneck, VQSpec):
        raise ModelFileError("a scale for each channel changes which codes are nearest; the codebook cannot take it in")
    factors = scale.expand(channels).clone()
    state = {name: tensor.double() for name, tensor in stored.state.items() if name.startswith((TO, FROM, CODES))}
    state[f"{TO}.weight"] = _rows(state[f"{TO}.weight"], factors)
    state[f"{TO}.bias"] = _rows(state[f"{TO}.bias"], factors)
    if isinstance(bottleneck, KLSpec):
        state[f"{TO}.bias"][channels:] += 2 * factors.abs().log()
    state[f"{FROM}.weight"] = state[f"{FROM}.weight"] / rearrange(factors, "c -> c 1 1")
    if CODES in state:
        state[CODES] = state[CODES] * factors
    whole = {**stored.state, **{name: tensor.float() for name, tensor in state.items()}, "scale": torch.tensor(1.0)}
    return replace(stored, spec=spec.model_copy(update={"scale": 1.0}), state=whole, latents=None)


def _rows(values: Float64[Tensor, "n ..."], factors: Float64[Tensor, " c"]) -> Float64[Tensor, "n ..."]:
    """With the first c rows multiplied by their factors."""
    made = values.clone()
    count = len(factors)
    made[:count] *= factors.reshape(count, *[1] * (values.ndim - 1))
    return made
