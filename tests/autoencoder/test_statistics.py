"""The spread of latents, taken in parts, is that of all draws together."""

import pytest
import torch

from darkroom.autoencoder.statistics import LatentStatistics, LatentSums
from darkroom.core.errors import DataError, SpecError
from darkroom.core.spec import parse


def test_sums_in_parts_are_the_moments_of_the_whole() -> None:
    draw = torch.Generator().manual_seed(0)
    mean = torch.randn(10, 3, 4, 5, generator=draw) * torch.tensor([1.0, 2.0, 0.1])[:, None, None] + 3
    logvar = torch.randn(10, 3, 4, 5, generator=draw) - 2
    sums = LatentSums()
    for part in (slice(0, 3), slice(3, 4), slice(4, 10)):
        sums.add(mean[part], logvar[part])
    found = sums.statistics()
    exact = mean.double().permute(1, 0, 2, 3).flatten(1)
    variance = exact.var(1, correction=0) + logvar.double().exp().permute(1, 0, 2, 3).flatten(1).mean(1)
    assert found.mean == pytest.approx(exact.mean(1).tolist())
    assert found.std == pytest.approx(variance.sqrt().tolist())
    second = (mean.double().square() + logvar.double().exp()).mean()
    assert found.whole == pytest.approx(float((second - mean.double().mean() ** 2).sqrt()))
    assert found.pictures == 10


def test_latents_without_a_posterior() -> None:
    sums = LatentSums()
    sums.add(torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1), None)
    assert sums.statistics() == LatentStatistics(mean=(0.0,), std=(1.0,), whole=1.0, pictures=2)


@pytest.mark.parametrize("value", [0.5, float("nan"), float("inf")])
def test_latents_that_say_nothing_are_refused(value: float) -> None:
    sums = LatentSums()
    sums.add(torch.full((2, 1, 2, 2), value), None)
    with pytest.raises(DataError, match="do not vary"):
        sums.statistics()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("place", ["mean", "std", "whole"])
def test_numbers_that_are_not_finite_are_refused(place: str, value: float) -> None:
    values = {"mean": [0.0], "std": [1.0], "whole": 1.0, "pictures": 3}
    values[place] = value if place == "whole" else [value]
    with pytest.raises(SpecError, match=place):
        parse(LatentStatistics, values, where="here")


def test_numbers_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(SpecError, match="do not belong together"):
        parse(LatentStatistics, {"mean": [0.0], "std": [1.0, 1.0], "whole": 1.0, "pictures": 3}, where="here")


def test_the_scale_gives_all_values_unit_deviation_or_every_channel_its_own() -> None:
    draw = torch.Generator().manual_seed(1)
    latents = torch.randn(64, 3, 4, 4, generator=draw) * torch.tensor([0.5, 3.0, 1.0])[:, None, None] + 2
    sums = LatentSums()
    sums.add(latents, None)
    found = sums.statistics()
    torch.testing.assert_close((latents * found.scale()).std(correction=0), torch.tensor(1.0))
    spread = latents * found.scale((1.0, 0.4, 2.0))[:, None, None]
    torch.testing.assert_close(spread.std((0, 2, 3), correction=0), torch.tensor([1.0, 0.4, 2.0]))


def test_a_channel_that_says_nothing_is_not_made_to_shout() -> None:
    silent = LatentStatistics(mean=(0.0, 0.0), std=(2.0, 0.0), whole=1.0, pictures=1)
    torch.testing.assert_close(silent.scale((1.0, 1.0)), torch.tensor([0.5, 100.0]))
