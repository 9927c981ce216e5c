"""What `speed.py` compares: for each case the same weights in our modules and in those of others."""

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, final

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from darkroom.autoencoder.bottleneck import KLSpec
from darkroom.autoencoder.model import Autoencoder, AutoencoderSpec
from darkroom.checkpoint.diffusers_config import first_stage_config, unet_config
from darkroom.checkpoint.diffusers_keys import first_stage_table, unet_table
from darkroom.checkpoint.keymap import to_original
from darkroom.core.compute import Compute, sampling_compute
from darkroom.core.conditions import Conditions
from darkroom.diffusion.engine import Compiled
from darkroom.diffusion.openvino import OpenVINO
from darkroom.network.unet import UNet, UNetSpec
from darkroom.nn.packed import pack

Inputs: TypeAlias = tuple[Tensor, ...]
Run: TypeAlias = Callable[[Inputs], Tensor]
OURS: Final = "ours bfloat16"
OPENVINO: Final = "ours bfloat16 openvino"
EXACT: Final = "ours float32"
BFLOAT16: Final = torch.bfloat16


@final
@dataclass(frozen=True)
class Case:
    """Sides that answer the same question.

    what: in words · operations: multiplications and additions of one answer, where all sides need as many · inputs: of
    a round, by its number · ours: the side that others are told beside · reference: whose answers are exact; None where
    answers differ because they are meant to · judged: figures of a side's answers, round after round.
    """

    what: str
    operations: int | None
    inputs: Callable[[int], Inputs]
    sides: Mapping[str, Run]
    ours: str = OURS
    reference: str | None = EXACT
    judged: Callable[[Sequence[Tensor]], Mapping[str, float]] = lambda answers: {}


MIDDLE: Final = UNetSpec(
    in_channels=4,
    out_channels=4,
    channels=160,
    multipliers=(1, 2, 4),
    attention=(2, 4),
    heads=8,
    transformer_depth=1,
    context_width=512,
)
LARGE: Final = UNetSpec(
    in_channels=4,
    out_channels=4,
    channels=320,
    multipliers=(1, 2, 4, 4),
    attention=(1, 2, 4),
    heads=8,
    transformer_depth=1,
    context_width=1280,
)
STAGE: Final = AutoencoderSpec(channels=128, multipliers=(1, 2, 4, 4), blocks=2, latent_channels=4, bottleneck=KLSpec())


def step(spec: UNetSpec, sides: Sequence[str] | None, *, side: int, tokens: int = 77, reference: str = EXACT) -> Case:
    """One guided step of one picture: the network on a batch of two."""
    network = filled(UNet(spec)).eval()
    theirs = functools.partial(theirs_network, network)

    def ask(module: nn.Module, inputs: Inputs) -> Tensor:
        x, t, context = inputs
        return module(x, t, encoder_hidden_states=context, return_dict=False)[0]

    def inputs(number: int) -> Inputs:
        dice = torch.Generator().manual_seed(number)
        x = torch.randn(2, spec.in_channels, side, side, generator=dice)
        context = torch.randn(2, tokens, spec.context_width or 1, generator=dice)
        return x, torch.tensor([999 - number] * 2), context

    def ask_ours(module: Any, inputs: Inputs) -> Tensor:
        return module(inputs[0], inputs[1], Conditions(tokens=inputs[2]))

    made = _ours(network, ask_ours) | _diffusers(theirs, ask)
    made[OPENVINO] = lambda: functools.partial(ask_ours, _by_openvino().network(network))
    made["openvino bfloat16"] = lambda: _openvino(
        theirs(), inputs(0), names=("sample", "timestep", "encoder_hidden_states")
    )
    return Case(
        what=f"one guided step: {millions(network)} M parameters, latents of {side} x {side}, batch of 2",
        operations=network_operations(spec, side=side, tokens=tokens),
        inputs=inputs,
        sides=had(made, sides, needed=(OURS, reference)),
        reference=reference,
    )


def large_step(sides: Sequence[str] | None) -> Case:
    """The same of the paper's text model (872 M); of few sides unless others are named, for each holds its weights."""
    theirs = "diffusers float32"
    return step(LARGE, sides or (theirs, "diffusers bfloat16"), side=32, reference=theirs)


