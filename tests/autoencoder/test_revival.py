"""Dead codes come back where latents are; living ones are left alone."""

import pytest
import torch
from torch import Tensor

from darkroom.autoencoder.bottleneck import Codebook, VQSpec
from darkroom.autoencoder.revival import Revival, RevivalSpec

SPEC = RevivalSpec(below=0.1, memory=0.5, until=0.5)


def latents(seed: int, width: int = 3) -> Tensor:
    return torch.randn(4, width, 4, 4, generator=torch.Generator().manual_seed(seed))


def quantise(codes: Tensor, values: Tensor) -> Tensor:
    flat = values.permute(0, 2, 3, 1).reshape(-1, values.shape[1])
    return torch.cdist(flat, codes).argmin(1).reshape(values.shape[0], *values.shape[2:])


def begun(codes: int = 8, steps: int = 100) -> tuple[Revival, Tensor]:
    revival, table = Revival(SPEC, codes=codes, steps=steps, seed=3), torch.zeros(codes, 3)
    revival.watch(latents(0), quantise(table, latents(0)))
    revival.revive(table)
    return revival, table


def test_the_codebook_begins_as_latents_of_the_first_batch() -> None:
    _, table = begun()
    pool = latents(0).permute(0, 2, 3, 1).reshape(-1, 3)
    assert (table[:, None] == pool).all(-1).any(1).all()
    assert len(table.unique(dim=0)) == 8  # no latent twice


def test_more_codes_than_latents_still_begin_somewhere() -> None:
    _, table = begun(codes=100)
    assert len(table.unique(dim=0)) == 64


def test_only_codes_out_of_use_move() -> None:
    revival, table = begun()
    table[5] = 1000.0  # nothing comes near it any more
    before, dead = table.clone(), torch.empty(0)
    for step in range(1, 8):
        revival.watch(latents(step), quantise(table, latents(step)))
        dead = revival.revive(table)
        if len(dead):
            break
    assert dead.tolist() == [5]
    assert table[5].abs().max() < 10
    assert torch.equal(table[:5], before[:5])
    assert torch.equal(table[6:], before[6:])
    assert revival.use[5] == 1


def test_after_its_share_of_the_steps_codes_stay() -> None:
    revival, table = begun(steps=4)  # until step 2
    table[5] = 1000.0
    for step in range(1, 12):
        revival.watch(latents(step), quantise(table, latents(step)))
        revival.revive(table)
    assert table[5, 0] == 1000


def test_the_choice_is_a_function_of_seed_and_step() -> None:
    assert torch.equal(begun()[1], begun()[1])
    other = Revival(SPEC, codes=8, steps=100, seed=4)
    table = torch.zeros(8, 3)
    other.watch(latents(0), quantise(table, latents(0)))
    other.revive(table)
    assert not torch.equal(table, begun()[1])


def test_perplexity_follows_use() -> None:
    revival = Revival(SPEC, codes=4, steps=10, seed=0)
    indices = torch.tensor([[[0, 1], [2, 3]]])
    for _ in range(20):
        revival.watch(latents(0)[:1, :, :2, :2], indices)
    assert float(revival.perplexity) == pytest.approx(4, rel=1e-4)
    for _ in range(40):
        revival.watch(latents(0)[:1, :, :2, :2], torch.zeros(1, 2, 2, dtype=torch.long))
    assert float(revival.perplexity) == pytest.approx(1, abs=1e-3)


def test_perplexity_does_not_hide_a_collapse_that_revival_fights() -> None:
    """Every latent on one code: the others are moved again and again, and one code is in use all the same."""
    revival, table = Revival(SPEC, codes=32, steps=1000, seed=0), torch.zeros(32, 3)
    for step in range(30):
        revival.watch(latents(step), torch.zeros(4, 4, 4, dtype=torch.long))
        revival.revive(table)
    assert float(revival.perplexity) == pytest.approx(1, abs=1e-3)
    assert int(revival.revived) > 32


@pytest.mark.parametrize("width", [1, 2, 3, 4, 8, 16])
def test_a_collapsed_codebook_of_any_width_recovers(width: int) -> None:
    """Data in many clusters and a codebook far away from all of them: without revival one code takes everything."""
    centres = torch.randn(64, width, generator=torch.Generator().manual_seed(0)) * 5
    book = Codebook(VQSpec(codes=64), width=width)
    with torch.no_grad():
        book.codes.weight.add_(50.0)

    def batch(seed: int) -> Tensor:
        draw = torch.Generator().manual_seed(seed)
        rows = torch.randint(64, (256,), generator=draw)
        values = centres[rows] + 0.01 * torch.randn(256, width, generator=draw)
        return values.reshape(1, 16, 16, width).permute(0, 3, 1, 2)

    assert len(book.nearest(batch(0)).unique()) < 8
    revival = Revival(RevivalSpec(memory=0.8), codes=64, steps=200, seed=0)
    for step in range(60):
        values = batch(step)
        revival.watch(values, book.nearest(values))
        revival.revive(book.codes.weight)
    assert len(book.nearest(batch(999)).unique()) > 32
