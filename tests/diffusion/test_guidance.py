"""Guidance identities."""

import pytest
import torch

from darkroom.core.conditions import Conditions
from darkroom.core.errors import InputError
from darkroom.diffusion.denoiser import Denoiser
from darkroom.diffusion.guidance import (
    Guided,
    GuidedByEach,
    GuidedByMatch,
    GuidedByScore,
    LimitedGuidance,
    RescaledGuidance,
)
from darkroom.diffusion.walk import sample_latents
from darkroom.process.prediction import build_prediction
from darkroom.process.schedule import CosineFlowSchedule, LinearSpec, build_schedule, coefficients

SCHEDULE = build_schedule(LinearSpec(steps=100))
X = torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
T = torch.tensor([40, 40])
ASKED = Conditions(vector=torch.tensor([[1.0], [2.0]]).double())
NULL = Conditions(vector=torch.zeros(2, 1).double())


class Affine:
    """A network whose answer depends on x and on the condition; counts its calls and their batch sizes."""

    def __init__(self) -> None:
        self.batches = []

    def __call__(self, x_t, t, conditions):
        self.batches.append(len(x_t))
        gain = conditions.vector[:, :, None, None]
        return x_t.sin() * (1 + 0.3 * gain) + 0.1 * gain


def denoiser(prediction="eps", schedule=SCHEDULE):
    network = Affine()
    return network, Denoiser(network, schedule, build_prediction(prediction))


def test_guidance_extrapolates_from_null_in_one_doubled_batch():
    network, plain = denoiser()
    guided = Guided(plain, null=NULL, scale=3.0)(X, T, ASKED)
    assert network.batches == [4]
    nothing, asked = plain(X, T, NULL), plain(X, T, ASKED)
    torch.testing.assert_close(guided, nothing + 3 * (asked - nothing))


@pytest.mark.parametrize(("scale", "expected", "batch"), [(1.0, ASKED, 2), (0.0, NULL, 4)])
def test_scale_one_is_the_condition_alone_and_zero_is_null(scale, expected, batch):
    network, plain = denoiser()
    guided = Guided(plain, null=NULL, scale=scale)(X, T, ASKED)
    assert network.batches == [batch]
    torch.testing.assert_close(guided, plain(X, T, expected))


@pytest.mark.parametrize("name", ["eps", "v"])
def test_guiding_x0_is_guiding_the_prediction(name):
    network, plain = denoiser(name)
    guided = Guided(plain, null=NULL, scale=4.0)(X, T, ASKED)
    nothing, asked = network(X, T, NULL), network(X, T, ASKED)
    alpha, sigma = coefficients(SCHEDULE, T, like=X)
    expected = plain.prediction.x0(nothing + 4 * (asked - nothing), X, alpha=alpha, sigma=sigma)
    torch.testing.assert_close(guided, expected)


def test_rescaled_guidance_gives_back_the_contrast_of_the_condition():
    _, plain = denoiser()
    asked = plain(X, T, ASKED)
    full = RescaledGuidance(plain, null=NULL, scale=6.0, amount=1.0)(X, T, ASKED)
    torch.testing.assert_close(full.std(dim=(1, 2, 3)), asked.std(dim=(1, 2, 3)))
    none = RescaledGuidance(plain, null=NULL, scale=6.0, amount=0.0)(X, T, ASKED)
    torch.testing.assert_close(none, Guided(plain, null=NULL, scale=6.0)(X, T, ASKED))
    half = RescaledGuidance(plain, null=NULL, scale=6.0, amount=0.5)(X, T, ASKED)
    torch.testing.assert_close(half, (full + none) / 2)


@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (2, 1, 1, 1)])
def test_what_has_no_contrast_is_not_rescaled(shape):
    """A fresh network that predicts x0 answers the same everywhere, and a latent of one number has no contrast."""

    def flat(x_t, t, conditions):
        return conditions.vector[:, :, None, None].expand(len(x_t), *shape[1:])

    found = RescaledGuidance(flat, null=NULL, scale=3.0, amount=0.7)(X.new_zeros(shape), T, ASKED)
    torch.testing.assert_close(found, flat(X.new_zeros(shape), T, ASKED) * 3)


