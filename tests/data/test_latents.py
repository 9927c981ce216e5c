"""The cache of latents: moments as encoded, draws per sample, files that are mapped, and no stale table."""

from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import Tensor

from darkroom.autoencoder.statistics import LatentSums
from darkroom.core.errors import DataError, SpecError
from darkroom.core.pictures import from_bytes
from darkroom.core.record import read_json, write_json
from darkroom.core.seeds import normal
from darkroom.data import latents
from darkroom.data.latents import INDEX, LatentTable, cache_key, cache_latents
from darkroom.data.loader import still_batches
from darkroom.data.order import Order
from darkroom.data.sources import ShapesSource
from darkroom.data.transforms import TransformSpec, mirrored
from darkroom.recipes.cached import statistics_of
from darkroom.train.denoiser_objective import latent_batches

SOURCE = ShapesSource(side=32, count=9)
SPEC = TransformSpec(size=32, flip=True)
FILES = [f"{number:06}.safetensors" for number in range(3)]
MAPS = Path("/proc/self/maps")


def encode(images: Tensor) -> tuple[Tensor, Tensor]:
    return images[:, :2, ::4, ::4], images[:, 1:, ::4, ::4] - 2


def exact(images: Tensor) -> tuple[Tensor, None]:
    return images[:, :, ::4, ::4], None


