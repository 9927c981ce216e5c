"""The cache of latents: moments as encoded, draws per sample, and no stale table."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from darkroom.core.errors import DataError, SpecError
from darkroom.core.pictures import from_bytes
from darkroom.core.seeds import normal
from darkroom.data.latents import FILE, LatentTable, cache_key, cache_latents
from darkroom.data.loader import still_batches
from darkroom.data.sources import ShapesSource
from darkroom.data.transforms import TransformSpec, mirrored

SOURCE = ShapesSource(side=32, count=9)
SPEC = TransformSpec(size=32, flip=True)


def encode(images: Tensor) -> tuple[Tensor, Tensor]:
    return images[:, :2, ::4, ::4], images[:, 1:, ::4, ::4] - 2


def exact(images: Tensor) -> tuple[Tensor, None]:
    return images[:, :, ::4, ::4], None


def table(folder: Path, *, key: str = "k", spec: TransformSpec = SPEC, **options: object) -> LatentTable:
    return cache_latents(encode, SOURCE, spec=spec, batch_size=4, folder=folder, key=key, **options)


def test_moments_of_pictures_and_mirrors(tmp_path: Path):
    seen: list[tuple[int, int]] = []
    made = table(tmp_path, dtype=torch.float32, progress=lambda done, of: seen.append((done, of)))
    images = from_bytes(torch.cat([batch.images for batch in still_batches(SOURCE, SPEC, batch_size=9)]))
    assert len(made) == 9
    assert seen == [(4, 9), (8, 9), (9, 9)]
    for variant, pictures in enumerate((images, images.flip(-1))):
        assert torch.equal(made.mean[variant], encode(pictures)[0])
        assert made.logvar is not None
        assert torch.equal(made.logvar[variant], encode(pictures)[1])


def test_a_draw_is_a_function_of_seed_and_index(tmp_path: Path):
    made = table(tmp_path)
    rows, indices = [3, 3, 8, 0], [10, 11, 12, 13]
    drawn = made.sample(rows, indices, seed=7, scale=0.5)
    alone = torch.cat([made.sample([row], [at], seed=7, scale=0.5) for row, at in zip(rows, indices, strict=True)])
    assert torch.equal(drawn, alone)
    assert drawn.dtype == torch.float32
    assert made.logvar is not None
    variant = int(mirrored(seed=7, indices=[12])[0])
    noise = normal((2, 8, 8), seed=7, indices=[12], purpose="posterior")[0]
    wanted = made.mean[variant, 8].float() + (made.logvar[variant, 8].float() / 2).exp() * noise
    assert torch.allclose(drawn[2], wanted * 0.5)


def test_a_deterministic_first_stage(tmp_path: Path):
    spec = TransformSpec(size=32)
    made = cache_latents(exact, SOURCE, spec=spec, batch_size=4, folder=tmp_path, key="k")
    again = cache_latents(exact, SOURCE, spec=spec, batch_size=4, folder=tmp_path, key="k")
    assert made.logvar is again.logvar is None
    assert torch.equal(again.sample([2], [5], seed=0), made.mean[0, 2:3].float())


def test_read_again_refused_or_recomputed(tmp_path: Path):
    made = table(tmp_path)
    stamp = (tmp_path / FILE).stat().st_mtime_ns
    again = table(tmp_path)
    assert torch.equal(made.mean, again.mean)
    assert (tmp_path / FILE).stat().st_mtime_ns == stamp
    with pytest.raises(DataError, match="made by another first stage"):
        table(tmp_path, key="other")
    turned = SPEC.model_copy(update={"turn": True})
    with pytest.raises(DataError, match="made by another first stage"):
        table(tmp_path, key="other", spec=turned)
    assert table(tmp_path, key="other", stale="recompute").key == "other"
    (tmp_path / FILE).write_bytes(b"damaged")
    assert torch.equal(table(tmp_path).mean, made.mean)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_keys_tell_first_stage_transform_and_data_apart():
    keys = {
        cache_key("a", source=SOURCE, spec=SPEC),
        cache_key("b", source=SOURCE, spec=SPEC),
        cache_key("a", source=ShapesSource(side=32, count=8), spec=SPEC),
        cache_key("a", source=SOURCE, spec=TransformSpec(size=32)),
    }
    assert len(keys) == 4
    assert cache_key("a", source=SOURCE, spec=SPEC) in keys


@pytest.mark.parametrize("spec", [TransformSpec(size=16, crop="random"), TransformSpec(size=16, scale=(1, 2))])
def test_random_crops_cannot_be_cached(tmp_path: Path, spec: TransformSpec):
    with pytest.raises(SpecError, match="cannot be cached"):
        table(tmp_path, spec=spec)


def test_non_finite_latents_are_named(tmp_path: Path):
    def broken(images: Tensor) -> tuple[Tensor, None]:
        return images * torch.nan, None

    with pytest.raises(DataError, match="non-finite"):
        cache_latents(broken, SOURCE, spec=SPEC, batch_size=4, folder=tmp_path, key="k")
    assert not (tmp_path / FILE).exists()


def test_statistics_are_those_of_draws(tmp_path: Path):
    made = table(tmp_path, dtype=torch.float32)
    found = made.statistics()
    draws = torch.cat([made.sample(list(range(9)), list(range(at, at + 9)), seed=0) for at in range(0, 9000, 9)])
    assert torch.allclose(torch.tensor(found.mean), draws.mean((0, 2, 3)), atol=0.02)
    assert torch.allclose(torch.tensor(found.std), draws.permute(1, 0, 2, 3).flatten(1).std(1), atol=0.02)
    assert abs(found.whole - float(draws.std())) < 0.02
    assert found.pictures == 9
