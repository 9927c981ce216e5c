"""Posterior, codebook and perplexity against closed forms and brute force."""

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence
from torch.utils._python_dispatch import TorchDispatchMode

from darkroom.autoencoder import bottleneck
from darkroom.autoencoder.bottleneck import Codebook, Posterior, VQSpec, perplexity


def latents(*, grad: bool = False) -> torch.Tensor:
    return torch.randn(3, 2, 4, 5, generator=torch.Generator().manual_seed(1)).requires_grad_(grad)


def codebook(codes: int = 7, **options) -> Codebook:
    torch.manual_seed(0)
    made = Codebook(VQSpec(codes=codes, **options), width=2)
    torch.nn.init.normal_(made.codes.weight)
    return made


def test_kl_is_that_of_torch_summed_per_picture() -> None:
    mean, log_variance = latents(), 2 * latents().flip(0)
    found = Posterior(mean, log_variance).kl()
    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).sum(dim=(1, 2, 3))
    torch.testing.assert_close(found, expected)
    assert Posterior(torch.zeros(2, 1, 2, 2), torch.zeros(2, 1, 2, 2)).kl().tolist() == [0, 0]


def test_kl_of_rounded_moments_is_not_rounded_again() -> None:
    mean = torch.randn(2, 4, 32, 32, generator=torch.Generator().manual_seed(0)).bfloat16()
    found = Posterior(mean, (mean / 2 - 6).bfloat16()).kl()
    torch.testing.assert_close(found, Posterior(mean.double(), (mean / 2 - 6).double()).kl().float())


def test_a_draw_is_mean_plus_noise_times_deviation() -> None:
    posterior = Posterior(latents(), torch.full((3, 2, 4, 5), 2.0))
    noise = latents().flip(1)
    torch.testing.assert_close(posterior.sample(noise), latents() + torch.tensor(1.0).exp() * noise)
    assert torch.equal(posterior.sample(torch.zeros_like(noise)), posterior.mean)


def test_moments_are_the_two_halves_and_the_second_is_clamped() -> None:
    moments = torch.tensor([1.0, -100.0, -100.0, 100.0]).view(1, 4, 1, 1)
    posterior = Posterior.from_moments(moments)
    assert posterior.mean.flatten().tolist() == [1, -100]
    assert posterior.log_variance.flatten().tolist() == [-30, 20]
    assert torch.isfinite(posterior.kl()).all()


def test_nearest_is_what_brute_force_finds() -> None:
    book, z = codebook(), latents()
    found = book.nearest(z)
    flat = z.permute(0, 2, 3, 1).reshape(-1, 2)
    every = [min(range(7), key=lambda k: float((point - book.codes.weight[k]).detach().norm())) for point in flat]
    assert found.flatten().tolist() == every
    assert torch.equal(book.nearest(book.look_up(found)), found)
    quantized, indices, _ = book(z)
    assert torch.equal(indices, found)
    torch.testing.assert_close(quantized, book.look_up(found))


class Largest(TorchDispatchMode):
    """The most numbers that an operation answered."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        answer = func(*args, **(kwargs or {}))
        self.numbers = max(self.numbers, answer.numel() if isinstance(answer, Tensor) else 0)
        return answer


def test_the_nearest_codes_of_many_positions_need_no_more_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    book, z = codebook(), latents().repeat(1, 1, 4, 1)
    whole = book.nearest(z)
    monkeypatch.setattr(bottleneck, "AT_ONCE", 300)
    with Largest() as seen:
        found = book.nearest(z)
    assert torch.equal(found, whole)
    assert seen.numbers <= max(300, z.numel())


def test_the_gradient_passes_straight_through() -> None:
    book, z = codebook(), latents(grad=True)
    wanted = latents().flip(2)
    (book(z)[0] * wanted).sum().backward()
    assert torch.equal(z.grad, wanted)
    assert book.codes.weight.grad is None or not book.codes.weight.grad.any()


@pytest.mark.parametrize(("commitment", "to_codes", "to_latents"), [("legacy", 0.25, 1.0), ("corrected", 1.0, 0.25)])
def test_each_term_moves_its_own_side(commitment: str, to_codes: float, to_latents: float) -> None:
    """d/dz is 2 w (z - q) / n and d/dq is 2 w (q - z) / n; beta stands on one of the sides, by name."""
    book, z = codebook(commitment=commitment, beta=0.25), latents(grad=True)
    _, indices, loss = book(z)
    loss.sum().backward()
    difference = (z - book.look_up(indices)).detach()
    each = z[0].numel()
    torch.testing.assert_close(z.grad, 2 * to_latents * difference / each)
    expected = torch.zeros(7, 2).index_add(
        0, indices.flatten(), (-2 * to_codes * difference / each).permute(0, 2, 3, 1).reshape(-1, 2)
    )
    torch.testing.assert_close(book.codes.weight.grad, expected)
    torch.testing.assert_close(loss, (1.25 * difference.square()).mean(dim=(1, 2, 3)))


def test_codes_start_small() -> None:
    torch.manual_seed(0)
    fresh = Codebook(VQSpec(codes=100), width=3).codes.weight
    assert 0.005 < fresh.abs().max() <= 0.01


@pytest.mark.parametrize(
    ("indices", "expected"),
    [([3, 3, 3, 3], 1.0), ([0, 1, 2, 3], 4.0), ([0, 0, 1, 1], 2.0), ([0, 0, 0, 1], 4 / 3**0.75)],
)
def test_perplexity_counts_codes_in_use(indices: list[int], expected: float) -> None:
    assert perplexity(torch.tensor(indices).view(2, 2), 8) == pytest.approx(expected)


def test_perplexity_lies_between_one_and_the_codebook() -> None:
    for seed in range(20):
        drawn = torch.randint(5, (30,), generator=torch.Generator().manual_seed(seed)) ** 2 // 5
        assert 1 <= perplexity(drawn, 5) <= 5
