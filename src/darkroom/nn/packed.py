"""Layers that keep their weights as the kernels read them, for networks that are asked many times and seldom change.

Under autocast every call casts the weights again, and oneDNN, which computes on processors, lays them out again. A
packed layer does both once, when it is first asked without gradients. Attention asks one product instead of three for
its queries, keys and values, and keeps keys and values of what it attends to as long as that stays the same, as the
conditions of a picture do from step to step. With gradients a layer is what it was; it has the same parameters, and
what is kept is made anew when they change.
"""

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from darkroom.nn.attention import Attention, attend, by_head, together
from darkroom.nn.resample import Upsample
from darkroom.nn.transformer import GatedFeedForward

M = TypeVar("M", bound=nn.Module)
Layer: TypeAlias = nn.Conv2d | nn.Linear
# Along one side, a kernel of three weights covers only two values of the map before doubling. For the first and for the
# second place of a doubled pair: which of the weights fall on the one value, and which on the other.
_FALLS: Final = (((1, 0, 0), (0, 1, 1)), ((1, 1, 0), (0, 0, 1)))
_PHASES_HOW: Final = ([1, 1], [1, 1], [1, 1], 1)  # padding, stride, dilation, groups
# In a layer's __dict__: neither parameters nor buffers, and never copied.
_KEPT: Final = "_kept"
_VALUE: Final = "_kept_value"
_GATE: Final = "_kept_gate"
_SEEN: Final = "_seen"


def pack(module: M) -> M:
    """Turn the convolutions, linear layers and attention of a module into packed ones, in place; answers the module."""
    for name, child in module.named_children():
        pack(child)
        match child:
            case nn.Conv2d() if type(child) is nn.Conv2d and child.padding_mode == "zeros":
                setattr(module, name, _as(PackedConv2d, child))
            case nn.Linear() if type(child) is nn.Linear:
                setattr(module, name, _as(PackedLinear, child))
            case Attention() if type(child) is Attention:
                setattr(module, name, _as(PackedAttention, child))
            case Upsample() if type(child) is Upsample:
                setattr(module, name, _as(PackedUpsample, child))
            case GatedFeedForward() if type(child) is GatedFeedForward:
                setattr(module, name, _as(PackedFeedForward, child))
            case _:
                pass
    return module


def _as(kind: type[M], layer: nn.Module) -> M:
    """The layer as an object of a packed class, with the same parameters, hooks and settings."""
    made = kind.__new__(kind)
    made.__dict__.update(layer.__dict__)
    return made


@final
class PackedConv2d(nn.Conv2d):
    """A convolution, whose weights lie ready after the first call without gradients."""

    def forward(self, input: Tensor) -> Tensor:
        """(b, c, h, w) to (b, k, h', w')."""
        dtype = _drawing_type(self, input)
        if dtype is None:
            return super().forward(input)
        x = input.to(dtype)
        if self._is_product() and x.device.type == "cpu":
            weight, bias = _ready(self, [self], dtype, lay_out=torch.ops.mkldnn._reorder_linear_weight, of=_matrix)
            places = x.movedim(-3, -1).contiguous()
            return torch.ops.mkldnn._linear_pointwise(places, weight, bias, "none", [], "").movedim(-1, -3)
        weight, bias = _ready(self, [self], dtype, lay_out=self._laid_out)
        if not weight.is_mkldnn:
            return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)
        return torch.ops.mkldnn._convolution_pointwise(x, weight, bias, *self._how(), "none", [], "")

    def _laid_out(self, weight: Tensor) -> Tensor:
        weight = weight.contiguous(memory_format=torch.channels_last)
        return torch.ops.mkldnn._reorder_convolution_weight(weight, *self._how(), _size(self.in_channels))

    def _is_product(self) -> bool:
        """Is it 1 x 1? Taken as a convolution and not as a product, 2,560 channels of 4 x 4 cost oneDNN 93 ms."""
        alone = ((1, 1), (1, 1), (0, 0), 1)
        return (self.kernel_size, self.stride, self.padding, self.groups) == alone

    def _how(self) -> tuple[Any, ...]:
        return self.padding, self.stride, self.dilation, self.groups

    def __getstate__(self) -> dict[str, Any]:
        return _without_kept(self)


def _matrix(weight: Float[Tensor, "k c 1 1"]) -> Float[Tensor, "k c"]:
    return weight.flatten(1)


