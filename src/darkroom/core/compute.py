"""Where and in which precision work is done; a value passed in, never a global switch."""

import contextlib
import os
import shutil
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast, final

import torch
from torch import Tensor, nn

from darkroom.core.errors import InputError

M = TypeVar("M", bound=nn.Module)
Precision = Literal["auto", "float32", "bfloat16", "float16", "float64"]
WHOLE_TYPES = (torch.float32, torch.float64)  # in which nothing is cast on the way
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}


@final
@dataclass(frozen=True)
class Compute:
    """A device and the type that convolutions and matrix products run in.

    Weights stay float32; but float64, which is for checks, is the type of everything.
    """

    device: torch.device
    dtype: torch.dtype = torch.float32

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """A context in which eligible operations run in `dtype`; float32 means float32, on CUDA not TF32 either."""
        if self.dtype in WHOLE_TYPES:
            return _without_tf32() if self.device.type == "cuda" else contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def gradients(self) -> contextlib.AbstractContextManager[object]:
        """A context for `backward()`: float32 means float32 there too, and other types follow the forward pass."""
        return self.autocast() if self.dtype in WHOLE_TYPES else contextlib.nullcontext()

    def same_draws(self) -> contextlib.AbstractContextManager[object]:
        """A context whose draws are made again after it: torch's own generators are put back where they stood."""
        return torch.random.fork_rng([] if self.device.type == "cpu" else [self.device], device_type=self.device.type)

    def place(self, tensor: Tensor) -> Tensor:
        """The tensor on this device; pictures and latents (4-d, floating) in channels_last."""
        image_like = tensor.ndim == 4 and tensor.is_floating_point()
        layout = torch.channels_last if image_like else torch.preserve_format
        dtype = torch.float64 if self.dtype == torch.float64 and tensor.is_floating_point() else tensor.dtype
        return tensor.to(self.device, dtype, memory_format=layout, non_blocking=True)

    def host(self, module: M) -> M:
        """The module moved to this device, kernels in channels_last."""
        cast("Any", module).to(self.device, memory_format=torch.channels_last)
        if self.dtype == torch.float64:
            module.double()
        return module


def wide(tensor: Tensor) -> Tensor:
    """Numbers in float32 at least, for sums that would lose too much in fewer bits."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def lacks_memory(error: BaseException) -> bool:
    """Does an error of a computation mean too little memory? That of the CPU's allocator has no class of its own."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in ("alloc", "overf"))


def _without_tf32() -> contextlib.AbstractContextManager[object]:
    """cuDNN as it is set, but without TF32; a setting that is not named here would be switched off."""
    cudnn = cast("Any", torch.backends.cudnn)
    return cudnn.flags(
        enabled=cudnn.enabled, benchmark=cudnn.benchmark, deterministic=cudnn.deterministic, allow_tf32=False
    )


def choose_device(name: str = "auto") -> torch.device:
    """The named device, or the best present: cuda, then mps, then cpu."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps") or (device.type != "cuda" and device.index):
        raise InputError(f"device {name!r} is unknown; auto, cpu, cuda, cuda:1 and mps fit")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"device {name!r} was asked for and {torch.cuda.device_count()} CUDA devices are present; use --device cpu"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise InputError(f"device {name!r} was asked for and MPS is not present; use --device cpu")
    return device


def native_bfloat16(device: torch.device) -> bool:
    """Does this device compute in bfloat16 itself? Where it does not, bfloat16 is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        features = torch.cpu.get_capabilities()
        return bool(features.get("avx512_bf16") or features.get("amx_bf16") or features.get("bf16"))
    return False


def faster(compute: Compute) -> str | None:
    """A sentence about what would draw faster on this machine, at the price of a little precision; None: nothing."""
    if compute.dtype != torch.float32 or not native_bfloat16(compute.device):
        return None
    return "--precision bfloat16 takes about half the time on this machine, and pictures differ a little"


def missing_compiler() -> str | None:
    """The C++ compilers, which `torch.compile` needs, that were looked for in vain; None where one is there."""
    compilers = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++"]
    return None if any(map(shutil.which, compilers)) else " or ".join(compilers)


def training_compute(device: str = "auto", precision: Precision = "auto") -> Compute:
    """Device and precision for training: bfloat16 where it is native, unless said otherwise.

    `InputError` for float16 elsewhere than on CUDA.
    """
    place = choose_device(device)
    if precision == "float16" and place.type != "cuda":
        raise InputError(f"train.precision float16 is for CUDA devices, this one is {place.type}; float32 fits here")
    if precision == "auto":
        return Compute(place, torch.bfloat16 if native_bfloat16(place) else torch.float32)
    return Compute(place, _DTYPES[precision])


def sampling_compute(device: str = "auto", precision: str = "auto") -> Compute:
    """Device and precision for inference: float32 unless asked otherwise, so that numbers repeat."""
    place = choose_device(device)
    if precision == "auto":
        return Compute(place)
    names = [name for name in _DTYPES if name != "float64"]
    if precision not in names:
        raise InputError(f"precision {precision!r} is unknown; auto, {', '.join(names)} fit")
    return Compute(place, _DTYPES[precision])