def decode(sides: Sequence[str] | None, *, side: int = 256) -> Case:
    """A picture from its latents."""
    stage = filled(Autoencoder(STAGE)).eval()
    theirs = functools.partial(theirs_first_stage, stage)

    def ask(module: nn.Module, inputs: Inputs) -> Tensor:
        return module.decode(inputs[0], return_dict=False)[0]

    def inputs(number: int) -> Inputs:
        shape = (1, STAGE.latent_channels, side // STAGE.factor, side // STAGE.factor)
        return (torch.randn(shape, generator=torch.Generator().manual_seed(number)),)

    made = _ours(stage, lambda module, inputs: module.decode(inputs[0]))
    made |= _diffusers(theirs, ask)
    made[OPENVINO] = lambda: functools.partial(lambda form, inputs: form(inputs[0]), _by_openvino().decode(stage))
    return Case(
        what=f"decoding {side} x {side}, f = {STAGE.factor}, {millions(stage)} M parameters",
        operations=_operations(lambda: Autoencoder(STAGE).to("meta").decode(inputs(0)[0].to("meta"))),
        inputs=inputs,
        sides=had(made, sides),
    )


def _ours(module: nn.Module, ask: Callable[[Any, Inputs], Tensor]) -> dict[str, Callable[[], Run]]:
    """Our module packed in two types, each with weights of its own, and compiled."""

    def packed(dtype: str) -> Run:
        compute = sampling_compute("cpu", dtype)
        return functools.partial(_asked, compute, pack(compute.host(copy.deepcopy(module))), ask)

    def compiled() -> Run:
        compute = sampling_compute("cpu", "bfloat16")
        plain = compute.host(copy.deepcopy(module))
        quick = torch.compile(functools.partial(ask, plain), **Compiled(compute).options)
        return functools.partial(_asked, compute, None, lambda _, inputs: quick(inputs))

    return {
        EXACT: lambda: packed("float32"),
        OURS: lambda: packed("bfloat16"),
        "ours bfloat16 compiled": compiled,
    }


def _by_openvino() -> OpenVINO:
    return OpenVINO(sampling_compute("cpu", "bfloat16"))


def _asked(compute: Compute, module: Any, ask: Callable[[Any, Inputs], Tensor], inputs: Inputs) -> Tensor:
    with compute.autocast():
        return ask(module, tuple(map(compute.place, inputs)))


def theirs_network(network: UNet) -> nn.Module:
    """diffusers' U-Net with the same weights."""
    from diffusers import UNet2DConditionModel  # noqa: PLC0415  (a package that only this needs)

    made = UNet2DConditionModel.from_config(unet_config(network.spec, size=32))
    made.load_state_dict(to_original(unet_table(network.spec), network.state_dict()))
    return made.eval()


def theirs_first_stage(stage: Autoencoder) -> nn.Module:
    """diffusers' first stage with the same weights."""
    from diffusers import AutoencoderKL  # noqa: PLC0415  (a package that only this needs)

    made = AutoencoderKL.from_config(first_stage_config(stage.spec, size=256, scale=1.0))
    made.load_state_dict(to_original(first_stage_table(stage.spec), stage.state_dict()))
    return made.eval()


def _diffusers(
    theirs: Callable[[], nn.Module], ask: Callable[[nn.Module, Inputs], Tensor]
) -> dict[str, Callable[[], Run]]:
    """As it comes, at its best eager, and compiled."""

    def plain() -> Run:
        return functools.partial(ask, theirs())

    def best(*, compiled: bool = False) -> Run:
        module: Any = theirs().to(BFLOAT16, memory_format=torch.channels_last)
        if compiled:
            module.compile()

        def run(inputs: Inputs) -> Tensor:
            cast = (each.to(BFLOAT16) if each.is_floating_point() else each for each in inputs)
            return ask(
                module, tuple(each.to(memory_format=torch.channels_last) if each.ndim == 4 else each for each in cast)
            )

        return run

    return {
        "diffusers float32": plain,
        "diffusers bfloat16": best,
        "diffusers bfloat16 compiled": functools.partial(best, compiled=True),
    }


def _openvino(module: nn.Module, inputs: Inputs, *, names: Sequence[str]) -> Run:
    """The module converted with static shapes."""
    import openvino  # noqa: PLC0415  (a package that only this needs)

    example = dict(zip(names, inputs, strict=True))
    shapes = [(name, list(each.shape)) for name, each in example.items()]
    module.config["return_dict"] = False  # type: ignore[index]
    converted = openvino.convert_model(_Tuple(module), example_input=example, input=shapes)
    compiled = openvino.compile_model(
        converted,
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": "bf16",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        },
    )

    def run(inputs: Inputs) -> Tensor:
        return torch.from_numpy(compiled([each.numpy() for each in inputs])[0].copy())

    return run


@final
class _Tuple(nn.Module):
    """diffusers' U-Net with its answer alone."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor) -> Tensor:
        """(b, c, h, w), (b,), (b, l, d) to (b, c, h, w)."""
        return self.module(sample, timestep, encoder_hidden_states=encoder_hidden_states, return_dict=False)[0]


def had(
    made: Mapping[str, Callable[[], Run]],
    asked: Sequence[str] | None,
    *,
    needed: Sequence[str] = (OURS, EXACT),
    gradients: bool = False,
) -> dict[str, Run]:
    """The sides that can be had here; asked: these alone, and those that are needed."""
    sides: dict[str, Run] = {}
    for name, make in made.items():
        if asked is not None and name not in (*asked, *needed):
            continue
        try:
            sides[name] = make() if gradients else torch.no_grad()(make())
        except ImportError as error:
            print(f"{name} is left out: {error}")
    return sides


def filled(module: nn.Module) -> Any:
    """Random weights everywhere, also where training begins with zeros."""
    torch.manual_seed(0)
    with torch.no_grad():
        for each in module.parameters():
            if each.ndim > 1 and not each.any():
                nn.init.normal_(each, std=0.02)
    return module


def network_operations(spec: UNetSpec, *, side: int, tokens: int) -> int:
    """Of one evaluation on a batch of two."""
    shape = (2, spec.in_channels, side, side)
    with torch.device("meta"):
        network, x, t = UNet(spec), torch.empty(shape), torch.empty(2, dtype=torch.long)
        conditions = Conditions(tokens=torch.empty(2, tokens, spec.context_width or 1))
    return _operations(lambda: network(x, t, conditions))


@torch.no_grad()
def _operations(run: Callable[[], Tensor]) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def millions(module: nn.Module) -> int:
    return round(sum(each.numel() for each in module.parameters()) / 1e6)