@final
class PackedUpsample(Upsample):
    """Doubling and its convolution (`nn.resample.Upsample`) at once, without the doubled map.

    Of a doubled map, the 3 x 3 cells under a kernel are 2 x 2 values. Which of them count twice depends on the place in
    the doubled square, so there is a kernel of 2 x 2 for each of its four places: 4 products a value instead of 9.
    """

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h2 w2"]:
        """(b, c, h, w) to (b, k, 2h, 2w)."""
        dtype = _drawing_type(self.conv, x)
        if dtype is None:
            return super().forward(x)
        x = x.to(dtype)
        weight, bias = _ready(self, [self.conv], dtype, lay_out=_reorder_phases, of=_phases)
        bias = None if bias is None else bias.repeat(4)
        if weight.is_mkldnn:
            made = torch.ops.mkldnn._convolution_pointwise(x, weight, bias, *_PHASES_HOW, "none", [], "")
        else:
            made = F.conv2d(x, weight, bias, padding=1)
        (b, _, height, width), k = x.shape, made.shape[1] // 4
        size, last = (b, k, 2 * height, 2 * width), torch.channels_last
        whole = torch.empty(size, dtype=made.dtype, device=made.device, memory_format=last)
        for phase, part in enumerate(made.split(k, dim=1)):
            down, across = divmod(phase, 2)
            whole[:, :, down::2, across::2] = part[:, :, down : down + height, across : across + width]
        return whole

    def __getstate__(self) -> dict[str, Any]:
        return _without_kept(self)


def _phases(weight: Float[Tensor, "k c 3 3"]) -> Float[Tensor, "k4 c 2 2"]:
    """The four kernels, one under another: of the upper left, upper right, lower left and lower right place."""
    falls = torch.tensor(_FALLS, dtype=weight.dtype, device=weight.device)
    kernels = torch.einsum("apu, bqv, kcuv -> abkcpq", falls, falls, weight)
    return kernels.flatten(0, 2)


def _reorder_phases(weight: Tensor) -> Tensor:
    weight = weight.contiguous(memory_format=torch.channels_last)
    return torch.ops.mkldnn._reorder_convolution_weight(weight, *_PHASES_HOW, _size(weight.shape[1]))


def _size(channels: int) -> list[int]:
    """The size that oneDNN chooses a layout for: always the same, so that answers do not depend on earlier calls."""
    return [2, channels, 16, 16]


@final
class PackedLinear(nn.Linear):
    """A linear layer, whose weights lie ready after the first call without gradients."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., d) to (..., k)."""
        dtype = _drawing_type(self, input)
        return super().forward(input) if dtype is None else _product(self, [self], input.to(dtype))

    def __getstate__(self) -> dict[str, Any]:
        return _without_kept(self)


@final
@dataclass(frozen=True)
class _Seen:
    """Keys and values of what was attended to last."""

    context: Callable[[], Tensor | None]  # a weak reference
    made_of: tuple[Any, ...]
    key_value: Tensor


@final
class PackedAttention(Attention):
    """Attention (`nn.attention.Attention`) with one product where it had two or three."""

    def forward(
        self, x: Float[Tensor, "b n d"], context: Float[Tensor, "b l k"] | None = None
    ) -> Float[Tensor, "b n d"]:
        """The sequence attending to `context`, or to itself."""
        dtype = _drawing_type(self.query, x)
        if dtype is None:
            return super().forward(x, context)
        x = x.to(dtype)
        if context is None:
            q, k, v = _product(self, [self.query, self.key, self.value], x).chunk(3, dim=-1)
        else:
            q, (k, v) = self.query(x), self._of(context, dtype).chunk(2, dim=-1)
        q, k, v = (by_head(each, self.heads) for each in (q, k, v))
        return self.out(together(attend(q, k=k, v=v, causal=self.causal)))

    def _of(self, context: Tensor, dtype: torch.dtype) -> Tensor:
        """Keys and values of a context, side by side."""
        layers = [self.key, self.value]
        made_of = (context._version, *_made_of(layers, dtype)) if not context.is_inference() else ()
        seen = self.__dict__.get(_SEEN)
        if made_of and seen is not None and seen.context() is context and seen.made_of == made_of:
            return seen.key_value
        made = _product(self, layers, context.to(dtype))
        self.__dict__[_SEEN] = _Seen(weakref.ref(context), made_of, made)
        return made

    def __getstate__(self) -> dict[str, Any]:
        return _without_kept(self)


