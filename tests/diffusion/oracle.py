"""Closed-form denoisers: what a perfect network would answer for a Gaussian or a mixture of them."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from darkroom.core.conditions import Conditions
from darkroom.process.prediction import X0, Prediction
from darkroom.process.schedule import Schedule, coefficients


@dataclass(frozen=True)
class Mixture:
    """Weighted diagonal Gaussians over (c, h, w): weights (k,), means and variances (k, c, h, w)."""

    weights: Tensor
    means: Tensor
    variances: Tensor

    def denoise(self, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """E[x0 | x_t] in closed form."""
        x, a, s = x_t[:, None], alpha[:, None], sigma[:, None]
        spread = a**2 * self.variances + s**2
        offset = x - a * self.means
        log_density = -0.5 * (offset**2 / spread + spread.log()).sum(dim=(2, 3, 4)) + self.weights.log()
        share = log_density.softmax(dim=1)[..., None, None, None]
        return (share * (self.means + a * self.variances / spread * offset)).sum(dim=1)

    def mean(self) -> Tensor:
        return torch.einsum("k,kd->d", self.weights, self.means.flatten(1))

    def covariance(self) -> Tensor:
        means = self.means.flatten(1)
        second = torch.einsum("k,kd,ke->de", self.weights, means, means)
        second += torch.diag(torch.einsum("k,kd->d", self.weights, self.variances.flatten(1)))
        return second - torch.outer(self.mean(), self.mean())


@dataclass(frozen=True)
class Perfect:
    """A model whose network is exact; it answers in any parameterisation."""

    mixture: Mixture
    schedule: Schedule
    prediction: Prediction = field(default_factory=X0)

    def network(self, x_t: Tensor, t: Tensor, conditions: Conditions) -> Tensor:
        alpha, sigma = coefficients(self.schedule, t, like=x_t)
        x0 = self.mixture.denoise(x_t, alpha, sigma)
        return self.prediction.target(x0, (x_t - alpha * x0) / sigma, alpha=alpha, sigma=sigma)


@dataclass(frozen=True)
class Consistent:
    """A model whose x0 is where the path from x_t ends; of one Gaussian that is known in closed form.

    A path keeps x_t's place in the spread of its time: (x_t - alpha mean) / sqrt(alpha^2 variance + sigma^2).
    """

    mixture: Mixture
    schedule: Schedule
    prediction: Prediction = field(default_factory=X0)

    def network(self, x_t: Tensor, t: Tensor, conditions: Conditions) -> Tensor:
        alpha, sigma = coefficients(self.schedule, t, like=x_t)
        mean, variance = self.mixture.means, self.mixture.variances
        x0 = mean + (variance / (alpha**2 * variance + sigma**2)).sqrt() * (x_t - alpha * mean)
        return self.prediction.target(x0, (x_t - alpha * x0) / sigma, alpha=alpha, sigma=sigma)


def gaussian() -> Mixture:
    """One Gaussian whose dimensions have unlike means and variances."""
    mean = torch.tensor([0.5, -1.0, 2.0, 0.0], dtype=torch.float64).reshape(1, 4, 1, 1)
    variance = torch.tensor([0.04, 0.25, 1.5, 4.0], dtype=torch.float64).reshape(1, 4, 1, 1)
    return Mixture(torch.ones(1, dtype=torch.float64), mean, variance)


def three_lumps() -> Mixture:
    """Three lumps in the plane, of unlike weight, place and width."""
    weights = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    means = torch.tensor([[-1.0, 0.0], [1.0, 1.0], [0.5, -1.5]], dtype=torch.float64).reshape(3, 2, 1, 1)
    widths = torch.tensor([[0.3, 0.2], [0.2, 0.4], [0.25, 0.25]], dtype=torch.float64).reshape(3, 2, 1, 1)
    return Mixture(weights, means, widths**2)