def test_limited_guidance_acts_between_two_noise_levels_only():
    schedule = CosineFlowSchedule()
    network, plain = denoiser("v", schedule)
    guided = Guided(plain, null=NULL, scale=3.0)
    limited = LimitedGuidance(plain, guided=guided, schedule=schedule, low=0.5, high=2.0)
    for level, wrapped in [(0.4, plain), (0.6, guided), (1.9, guided), (2.1, plain)]:
        t = torch.full((2,), level, dtype=torch.float64).atan() * 2 / torch.pi
        network.batches.clear()
        found = limited(X, t, ASKED)
        assert network.batches == [4 if wrapped is guided else 2]
        torch.testing.assert_close(found, wrapped(X, t, ASKED))


def test_limited_guidance_decides_for_each_sample():
    schedule = CosineFlowSchedule()
    _, plain = denoiser("v", schedule)
    guided = Guided(plain, null=NULL, scale=3.0)
    t = torch.tensor([0.2, 0.5], dtype=torch.float64)
    found = LimitedGuidance(plain, guided=guided, schedule=schedule, low=0.5)(X, t, ASKED)
    torch.testing.assert_close(found[0], plain(X, t, ASKED)[0])
    torch.testing.assert_close(found[1], guided(X, t, ASKED)[1])


class Model:
    schedule, prediction = SCHEDULE, build_prediction("v")

    def __init__(self) -> None:
        self.network = Affine()


@pytest.mark.parametrize(
    ("arguments", "batches"),
    [
        ({"guidance": 1.0}, [2, 2, 2]),
        ({"guidance": 3.0}, [4, 4, 4]),
        ({"guidance": 3.0, "guidance_rescale": 0.7}, [4, 4, 4]),
        ({"guidance": 3.0, "guidance_interval": (0.0, 0.0)}, [2, 2, 2]),
        ({"guidance": 3.0, "guidance_interval": (0.5, 0.6)}, [2, 4, 2]),
    ],
)
def test_the_walk_guides_as_it_is_asked(arguments, batches):
    model = Model()
    times = torch.tensor([99, 45, 9])
    levels = SCHEDULE.sigma(times) / SCHEDULE.alpha(times)
    if arguments.get("guidance_interval") == (0.5, 0.6):
        arguments = arguments | {"guidance_interval": (levels[2].item(), levels[1].item())}
    sample_latents(model, X, conditions=ASKED, null=NULL, times=times, **arguments)
    assert model.network.batches == batches


@pytest.mark.parametrize("amount", [-0.1, 1.5, float("nan")])
def test_contrast_is_not_brought_back_further_than_wholly(amount):
    with pytest.raises(InputError, match=r"guidance_rescale=.* does not fit"):
        sample_latents(Model(), X, conditions=ASKED, null=NULL, guidance=3.0, guidance_rescale=amount, steps=2)


def test_scales_of_one_each_are_the_conditions_alone():
    network, plain = denoiser()
    half = Conditions(vector=0.5 * ASKED.vector)
    guided = GuidedByEach(plain, steps=(NULL, half), scales=(1.0, 1.0))(X, T, ASKED)
    assert network.batches == [6]
    torch.testing.assert_close(guided, plain(X, T, ASKED))


def test_each_scale_weighs_what_its_condition_adds():
    _, plain = denoiser()
    half = Conditions(vector=0.5 * ASKED.vector)
    guided = GuidedByEach(plain, steps=(NULL, half), scales=(3.0, 0.5))(X, T, ASKED)
    nothing, some, all_ = (plain(X, T, each) for each in (NULL, half, ASKED))
    torch.testing.assert_close(guided, nothing + 3 * (some - nothing) + 0.5 * (all_ - some))
    several = sample_latents(
        Parts(plain), X, conditions=ASKED, null=[NULL, half], guidance=[2.0, 2.0], steps=4, times="trailing"
    )
    once = sample_latents(Parts(plain), X, conditions=ASKED, null=NULL, guidance=2.0, steps=4, times="trailing")
    torch.testing.assert_close(several, once)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (Guided, {"null": NULL}),
        (RescaledGuidance, {"null": NULL}),
        (GuidedByEach, {"steps": (NULL,), "scales": (2.0,)}),
    ],
)
def test_conditions_are_joined_once_and_not_at_every_step(kind, options):
    seen = []

    def network(x_t, t, conditions):
        seen.append(conditions.vector)
        return x_t

    guided = kind(Denoiser(network, SCHEDULE, build_prediction("eps")), **options)
    for _ in range(3):
        guided(X, T, ASKED)
    assert all(each is seen[0] for each in seen)
    guided(X, T, Conditions(vector=ASKED.vector + 1))
    assert seen[-1] is not seen[0]
    torch.testing.assert_close(seen[-1][-2:], ASKED.vector + 1)


