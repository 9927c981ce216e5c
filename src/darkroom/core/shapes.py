"""Shape types in one place: b batch, c channels, h w height and width, l tokens, d width."""

from typing import TypeAlias

from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

Images: TypeAlias = Float[Tensor, "b channels height width"]  # pixels in [-1, 1]; axes named apart from latents
Mask: TypeAlias = Float[Tensor, "b 1 mask_height mask_width"]  # 1: paint here, else 0; of any size
Bytes: TypeAlias = UInt8[Tensor, "b channels height width"]  # pixels in 0..255, as pictures are kept
Latent: TypeAlias = Float[Tensor, "b c h w"]  # the denoiser's units (scale applied)
Time: TypeAlias = Float[Tensor, " b"] | Int[Tensor, " b"]  # a time per sample: integer if discrete
Tokens: TypeAlias = Float[Tensor, "b l d"]
WindowTokens: TypeAlias = Float[Tensor, "b n l d"]  # a set for each of n windows that a picture is drawn in
Vector: TypeAlias = Float[Tensor, "b e"]
Ids: TypeAlias = Int[Tensor, "b l"]
Labels: TypeAlias = Int[Tensor, " b"]
PerSample: TypeAlias = Float[Tensor, " b"]
Choice: TypeAlias = Bool[Tensor, " b"]
Number: TypeAlias = float | int  # where callers write 3 for 3.0: checked under pytest, an int is no float
