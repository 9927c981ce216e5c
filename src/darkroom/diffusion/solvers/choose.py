"""Solvers by name."""

from darkroom.core.errors import InputError, did_you_mean
from darkroom.diffusion.solvers.ddim import Ddim
from darkroom.diffusion.solvers.ddpm import Ddpm
from darkroom.diffusion.solvers.dpmpp_2m import DpmPlusPlus2M
from darkroom.diffusion.solvers.euler import Euler
from darkroom.diffusion.solvers.heun import Heun
from darkroom.diffusion.solvers.lcm import Lcm
from darkroom.diffusion.solvers.plms import Plms
from darkroom.diffusion.solvers.solver import Solver
from darkroom.diffusion.solvers.unipc import UniPc

SOLVERS = ("ddim", "ddpm", "ddpm-large", "plms", "euler", "heun", "dpm++2m", "unipc", "lcm")
ALIASES = {"dpmpp-2m": "dpm++2m"}
TAKE_ETA = ("ddim", "dpm++2m")
TAKE_TEMPERATURE = (*TAKE_ETA, "ddpm", "ddpm-large", "lcm")


def build_solver(name: str, *, eta: float = 0.0, temperature: float = 1.0) -> Solver:
    """The solver of that name ("dpmpp-2m" is "dpm++2m"; "ddpm-large" has the larger variance).

    eta: share of ancestral noise, for ddim and dpm++2m · temperature: factor of the noise, for those, ddpm and lcm.
    `InputError` for an unknown name, or an eta or temperature that the solver does not have.
    """
    name = ALIASES.get(name, name)
    _check_noise(name, eta=eta, temperature=temperature)
    match name:
        case "ddim":
            solver: Solver = Ddim(eta=eta, temperature=temperature)
        case "ddpm":
            solver = Ddpm(temperature=temperature)
        case "ddpm-large":
            solver = Ddpm(variance="large", temperature=temperature)
        case "plms":
            solver = Plms()
        case "euler":
            solver = Euler()
        case "heun":
            solver = Heun()
        case "dpm++2m":
            solver = DpmPlusPlus2M(eta=eta, temperature=temperature)
        case "unipc":
            solver = UniPc()
        case "lcm":
            solver = Lcm(temperature=temperature)
        case _:
            raise InputError(f"unknown solver {name!r}{did_you_mean(name, SOLVERS)}")
    return solver


def _check_noise(name: str, *, eta: float, temperature: float) -> None:
    if eta < 0 or temperature < 0:
        raise InputError(f"eta={eta:g}, temperature={temperature:g}: an amount of noise cannot be negative")
    if eta != 0 and name in SOLVERS and name not in TAKE_ETA:
        raise InputError(f"eta={eta:g} was given and solver {name!r} has none; 'ddim' and 'dpm++2m' take an eta")
    if temperature != 1 and name in SOLVERS and name not in TAKE_TEMPERATURE:
        raise InputError(f"temperature={temperature:g} was given and solver {name!r} adds no noise; 'ddim' does")
