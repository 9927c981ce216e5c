"""Every figure of the report against numpy on the pictures that the judge was shown."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from measured import CornerJudge, first_stage
from PIL import Image

from darkroom.autoencoder.bottleneck import VQSpec, perplexity
from darkroom.autoencoder.model import Autoencoder
from darkroom.core.compute import Compute
from darkroom.core.errors import InputError, ModelFileError
from darkroom.core.pictures import from_bytes
from darkroom.data.loader import still_batches
from darkroom.data.sources import Source, Subset, open_data
from darkroom.data.transforms import TransformSpec
from darkroom.evaluate import judges
from darkroom.evaluate.first_stage import evaluate_first_stage
from darkroom.evaluate.judges import Seated, present_judge, present_lpips
from darkroom.evaluate.report import FirstStageReport
from darkroom.metrics.pairs import bicubic_round_trip, psnr, ssim

CPU = Compute(torch.device("cpu"))
PLAIN = TransformSpec(size=32)


@pytest.fixture(scope="module")
def scenes() -> Source:
    """Ten test scenes."""
    return Subset(open_data("shapes", size=32).test, tuple(range(10)))


def evaluated(
    model: Autoencoder, source: Source, *, judge: CornerJudge | None = None, transform: TransformSpec = PLAIN
) -> FirstStageReport:
    return evaluate_first_stage(model, source, transform=transform, judge=judge or CornerJudge(), compute=CPU, batch=4)


def pictures(source: Source, size: int = 32) -> torch.Tensor:
    return from_bytes(torch.cat([b.images for b in still_batches(source, TransformSpec(size=size), batch_size=99)]))


def test_the_figures_are_those_of_saved_pictures(scenes: Source) -> None:
    from torchmetrics.image.fid import _compute_fid
    from torchmetrics.image.kid import poly_mmd

    model, judge = first_stage(), CornerJudge()
    report = evaluated(model, scenes, judge=judge)
    originals = pictures(scenes)
    with torch.no_grad():
        raw = model.reconstruct(originals).images
    levels = ((raw.clamp(-1, 1) + 1) * 127.5).round()
    before, after = ((originals + 1) * 127.5).double().numpy(), levels.double().numpy()
    errors = ((before - after) ** 2).mean((1, 2, 3))
    decibels = 10 * np.log10(255**2 / errors)
    figures = report.figures
    assert figures.psnr == pytest.approx(decibels.mean(), abs=1e-3)
    assert figures.psnr_std == pytest.approx(decibels.std(), abs=1e-3)
    assert figures.l1 == pytest.approx(np.abs(before - after).mean() / 127.5, rel=1e-4)
    made = levels / 127.5 - 1
    assert figures.ssim == pytest.approx(float(ssim(originals, made).mean()), abs=1e-5)
    assert figures.feature_distance == pytest.approx(float(CornerJudge().distance(originals, made).mean()), rel=1e-4)
    a, b = (CornerJudge().features(each).double() for each in (originals, made))
    moments = [each for x in (a, b) for each in (x.mean(0), x.T.cov())]
    assert figures.frechet_distance == pytest.approx(float(_compute_fid(*moments)), rel=1e-3)
    assert figures.kernel_distance == pytest.approx(float(poly_mmd(a, b)), rel=1e-3)
    assert 0 <= figures.precision <= 1
    assert 0 <= figures.recall <= 1
    assert (figures.lpips, report.codes) == (None, None)


def test_bicubic_is_measured_at_the_factor_and_at_four(scenes: Source) -> None:
    originals = pictures(scenes)
    for levels, factors in ((2, (2, 4)), (3, (4,)), (4, (4, 8))):
        report = evaluated(first_stage(levels=levels), scenes)
        assert list(report.bicubic) == [f"x{factor}" for factor in factors]
        for factor in factors:
            expected = psnr(originals, bicubic_round_trip(originals, factor)).mean()
            assert report.bicubic[f"x{factor}"].psnr == pytest.approx(float(expected), abs=0.05)  # 256 levels
    finer = evaluated(first_stage(levels=2), scenes).bicubic
    assert finer["x2"].psnr > finer["x4"].psnr
    assert finer["x2"].frechet_distance < finer["x4"].frechet_distance


def test_references_and_reconstructions_pass_the_same_preprocessing(tmp_path: Path) -> None:
    for number in range(5):  # sides of all kinds, none of them the size
        noise = np.random.default_rng(number).integers(0, 256, (50 + 9 * number, 70, 3), dtype=np.uint8)
        (tmp_path / "test").mkdir(exist_ok=True)
        (tmp_path / "train").mkdir(exist_ok=True)
        for split in ("train", "test"):
            Image.fromarray(noise).save(tmp_path / split / f"{number}.png")
    judge, source = CornerJudge(), open_data(tmp_path).test
    random = TransformSpec(size=32, crop="random", flip=True, scale=(1.0, 2.0))
    report = evaluated(first_stage(), source, judge=judge, transform=random)
    shown = torch.cat([judge.seen[place] for place in range(0, len(judge.seen), 3)])  # originals, model, bicubic
    assert torch.equal(shown, pictures(source))  # as training cuts its still pictures, and nothing drawn
    assert all(each.shape[-2:] == (32, 32) for each in judge.seen)
    every = torch.cat(judge.seen)
    levels = (every + 1) * 127.5
    assert torch.allclose(levels, levels.round(), atol=1e-4)
    assert float(every.abs().max()) <= 1
    assert report.protocol["preprocessing"]["crop"] == "centre"


def test_a_codebook_tells_how_much_of_it_is_used(scenes: Source) -> None:
    model = first_stage(VQSpec(codes=64))
    report = evaluated(model, scenes)
    with torch.no_grad():
        indices = model.reconstruct(pictures(scenes)).indices
    assert report.codes is not None
    used = len(indices.unique())
    assert (report.codes.codes, report.codes.used, report.codes.share) == (64, used, used / 64)
    assert report.codes.perplexity == pytest.approx(perplexity(indices, 64))


def test_the_batch_size_does_not_matter(scenes: Source) -> None:
    seen: list[tuple[int, int]] = []
    found = [
        evaluate_first_stage(
            first_stage(),
            scenes,
            transform=PLAIN,
            judge=CornerJudge(),
            compute=CPU,
            batch=batch,
            on_batch=lambda done, total: seen.append((done, total)),
        )
        for batch in (3, 10)
    ]
    one, other = (asdict(each.figures) for each in found)
    assert one.pop("lpips") is other.pop("lpips") is None
    assert one == pytest.approx(other, rel=1e-3, abs=1e-6)
    assert seen == [(3, 10), (6, 10), (9, 10), (10, 10), (10, 10)]


def test_the_protocol_identifies_everything(scenes: Source) -> None:
    model = first_stage()
    report = evaluated(model, scenes)
    plain = json.loads(json.dumps(report.plain()))
    told = plain["protocol"]
    assert told["judge"] == {"name": "corners", "hash": "c0ffee"}
    assert told["data"] == {"name": "shapes", "pictures": 10, "fingerprint": scenes.fingerprint()}
    assert (told["model"]["factor"], told["model"]["latent"], told["lpips"]) == (4, [3, 8, 8], None)
    assert plain["figures"]["psnr"] == report.figures.psnr
    again = evaluated(first_stage(), scenes).protocol["model"]
    assert again == told["model"]
    with torch.no_grad():
        next(model.parameters()).flatten()[0] += 1
    assert evaluated(model, scenes).protocol["model"]["weights_hash"] != told["model"]["weights_hash"]


@pytest.mark.parametrize(("count", "absent"), [(1, 4), (2, 2), (3, 2), (4, 0)])
def test_few_pictures_are_measured_as_far_as_they_go(scenes: Source, count: int, absent: int) -> None:
    report = evaluated(first_stage(), Subset(scenes, tuple(range(count))))
    sets = ("frechet_distance", "kernel_distance", "precision", "recall")
    assert sum(getattr(report.figures, name) is None for name in sets) == absent
    assert report.figures.psnr > 0
    assert any("at least" in note for note in report.notes) == (count < 4)


def test_grey_and_transparent_pictures(scenes: Source, tmp_path: Path) -> None:
    for number in range(4):
        Image.new("RGBA", (40, 40), (60 * number, 9, 9, 128)).save(tmp_path / f"{number}.png")
    for channels in (1, 4):
        judge = CornerJudge()
        source = open_data(tmp_path, alpha=channels == 4).train
        model = first_stage(channels=channels)
        report = evaluated(model, source, judge=judge, transform=TransformSpec(size=32, channels=channels))
        assert judge.seen[0].shape[1] == channels
        assert report.protocol["preprocessing"]["channels"] == channels
        assert not any("enlarged" in note for note in report.notes)


def test_pictures_that_are_smaller_than_asked_for_are_told(scenes: Source) -> None:
    notes = evaluated(first_stage(), scenes, transform=TransformSpec(size=48)).notes
    assert "10 of 10 pictures are smaller than 48 pixels and were enlarged" in notes


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"size": 34}, "size 34 does not fit: a multiple of 4 is needed, and 16 at least; 32 fits"),
        ({"size": 12}, "16 fits"),
        ({"size": 32, "channels": 1}, "pictures with 1 channels were asked for, this first stage takes 3"),
    ],
)
def test_what_cannot_be_evaluated(scenes: Source, options: dict[str, int], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        evaluated(first_stage(), scenes, transform=TransformSpec(**options))


def test_no_pictures_and_odd_channels(scenes: Source) -> None:
    with pytest.raises(InputError, match="no pictures to evaluate on"):
        evaluated(first_stage(), Subset(scenes, ()))
    with pytest.raises(InputError, match="pictures of 5 channels; files have 1, 3, 4"):
        evaluated(first_stage(channels=5), scenes)


def test_weights_that_are_not_finite(scenes: Source) -> None:
    model = first_stage()
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(ModelFileError, match="not finite"):
        evaluated(model, scenes)


def test_the_judge_of_the_package_is_the_default(
    scenes: Source, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DARKROOM_CACHE", str(tmp_path))
    judge = present_judge(CPU)
    report = evaluate_first_stage(first_stage(), scenes, transform=PLAIN, judge=judge, compute=CPU)
    assert report.protocol["judge"] == {"name": judge.name, "hash": judge.hash}
    assert report.figures.feature_distance > 0
    assert present_lpips(CPU) is None
    assert any("LPIPS is not measured" in note for note in report.notes)


class Placed:
    """Sees only pictures that lie as `Compute.place` lays them, and answers on a device of its own."""

    name, hash = "placed", "0"

    def features(self, images: torch.Tensor) -> torch.Tensor:
        assert images.is_contiguous(memory_format=torch.channels_last)
        return images.mean(dim=(2, 3))

    def distance(self, images: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        return (self.features(images) - self.features(others)).square().sum(1)

    __call__ = distance


def test_a_seated_judge_is_shown_pictures_from_anywhere() -> None:
    pictures = torch.rand(2, 3, 4, 5)
    seated = Seated(Placed(), CPU)
    assert (seated.name, seated.hash) == ("placed", "0")
    torch.testing.assert_close(seated.features(pictures), pictures.mean(dim=(2, 3)))
    assert torch.equal(seated.distance(pictures, pictures), torch.zeros(2))


def test_so_is_a_distance_of_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    hosted: list[str] = []

    def kept(_self: Compute, module: Placed) -> Placed:
        hosted.append(module.name)
        return module

    monkeypatch.setattr(judges, "present", lambda: True)
    monkeypatch.setattr(judges, "perceptual", lambda name: Placed())
    monkeypatch.setattr(Compute, "host", kept)
    distance = present_lpips(CPU)
    assert distance is not None
    assert (distance.name, hosted) == ("placed", ["placed"])
    pictures = torch.rand(2, 3, 4, 5)
    assert torch.equal(distance(pictures, 1 - pictures), Placed().distance(*map(CPU.place, (pictures, 1 - pictures))))


def test_another_distance_joins_where_it_is_given(scenes: Source) -> None:
    from darkroom.nn.features import perceptual

    distance = perceptual("small")
    report = evaluate_first_stage(
        first_stage(), scenes, transform=PLAIN, judge=CornerJudge(), compute=CPU, lpips=distance
    )
    assert report.figures.lpips > 0
    assert report.protocol["lpips"] == {"name": distance.name, "hash": distance.hash}
    assert not any("LPIPS" in note for note in report.notes)


def test_scenes_are_read_again_and_compared_with_what_is_truly_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bicubic by 2 keeps most scenes readable; a model without training keeps none; a perfect one keeps all."""
    source = Subset(open_data("shapes", size=64).test, tuple(range(20, 32)))
    transform = TransformSpec(size=64)
    report = evaluated(first_stage(levels=2), source, transform=transform)
    assert report.figures.scenes_right == 0
    assert report.bicubic["x2"].scenes_right is not None
    assert report.bicubic["x2"].scenes_right > 0.5
    perfect = "darkroom.evaluate.first_stage.through"
    monkeypatch.setattr(perfect, lambda model, images, *, compute: (images, None))
    assert evaluated(first_stage(levels=2), source, transform=transform).figures.scenes_right == 1


def test_other_pictures_have_no_scenes_to_read(scenes: Source) -> None:
    assert evaluated(first_stage(), scenes, transform=TransformSpec(size=64)).figures.scenes_right is None
