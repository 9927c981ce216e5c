"""Networks and decoders run by OpenVINO (`pip install 'darkroom[openvino]'`), for each shape they are asked with.

What was converted is kept in `$DARKROOM_CACHE/openvino`, by the hash of weights and spec, so that it is done once.
"""

import copy
import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final, TypeAlias, final

import torch
from torch import Tensor, nn

from darkroom.autoencoder.model import FirstStage, Pixels
from darkroom.autoencoder.preview import Preview
from darkroom.core.compute import Compute
from darkroom.core.conditions import Conditions
from darkroom.core.errors import InputError
from darkroom.core.fetch import cache
from darkroom.core.hashes import weights_hash
from darkroom.core.record import atomic_folder
from darkroom.core.shapes import Images, Latent, Time
from darkroom.network.unet import UNet

PRECISIONS: Final = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}
Ask: TypeAlias = Callable[..., Tensor]  # a module, or a copy of it, and what it is given
PORTS: Final = ("tokens", "planes")
FOLDER: Final = "openvino"
_FORMAT: Final = 2  # of what is kept; another number makes it anew


@final
class OpenVINO:
    """Forms that OpenVINO runs on a processor; `InputError` without the package, or for another device."""

    name: ClassVar = "openvino"

    def __init__(self, compute: Compute) -> None:
        if compute.device.type != "cpu":
            raise InputError(f"engine openvino is for processors, and the device is {compute.device.type}; use eager")
        self.library = _library()
        self.compute = compute

    def network(self, module: UNet) -> Callable[[Latent, Time, Conditions], Latent]:
        """A network, called as the module is; it answers in the type of x.

        What times become is the module's own: rounded to bfloat16, neighbouring ones are the same, and waves of them
        anything.
        """
        forms = _Forms(self, module, kind="network")

        def run(x: Latent, t: Time, conditions: Conditions) -> Latent:
            module.check(x, conditions)
            filled = {name: each for name in PORTS if (each := getattr(conditions, name)) is not None}

            def ask(whole: UNet, x: Tensor, embedding: Tensor, *ports: Tensor) -> Tensor:
                return whole.answer(x, Conditions(**dict(zip(filled, ports, strict=True))), embedding=embedding)

            given = [x, module.embed(t, conditions), *filled.values()]
            return forms(ask, [each.float() for each in given], ports=tuple(filled)).to(x)

        return run

    def decode(self, module: FirstStage | Preview) -> Callable[[Latent], Images]:
        """A decoder; what has no weights is left as it is."""
        if isinstance(module, Pixels):
            return module.decode
        forms = _Forms(self, module, kind="decoder")
        return lambda latents: forms(lambda whole, given: whole.decode(given), [latents.float()])


@final
class _Forms:
    """A module converted and compiled, for each way of asking it."""

    def __init__(self, engine: OpenVINO, module: Any, *, kind: str) -> None:
        self.engine, self.kind, self.module = engine, kind, module
        self.known = f"{json.dumps(module.spec.plain(), sort_keys=True)} {weights_hash(module.state_dict().items())}"
        self.compiled: dict[str, Any] = {}

    def __call__(self, ask: Ask, tensors: Sequence[Tensor], *, ports: Sequence[str] = ()) -> Tensor:
        shapes = " ".join([*ports, *(f"{tuple(each.shape)} {each.dtype}" for each in tensors)])
        if shapes not in self.compiled:
            self.compiled[shapes] = self._compile(ask, tensors, shapes=shapes)
        answer = self.compiled[shapes]([each.detach().cpu().contiguous().numpy() for each in tensors])[0]
        return torch.from_numpy(answer.copy())

    def _compile(self, ask: Ask, tensors: Sequence[Tensor], *, shapes: str) -> Any:
        library, dtype = self.engine.library, self.engine.compute.dtype
        versions = f"{_FORMAT} {library.__version__} {torch.__version__}"
        key = f"{versions} {self.kind} {self.known} {shapes}"
        folder = cache(FOLDER) / hashlib.sha256(key.encode()).hexdigest()[:24]
        if not folder.is_dir():
            with atomic_folder(folder) as place:
                asked = _Asked(_in_float32(self.module), ask)
                library.save_model(_converted(library, asked, tensors), place / "form.xml", compress_to_fp16=False)
        options = {
            "INFERENCE_PRECISION_HINT": PRECISIONS[dtype],
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
            "CACHE_DIR": str(folder / PRECISIONS[dtype]),  # it takes what was compiled for another one, and answers NaN
        }
        return library.compile_model(folder / "form.xml", "CPU", options)


def _converted(library: Any, asked: "_Asked", tensors: Sequence[Tensor]) -> Any:
    """OpenVINO's form of a module, with the shapes of these tensors."""
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        example = tuple(each.detach().contiguous() for each in tensors)
        return library.convert_model(asked.eval(), example_input=example, input=[list(each.shape) for each in tensors])


def _in_float32(module: nn.Module) -> nn.Module:
    """The module, or a copy where its weights are narrower: OpenVINO itself rounds to what it computes in."""
    whole = all(each.dtype == torch.float32 for each in module.parameters())
    return module if whole else copy.deepcopy(module).float()


@final
class _Asked(nn.Module):
    """A module, and how it is asked."""

    def __init__(self, module: nn.Module, ask: Ask) -> None:
        super().__init__()
        self.module, self.ask = module, ask

    def forward(self, *tensors: Tensor) -> Tensor:
        """What the module answers."""
        return self.ask(self.module, *tensors)


def _library() -> Any:
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  (else an import is told to its makers)
    try:
        import openvino  # noqa: PLC0415  (an extra)
    except ImportError:
        raise InputError("engine openvino needs the package openvino; pip install 'darkroom[openvino]'") from None
    return openvino