def table(folder: Path, *, key: str = "k", spec: TransformSpec = SPEC, **options: object) -> LatentTable:
    return cache_latents(encode, SOURCE, spec=spec, batch_size=4, folder=folder, key=key, **options)


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four pictures to a file, so that there are three."""
    monkeypatch.setattr(latents, "PICTURES", 4)


def cut_short(path: Path) -> None:
    """As a disk that failed; in a new file, for the old one is mapped by whoever has read it."""
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:-1])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_moments_of_pictures_and_mirrors(tmp_path: Path):
    seen: list[tuple[int, int]] = []
    made = table(tmp_path, dtype=torch.float32, progress=lambda done, of: seen.append((done, of)))
    images = from_bytes(torch.cat([batch.images for batch in still_batches(SOURCE, SPEC, batch_size=9)]))
    assert len(made) == 9
    assert seen == [(4, 9), (8, 9), (9, 9)]
    assert made.logvar is not None
    (mean,), (logvar,) = made.mean, made.logvar
    for variant, pictures in enumerate((images, images.flip(-1))):
        assert torch.equal(mean[:, variant], encode(pictures)[0])
        assert torch.equal(logvar[:, variant], encode(pictures)[1])


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
    wanted = made.mean[0][8, variant].float() + (made.logvar[0][8, variant].float() / 2).exp() * noise
    assert torch.allclose(drawn[2], wanted * 0.5)


def test_a_deterministic_first_stage(tmp_path: Path):
    spec = TransformSpec(size=32)
    made = cache_latents(exact, SOURCE, spec=spec, batch_size=4, folder=tmp_path, key="k")
    again = cache_latents(exact, SOURCE, spec=spec, batch_size=4, folder=tmp_path, key="k")
    assert made.logvar is again.logvar is None
    assert torch.equal(again.sample([2], [5], seed=0), made.mean[0][2:3, 0].float())


@pytest.mark.usefixtures("small_files")
def test_batches_from_files_are_those_from_memory(tmp_path: Path):
    """Bit for bit, and so are statistics; in memory they are made here as they were before there were files."""
    found = table(tmp_path)
    assert [len(part) for part in found.mean] == [4, 4, 1]
    images = from_bytes(torch.cat([batch.images for batch in still_batches(SOURCE, SPEC, batch_size=9)]))
    moments = [[each.half() for each in encode(seen)] for seen in (images, images.flip(-1))]
    mean, logvar = (torch.stack(each) for each in zip(*moments, strict=True))  # (v, n, c, h, w)
    order, stream = Order(9, seed=3), latent_batches(found, {}, scale=torch.tensor(0.7), batch_size=4, seed=3, start=5)
    for batch in islice(stream, 8):
        at = SPEC.views.drawn(batch.indices, seed=3), [order.row(index) for index in batch.indices]
        noise = normal((2, 8, 8), seed=3, indices=batch.indices, purpose="posterior")
        assert torch.equal(batch.latents, (mean[at].float() + (0.5 * logvar[at].float()).exp() * noise) * 0.7)
    sums = LatentSums()
    for view in range(2):
        sums.add(mean[view], logvar[view])
    assert found.statistics() == sums.statistics().model_copy(update={"pictures": 9})


@pytest.mark.usefixtures("small_files")
@pytest.mark.skipif(not MAPS.exists(), reason="needs /proc/self/maps, where Linux lists what is mapped")
def test_latents_are_maps_of_their_files_and_no_copies(tmp_path: Path):
    made = table(tmp_path)
    assert made.logvar is not None
    mapped: dict[range, str] = {}
    for line in MAPS.read_text().splitlines():
        place, *_, last = line.split(maxsplit=5)
        start, end = (int(address, 16) for address in place.split("-"))
        mapped[range(start, end)] = last
    for tensors in (made.mean, made.logvar):
        found = [[path for place, path in mapped.items() if tensor.data_ptr() in place] for tensor in tensors]
        assert found == [[str(tmp_path.resolve() / name)] for name in FILES]


@pytest.mark.usefixtures("small_files")
def test_what_was_interrupted_goes_on(tmp_path: Path):
    cut, seen = tmp_path / "cut", list[int]()

    def stop(done: int, of: int) -> None:
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        table(cut, progress=stop)
    assert names(cut) == [FILES[0], INDEX]
    (cut / f".{FILES[1]}.killed").touch()
    with pytest.raises(DataError, match="made by another first stage"):
        table(cut, key="other")
    assert table(cut, progress=lambda done, of: seen.append(done)).remade == []
    assert seen == [8, 9]
    table(tmp_path / "whole")
    assert names(cut) == names(tmp_path / "whole") == [*FILES, INDEX]
    assert all((cut / name).read_bytes() == (tmp_path / "whole" / name).read_bytes() for name in FILES)


@pytest.mark.usefixtures("small_files")
def test_a_damaged_file_is_named_and_made_anew(tmp_path: Path):
    table(tmp_path)
    before, seen = [(tmp_path / name).read_bytes() for name in FILES], list[int]()
    cut_short(tmp_path / FILES[1])
    again = table(tmp_path, progress=lambda done, of: seen.append(done))
    assert (again.remade, seen) == ([tmp_path / FILES[1]], [8])
    assert [(tmp_path / name).read_bytes() for name in FILES] == before


def test_files_are_as_large_as_a_process_may_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(latents, "BYTES", 5 * 1024)  # a picture in both views takes 1024
    assert [len(part) for part in table(tmp_path / "bytes").mean] == [4, 4, 1]
    monkeypatch.undo()
    monkeypatch.setattr(latents, "world_size", lambda: 2)
    assert [len(part) for part in table(tmp_path / "two").mean] == [8, 1]


def test_read_again_refused_or_recomputed(tmp_path: Path):
    (tmp_path / "latents.safetensors").write_bytes(b"as latents were kept before")
    made = table(tmp_path)
    assert names(tmp_path) == [FILES[0], INDEX]
    stamp = (tmp_path / FILES[0]).stat().st_mtime_ns
    again = table(tmp_path)
    assert torch.equal(made.mean[0], again.mean[0])
    assert (tmp_path / FILES[0]).stat().st_mtime_ns == stamp
    with pytest.raises(DataError, match="made by another first stage"):
        table(tmp_path, key="other")
    turned = SPEC.model_copy(update={"turn": True})
    with pytest.raises(DataError, match="made by another first stage"):
        table(tmp_path, key="other", spec=turned)
    assert table(tmp_path, key="other", stale="recompute").key == "other"
    (tmp_path / INDEX).write_bytes(b"damaged")
    assert torch.equal(table(tmp_path).mean[0], made.mean[0])
    assert table(tmp_path, dtype=torch.float32).mean[0].dtype == torch.float32
    assert names(tmp_path) == [FILES[0], INDEX]


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
    assert names(tmp_path) == [INDEX]


def test_statistics_are_those_of_draws(tmp_path: Path):
    made = table(tmp_path, dtype=torch.float32)
    found = made.statistics()
    draws = torch.cat([made.sample(list(range(9)), list(range(at, at + 9)), seed=0) for at in range(0, 9000, 9)])
    assert torch.allclose(torch.tensor(found.mean), draws.mean((0, 2, 3)), atol=0.02)
    assert torch.allclose(torch.tensor(found.std), draws.permute(1, 0, 2, 3).flatten(1).std(1), atol=0.02)
    assert abs(found.whole - float(draws.std())) < 0.02
    assert found.pictures == 9


def test_statistics_are_kept(tmp_path: Path):
    made, path = table(tmp_path / "train"), tmp_path / "statistics.json"
    found = statistics_of(made, tmp_path)
    assert found == made.statistics()
    for change, wanted in ({"statistics": {**found.plain(), "whole": 7.0}}, 7.0), ({"key": "other"}, found.whole):
        write_json(path, {**read_json(path), **change})
        assert statistics_of(made, tmp_path).whole == wanted
    path.write_bytes(b"damaged")
    assert statistics_of(made, tmp_path) == found