@pytest.mark.parametrize(("null", "guidance"), [(NULL, [2.0, 2.0]), ([NULL], [2.0, 2.0]), ([NULL], 2.0), (None, 2.0)])
def test_scales_need_as_many_nulls(null, guidance):
    _, plain = denoiser()
    with pytest.raises(InputError, match="null"):
        sample_latents(Parts(plain), X, conditions=ASKED, null=null, guidance=guidance, steps=2)


def test_a_match_stays_where_the_residual_turns_before_the_probe() -> None:
    """3 + sin(100 x) / 50 falls from 0 on and has risen at -0.05; a line through both leads 8 deviations upwards."""

    def residual(x0):
        return 3 + torch.sin(100 * x0) / 50

    def denoise(x_t, t, conditions):
        return torch.zeros_like(x_t)

    assert not GuidedByMatch(denoise, residual=residual)(X, T, Conditions()).any()


def test_a_score_moves_a_gaussian_to_its_posterior():
    """For x0 ~ N(0, v) and y = x0 + N(0, s^2): with the exact log p(y | x_t), x0 becomes E[x0 | x_t, y]."""
    variance, noise, y = 0.5, 0.3, 1.2
    schedule = CosineFlowSchedule()
    t = torch.tensor([0.4, 0.7], dtype=torch.float64)
    alpha, sigma = coefficients(schedule, t, like=X)
    gain = alpha * variance / (alpha**2 * variance + sigma**2)
    left = variance - gain * alpha * variance  # of x0 given x_t

    def denoise(x_t, t, conditions):
        return gain * x_t

    def score(x0, t):
        return -((y - x0) ** 2 / (2 * (left + noise**2))).sum(dim=(1, 2, 3))

    moved = GuidedByScore(denoise, score=score, schedule=schedule)(X, t, Conditions())
    precision = 1 / left + 1 / noise**2
    torch.testing.assert_close(moved, (gain * X / left + y / noise**2) / precision)
    assert not moved.requires_grad


@pytest.mark.parametrize(("weight", "left"), [(1.0, 0.0), (0.5, 0.5)])
def test_a_match_of_block_means_is_reached_in_one_step(weight, left):
    """Rows of a mean over blocks are orthogonal and of one length: the steepest step is the least that fits."""
    wanted = torch.tensor([[0.5, -0.25]], dtype=torch.float64)

    def residual(x0):
        return x0.reshape(2, 3, 2, 8).mean(dim=(1, 3)) - wanted

    x0 = X.cos()
    moved = GuidedByMatch(lambda x_t, t, conditions: x_t.cos(), residual=residual, weight=weight)(X, T, ASKED)
    torch.testing.assert_close(residual(moved), left * residual(x0), atol=1e-12, rtol=1e-9)
    change = (moved - x0).reshape(2, 3, 2, 8)
    torch.testing.assert_close(change, change.mean(dim=(1, 3), keepdim=True).expand_as(change))
    assert not moved.requires_grad


def test_a_match_goes_as_far_as_the_residual_falls():
    """Where it ends, the residual of a linear measurement is level along the way it came."""
    rows = torch.randn(5, 48, dtype=torch.float64, generator=torch.Generator().manual_seed(3))

    def residual(x0):
        return x0.flatten(1) @ rows.T - 1

    moved = GuidedByMatch(lambda x_t, t, conditions: x_t, residual=residual)(X, T, ASKED)
    way = (moved - X).flatten(1)
    level = (residual(moved) * (way @ rows.T)).sum(1)
    torch.testing.assert_close(level, torch.zeros(2, dtype=torch.float64), atol=1e-9, rtol=0)
    assert (residual(moved).norm(dim=1) < residual(X).norm(dim=1)).all()


def test_what_matches_already_stays():
    moved = GuidedByMatch(lambda x_t, t, conditions: x_t, residual=lambda x0: x0 - X)(X, T, ASKED)
    torch.testing.assert_close(moved, X)


class Parts:
    """A denoiser's parts, as `walk` takes them."""

    def __init__(self, plain):
        self.network, self.schedule, self.prediction = plain.network, plain.schedule, plain.prediction
