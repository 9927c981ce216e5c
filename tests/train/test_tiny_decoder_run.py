"""Training a tiny decoder for a first stage that exists: what moves, what stays, stopping, files, refusals."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from darkroom.autoencoder.bottleneck import KLSpec, VQSpec
from darkroom.autoencoder.model import Autoencoder, AutoencoderSpec, same_latents, without_decoder
from darkroom.autoencoder.statistics import LatentStatistics
from darkroom.checkpoint.store import StoredModel, load_model, save_model
from darkroom.core.compute import Compute
from darkroom.core.errors import InputError, SpecError
from darkroom.core.record import read_json, read_lines
from darkroom.core.spec import parse
from darkroom.data.loader import Batch
from darkroom.recipes.describe import count, describe
from darkroom.recipes.given import first_stage_alone, with_first_stage
from darkroom.recipes.pace import pace
from darkroom.recipes.plan import plan_of
from darkroom.recipes.read import recipe
from darkroom.recipes.run import Run, open_recipe_data
from darkroom.recipes.schema import Recipe
from darkroom.tasks.parts import load_autoencoder
from darkroom.train.events import Advance
from darkroom.train.first_stage import only_decoder
from darkroom.train.first_stage_objective import first_stage_objective

SMALL = (
    "data.count=16",
    "data.size=32",
    "first_stage.model.tiny={channels: 8, blocks: 1, shuffle: 2}",
    "first_stage.train.steps=12",
    "first_stage.train.learning_rate=1e-2",
    "first_stage.train.batch=4",
    "first_stage.train.warmup=1",
    "first_stage.train.log_every=1",
    "first_stage.train.save_every=2",
    "first_stage.train.sample_every=4",
)
KNOWN = LatentStatistics(mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0), whole=2.0, pictures=7)


def given(*, kind: str = "kl", known: LatentStatistics | None = None, **options) -> StoredModel:
    torch.manual_seed(3)
    spec = AutoencoderSpec(
        **{
            "channels": 8,
            "multipliers": (1, 1),
            "blocks": 1,
            "stem": "patch2",
            "norm_groups": 4,
            "middle_attention": False,
            "latent_channels": 3,
            "bottleneck": KLSpec() if kind == "kl" else VQSpec(codes=16),
            **options,
        }
    )
    return StoredModel("first-stage", spec, Autoencoder(spec).state_dict(), latents=known)


def asked(*more: str) -> Recipe:
    return recipe("tiny-decoder", overrides=[*SMALL, *more])


def trained(folder: Path, first_stage: StoredModel, *more: str) -> StoredModel:
    list(Run(asked(*more), folder, device="cpu", first_stage=first_stage).develop(page=False))
    return load_model(folder / "model.safetensors")


@pytest.mark.parametrize("kind", ["kl", "vq"])
def test_only_the_decoder_moves(kind: str, tmp_path: Path) -> None:
    before = given(kind=kind, dropout=0.5)
    found = trained(tmp_path, before)
    assert (found.kind, found.spec.model_copy(update={"tiny": None})) == ("first-stage", before.spec)
    kept = without_decoder(before.state)
    assert kept.keys() == without_decoder(found.state).keys()
    assert all(torch.equal(found.state[name], value) for name, value in kept.items())
    assert found.latents is not None
    lines = read_lines(tmp_path / "first_stage" / "log.jsonl")
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 13))
    seen = [line["test_psnr"] for line in lines if "test_psnr" in line]
    assert seen[0] < seen[-1]
    report = read_json(tmp_path / "first_stage" / "report.json")
    assert {"psnr", "full_psnr", "distance", "full_distance", "bicubic_psnr"} <= report.keys()
    with Image.open(tmp_path / "first_stage" / "reconstructions.png") as sheet:
        assert sheet.height == 2 + 3 * (32 + 2)  # pictures, the full decoder, the tiny one


def test_the_file_is_a_first_stage_like_any_other(tmp_path: Path) -> None:
    first = given(known=KNOWN)
    found = trained(tmp_path / "run", first)
    assert found.latents == KNOWN
    model, full = load_autoencoder(tmp_path / "run", device="cpu"), Autoencoder(first.spec)
    full.load_state_dict(dict(first.state))
    assert model.spec.tiny is not None
    assert same_latents(model, full)
    images = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(model.moments(images)[0], full.eval().moments(images)[0])  # kernels lie differently
    again = save_model(tmp_path / "half.safetensors", found, dtype="bfloat16")
    assert same_latents(load_autoencoder(again, device="cpu"), full)
    assert with_first_stage(asked(), found) == with_first_stage(asked(), first)  # a tiny decoder is replaced as any


def test_stopped_anywhere_it_ends_the_same(tmp_path: Path) -> None:
    more = ("first_stage.loss.adversary={start: 2, layers: 2, channels: 8}",)
    one = trained(tmp_path / "calm", given(), *more).state
    for patience in (3, 100):
        events = Run(asked(*more), tmp_path / "stopped", device="cpu", first_stage=given()).develop(page=False)
        steps = 0
        for event in events:
            steps += isinstance(event, Advance)
            if steps == patience:
                events.close()
                break
    other = load_model(tmp_path / "stopped" / "model.safetensors").state
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_frozen_parts_keep_no_gradient_and_no_dropout() -> None:
    stored = given(kind="vq", dropout=0.5)
    spec = stored.spec.model_copy(update={"tiny": asked().first_stage.model.tiny})
    model = Autoencoder(spec).eval()
    moved = only_decoder(model).train()
    part = asked().first_stage
    objective = first_stage_objective(model, part.loss, train=part.train, compute=Compute(torch.device("cpu")), seed=0)
    assert objective.revival is None
    batch = Batch(torch.randint(256, (2, 3, 16, 16), dtype=torch.uint8), [0, 1], [0, 1])
    assert not model.reconstruct(torch.rand(1, 3, 16, 16)).regularizer.requires_grad
    first, second = objective(batch)["loss"], objective(batch)["loss"]
    assert torch.equal(first.detach(), second.detach())  # dropout would draw anew
    first.backward()
    assert {name for name, each in model.named_parameters() if each.grad is not None} == {
        name for name, _ in moved.named_parameters()
    }


def test_what_it_costs_is_counted() -> None:
    asked_for = with_first_stage(asked(), given())
    model = Autoencoder(asked_for.first_stage.model)
    moved = sum(each.numel() for each in only_decoder(model).parameters())
    whole = sum(each.numel() for each in model.parameters())
    assert count(asked_for)["first_stage"] == whole
    assert describe(asked_for)["memory"]["train_first_stage"] == 4 * (whole - moved + 5 * moved)
    splits = open_recipe_data(asked_for.data, seed=0)
    plan = plan_of(asked_for, splits, measure=lambda: pace(asked_for, device="cpu"))
    assert plan["parameters"]["first_stage"] == whole
    assert plan["stages"]["first_stage"]["seconds"] > 0
    assert plan["flops"]["decode"] < describe(with_first_stage(recipe("tiny-vq"), given()))["flops"]["decode"]


def test_the_recipe_follows_the_first_stage(tmp_path: Path) -> None:
    grey = given(image_channels=1)
    found = with_first_stage(asked(), grey, size=64)
    assert (found.data.channels, found.data.size) == (1, 64)
    assert with_first_stage(found, grey) == found
    assert found.first_stage.model.tiny == asked().first_stage.model.tiny
    assert found.first_stage.loss == asked().first_stage.loss
    assert first_stage_alone(found) == found
    with pytest.raises(SpecError, match=r"data\.size 36 is no multiple of the first stage's factor 8"):
        with_first_stage(asked("data.size=36"), given(multipliers=(1, 1, 1)))


def test_what_cannot_be_trained_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="trains a decoder for a first stage that exists; say which with --first-stage"):
        Run(asked(), tmp_path / "a", device="cpu")
    assert not (tmp_path / "a").exists()
    for change, sentence in (
        ("first_stage.model.tiny=null", "model.tiny must say"),
        ("first_stage.train=null", "train"),
    ):
        with pytest.raises(SpecError, match=sentence):
            asked(change)
    Run(asked(), tmp_path / "b", device="cpu", first_stage=given())
    another = given()
    another.state["to_latent.bias"].add_(1)
    with pytest.raises(InputError, match="begun with another first stage"):
        Run(asked(), tmp_path / "b", device="cpu", first_stage=another)


def test_a_recipe_survives_yaml_with_and_without_it() -> None:
    for each in (asked(), recipe("tiny-vq")):
        assert parse(Recipe, each.plain(), where="here") == each