@final
class PackedFeedForward(GatedFeedForward):
    """The gated feed-forward (`nn.transformer`), with GELU and the product by the gate fused into its two products."""

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """(b, n, d) to the same."""
        dtype = _drawing_type(self.expand, x)
        if dtype is None or x.device.type != "cpu":
            return super().forward(x)
        x = x.to(dtype)
        (value, value_bias), (gate, gate_bias) = self._half(dtype, _VALUE), self._half(dtype, _GATE)
        bent = torch.ops.mkldnn._linear_pointwise(x, gate, gate_bias, "gelu", [], "none")
        return self.out(torch.ops.mkldnn._linear_pointwise.binary(x, bent, value, value_bias, "mul"))

    def _half(self, dtype: torch.dtype, name: str) -> tuple[Tensor, Tensor | None]:
        """Weights and biases of the value, or of the gate."""
        half = self.out.in_features
        rows = slice(half) if name == _VALUE else slice(half, None)
        return _ready(self, [self.expand], dtype, lay_out=torch.ops.mkldnn._reorder_linear_weight, rows=rows, name=name)

    def __getstate__(self) -> dict[str, Any]:
        return _without_kept(self)


def _product(holder: nn.Module, layers: Sequence[nn.Linear], x: Tensor) -> Tensor:
    """The answers of several linear layers to one input, side by side, by one product."""
    weight, bias = _ready(holder, layers, x.dtype, lay_out=torch.ops.mkldnn._reorder_linear_weight)
    if not weight.is_mkldnn:
        return F.linear(x, weight, bias)
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def _drawing_type(layer: Layer, x: Tensor) -> torch.dtype | None:
    """The type that a call computes in; None where it carries gradients, or there are no kernels for packed weights."""
    if torch.is_grad_enabled() and (x.requires_grad or layer.weight.requires_grad):
        return None
    kind = x.device.type
    if kind not in ("cpu", "cuda"):
        return None
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else layer.weight.dtype
    return dtype if kind == "cuda" or _onednn_takes(dtype) else None


def _onednn_takes(dtype: torch.dtype) -> bool:
    if not torch.backends.mkldnn.is_available():
        return False
    match dtype:
        case torch.float32:
            return True
        case torch.bfloat16:
            return torch.ops.mkldnn._is_mkldnn_bf16_supported()
        case torch.float16:
            return torch.ops.mkldnn._is_mkldnn_fp16_supported()
        case _:
            return False


def _made_of(layers: Sequence[Layer], dtype: torch.dtype) -> tuple[Any, ...]:
    """A key that changes when the layers' weights do: their addresses, and versions where tensors have them."""
    tensors = [each for layer in layers for each in (layer.weight, layer.bias) if each is not None]
    return (dtype, *((each.data_ptr(), 0 if each.is_inference() else each._version) for each in tensors))


def _ready(
    holder: nn.Module,
    layers: Sequence[Layer],
    dtype: torch.dtype,
    *,
    lay_out: Callable[[Tensor], Tensor],
    of: Callable[[Tensor], Tensor] = torch.Tensor.detach,
    rows: slice = slice(None),
    name: str = _KEPT,
) -> tuple[Tensor, Tensor | None]:
    """The weights and biases of layers, one under another, laid out for the kernel; made anew only when they change.

    They are kept in the holder's __dict__ under `name`. of: what is made of each weight first · rows: which of its rows
    are kept.
    """
    made_of = _made_of(layers, dtype)
    kept = holder.__dict__.get(name)
    if kept is None or kept[0] != made_of:
        weight = _joined([of(layer.weight.detach())[rows] for layer in layers], dtype)
        biases = [layer.bias.detach()[rows] for layer in layers if layer.bias is not None]
        weight = lay_out(weight) if weight.device.type == "cpu" else weight
        kept = holder.__dict__[name] = (made_of, weight, _joined(biases, dtype) if biases else None)
    return kept[1], kept[2]


def _joined(tensors: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    cast = [each.detach().to(dtype) for each in tensors]
    return cast[0] if len(cast) == 1 else torch.cat(cast)


def _without_kept(layer: nn.Module) -> dict[str, Any]:
    """The state for copies and pickles, without what is kept: oneDNN's layouts cannot be copied."""
    return {name: value for name, value in layer.__dict__.items() if name not in (_KEPT, _VALUE, _GATE, _SEEN)}
