"""From an original checkpoint to ours and back: the same tensors, the same meaning; what is lost is said."""

import pickletools
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from darkroom.autoencoder.statistics import LatentStatistics
from darkroom.checkpoint import write_compvis
from darkroom.checkpoint.compvis import convert_original
from darkroom.checkpoint.inventory import describe_original
from darkroom.checkpoint.store import StoredModel, build, load_model, save_model
from darkroom.checkpoint.to_compvis import original_config
from darkroom.checkpoint.unpickle import read_checkpoint
from darkroom.checkpoint.write_compvis import rewrite_original, save_original
from darkroom.conditioning.conditioner import ConditionerSpec
from darkroom.conditioning.label import ClassSpec
from darkroom.conditioning.text import TextSpec
from darkroom.core.errors import InputError, ModelFileError
from darkroom.core.names import Names
from darkroom.diffusion.model import LatentDiffusion, ModelSpec
from darkroom.process.objective import MinSnrSpec, ObjectiveSpec
from darkroom.process.schedule import TableSpec, TrueLinearSpec, build_schedule
from original_layout import layout
from originals import CONFIGS, KL, averages, both, checkpoint, config, described, state_of, written

UNNAMED = "lvlb_weights"  # among the tables of a schedule, and not kept by the original


def through_ours(folder: Path, files: tuple[Path, Path], *, ema: bool = True) -> StoredModel:
    """An original checkpoint as it comes out of a file of ours."""
    found = convert_original(*files, ema=ema)
    return load_model(save_model(folder / "ours.safetensors", found.stored))


def tensors(path: Path) -> dict[str, Tensor]:
    """As somebody else reads them: by torch, which calls nothing, or by the library of the format."""
    if path.suffix == ".safetensors":
        return load_file(path)
    return torch.load(path, weights_only=True)["state_dict"]


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert set(found) == set(expected)
    wrong = [name for name in expected if not torch.equal(found[name], expected[name])]
    assert not wrong
    assert {name: each.dtype for name, each in found.items()} == {name: each.dtype for name, each in expected.items()}


@pytest.mark.parametrize("name", [*CONFIGS, "first stage"])
def test_there_and_back(tmp_path: Path, name: str) -> None:
    model = KL if name == "first stage" else CONFIGS[name][0]
    files = both(tmp_path, model)
    stored = through_ours(tmp_path, files)
    expected = tensors(files[0])
    expected.pop(UNNAMED, None)
    if name == "masked":  # the original's module holds its first stage a second time, as the conditioner
        again = {each.replace("first_stage_", "cond_stage_"): t for each, t in expected.items() if "first_st" in each}
        expected |= again
    for suffix in (".ckpt", ".safetensors"):
        back = tmp_path / suffix / f"again{suffix}"
        assert save_original(back, stored) == ()
        assert_same(tensors(back), expected)
        made = yaml.safe_load(back.with_suffix(".yaml").read_text())["model"]
        assert layout(made) == {name: tuple(tensor.shape) for name, tensor in expected.items()}
        assert sorted(each.name for each in back.parent.iterdir()) == sorted([back.name, "again.yaml"])
        found = describe_original(back, back.with_suffix(".yaml"))
        assert (found.missing, found.misshapen, found.strays) == ((), (), ())
        assert (found.described.spec, found.checkpoint.global_step) == (stored.spec, 5)
        assert found.described.bert == (name in ("text", "hybrid"))


@pytest.mark.parametrize("case", ["a_kl_f4", "b_vq_f4", "c_uncond", "c2_uncond_ema_T20", "d_class_cond", "e_text_cond"])
def test_files_of_the_original_code(tmp_path: Path, parity: Path, case: str) -> None:
    """The keys are those that the original wrote, and its tables of noise levels come out the same."""
    files = (parity / case / "model.ckpt", parity / case / "config.yaml")
    state = dict(read_checkpoint(files[0]).state_dict)
    back = tmp_path / "back.ckpt"
    lost = save_original(back, through_ours(tmp_path, files))
    written_again = tensors(back)
    kept = {name for name in state if not name.startswith(("model_ema.", "loss."))}
    assert (set(written_again), lost) == (kept, ())
    averaged = {name: "model_ema." + name.removeprefix("model.").replace(".", "") for name in kept}
    rounded = case == "e_text_cond"  # half precision: each table was rounded by itself, ours follow from one of them
    for name in kept:
        expected = state[averaged[name]] if averaged[name] in state else state[name]
        if "." in name or name in ("alphas_cumprod", "scale_factor"):
            assert torch.equal(written_again[name], expected), name
        elif not rounded:
            torch.testing.assert_close(written_again[name], expected, rtol=1e-6, atol=1e-7)


def test_the_file_names_nothing_but_tensors(tmp_path: Path) -> None:
    path = tmp_path / "back.ckpt"
    save_original(path, convert_original(*both(tmp_path, config())).stored)
    with zipfile.ZipFile(path) as file:
        (name,) = [each for each in file.namelist() if each.endswith("data.pkl")]
        code = list(pickletools.genops(file.read(name)))
    assert code[0][1] == 2  # the protocol that old versions of torch write and read
    named = {argument for operation, argument, _ in code if operation.name == "GLOBAL"}
    assert named == {"torch._utils _rebuild_tensor_v2", "torch FloatStorage", "collections OrderedDict"}


@pytest.mark.parametrize("ema", [True, False])
def test_the_chosen_weights_go_back(tmp_path: Path, ema: bool) -> None:
    values = {
        "scale_by_std": True,
        "learn_logvar": True,
        "beta_schedule": "cosine",
        "parameterization": "x0",
        "loss_type": "l1",
    }
    model = config(unet={"use_new_attention_order": True, "resblock_updown": True, "dropout": 0.1}, **values)
    found = described(tmp_path, model)
    assert isinstance(found.spec, ModelSpec)
    state = state_of(found)
    state["scale_factor"] = state["scale_factor"].abs()
    mean = averages(state, found.spec)
    stored = through_ours(tmp_path, (checkpoint(tmp_path, state | mean), tmp_path / "config.yaml"), ema=ema)
    back = tmp_path / "back.ckpt"
    assert save_original(back, stored) == ()
    moved = {name: tensor + 1 for name, tensor in state.items() if name.startswith("model.")} if ema else {}
    del state[UNNAMED]
    assert_same(tensors(back), state | moved)
    again = describe_original(back, back.with_suffix(".yaml")).described
    assert (again.spec, again.fused_by_head, again.ema) == (stored.spec, False, False)


def test_half_precision_there_and_back(tmp_path: Path) -> None:
    state = {name: each.half() for name, each in state_of(described(tmp_path, CONFIGS["text"][0])).items()}
    stored = through_ours(tmp_path, (checkpoint(tmp_path, state), tmp_path / "config.yaml"))
    assert isinstance(stored.spec, ModelSpec)
    assert isinstance(stored.spec.schedule, TableSpec)
    back = tmp_path / "back.safetensors"
    assert save_original(back, stored, dtype="float16") == ()
    found = tensors(back)
    assert all(torch.equal(found[name], state[name]) for name in state if "." in name)
    assert torch.equal(found["alphas_cumprod"], state["alphas_cumprod"].float())
    assert describe_original(back, back.with_suffix(".yaml")).described.spec == stored.spec
    assert save_original(tmp_path / "brain.ckpt", stored, dtype="bfloat16") == ()
    assert tensors(tmp_path / "brain.ckpt")["model.diffusion_model.out.2.bias"].dtype == torch.bfloat16


def test_a_first_stage_twice_lies_once_in_a_torch_file(tmp_path: Path) -> None:
    files = both(tmp_path, CONFIGS["masked"][0])
    stored = convert_original(*files).stored
    for dtype in ("float32", "bfloat16"):
        files = tmp_path / dtype / "once.ckpt", tmp_path / dtype / "twice.safetensors"
        for path in files:
            save_original(path, stored, dtype=dtype)
        sizes = [path.stat().st_size for path in files]
        first = sum(t.numel() * t.itemsize for n, t in tensors(files[0]).items() if "cond_stage" in n)
        assert sizes[1] > sizes[0] + first / 2  # the zip file has a frame around each tensor


def model_of(*conditioners: ConditionerSpec, folder: Path, **changes: Any) -> StoredModel:
    """A model of ours that began as an original's."""
    base = described(folder, CONFIGS["class"][0]).spec
    assert isinstance(base, ModelSpec)
    spec = base.model_copy(update={"conditioners": conditioners, "scale": None, **changes})
    state = LatentDiffusion(spec).state_dict()
    return StoredModel("model", spec, {**state, "scale": torch.tensor(0.7)})


def test_what_the_original_has_no_place_for_is_said(tmp_path: Path) -> None:
    statistics = LatentStatistics(mean=(0.0,) * 4, std=(1.0,) * 4, whole=1.0, pictures=9)
    objective = ObjectiveSpec(weighting=MinSnrSpec())
    stored = replace(
        model_of(ClassSpec(classes=8, width=24, null=8), folder=tmp_path, objective=objective),
        card={"name": "mine", "sample": {"steps": 20}, "trained": {"denoiser": {"steps": 77}}},
        names=Names(classes=("a", "b")),
        latents=statistics,
    )
    lost = save_original(tmp_path / "mine.ckpt", stored)
    assert lost == (
        "its card (name, sample, trained)",
        "the names of 2 classes",
        "how its latents are spread",
        "what only trains (conditioners.0.drop, objective.weighting.kind, objective.weighting.gamma)",
        "conditioners.0.classes, which is 8 and will be read as 9",
        "conditioners.0.null, which is 8 and will be read as none",
    )
    assert read_checkpoint(tmp_path / "mine.ckpt").global_step == 77
    found = describe_original(tmp_path / "mine.ckpt", tmp_path / "mine.yaml")
    assert (found.missing, found.strays) == ((), ())


def test_captions_with_a_vocabulary_of_their_own(tmp_path: Path) -> None:
    text = described(tmp_path, CONFIGS["text"][0]).spec
    assert isinstance(text, ModelSpec)
    (spec,) = text.conditioners
    assert isinstance(spec, TextSpec)
    lean = spec.model_copy(update={"encoder": spec.encoder.model_copy(update={"spare_logits": False})})
    stored = replace(model_of(lean, folder=tmp_path), tokenizer="{}")
    stored.state["conditioning.by_field.caption.empty_ids"][:2] = torch.tensor([2, 3])
    lost = save_original(tmp_path / "mine.ckpt", stored)
    assert lost == (
        "its tokenizer (captions must be given as ids)",
        "the ids of its empty caption",
        "the unused output layer of its text encoder, which it never had (the original's scripts load without it)",
    )
    made = yaml.safe_load((tmp_path / "mine.yaml").read_text())["model"]["params"]["cond_stage_config"]
    assert made["params"]["use_tokenizer"] is False
    stored.state["conditioning.by_field.caption.empty_ids"][:2] = torch.tensor([101, 102])
    assert save_original(tmp_path / "bert.ckpt", stored)[0] == "its tokenizer (the original fetches BERT's own)"


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    stored = model_of(ClassSpec(classes=10, width=24, drop=0), folder=tmp_path)
    folder = tmp_path / "none"
    unknown = replace(stored, state={**stored.state, "scale": torch.tensor(float("nan"))})
    with pytest.raises(ModelFileError, match="the scale of latents is not known"):
        save_original(folder / "m.ckpt", unknown)
    with pytest.raises(ModelFileError, match=r"is called NAME\.ckpt or NAME\.safetensors"):
        save_original(folder / "m.bin", stored)
    large = {**stored.state, "network.head.bias": torch.full((4,), 1e6)}
    with pytest.raises(ModelFileError, match=r"out\.2\.bias.* float16 cannot; bfloat16 and float32 can"):
        save_original(folder / "m.ckpt", replace(stored, state=large), dtype="float16")
    waves = stored.spec.model_copy(update={"network": stored.spec.network.model_copy(update={"places": "waves"})})
    with pytest.raises(ModelFileError, match="no words for waves"):
        save_original(folder / "m.ckpt", replace(stored, spec=waves))
    assert not folder.exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        save_original(tmp_path / "file" / "m.ckpt", stored)


def test_noise_levels_of_a_table(tmp_path: Path) -> None:
    """Rounded ones are said as the ramp that they were; others as the nearest, and that is said; both come back."""
    levels = TrueLinearSpec(start=0.0015, end=0.0155, steps=50)
    rounded = TableSpec(powers=tuple(build_schedule(levels).alpha(torch.arange(50)).square().half().tolist()))
    bent = TableSpec(powers=(*(0.97**n for n in range(1, 50)), 0.1))
    for name, table, lost in (("rounded", rounded, 0), ("bent", bent, 1)):
        stored = model_of(ClassSpec(classes=10, width=24, drop=0), folder=tmp_path, schedule=table)
        said = [each for each in save_original(tmp_path / f"{name}.ckpt", stored) if "noise levels" in each]
        assert len(said) == lost
        params = yaml.safe_load((tmp_path / f"{name}.yaml").read_text())["model"]["params"]
        if not lost:
            ramp = {"beta_schedule": "sqrt_linear", "linear_start": 0.0015, "linear_end": 0.0155, "timesteps": 50}
            assert {key: params[key] for key in ramp} == ramp
        again = describe_original(tmp_path / f"{name}.ckpt", tmp_path / f"{name}.yaml").described.spec
        assert isinstance(again, ModelSpec)
        assert isinstance(again.schedule, TableSpec)
        assert torch.equal(torch.tensor(again.schedule.powers), torch.tensor(table.powers))
    assert said == ["its noise levels in the YAML, whose ramp is off by up to 0.09; the checkpoint holds them"]


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("unet_config.params.num_heads", "network.heads, which is 4 and will be read as 2"),
        ("first_stage_config.params.ddconfig.num_res_blocks", "first_stage.blocks, which is 1"),
    ],
)
def test_a_yaml_of_another_model_is_not_written(
    tmp_path: Path, place: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = model_of(ClassSpec(classes=10, width=24, drop=0), folder=tmp_path)

    def wrong(*words: Any, **options: Any) -> dict[str, Any]:
        made = original_config(*words, **options)
        *names, last = place.split(".")
        part = made["params"]
        for name in names:
            part = part[name]
        part[last] = 2
        return made

    monkeypatch.setattr(write_compvis, "original_config", wrong)
    with pytest.raises(ModelFileError, match=f"not written, for the YAML would be another model's: {said}"):
        save_original(tmp_path / "other.ckpt", stored)
    assert not list(tmp_path.glob("other*"))


def test_a_scale_for_each_channel_goes_into_the_first_stage(tmp_path: Path) -> None:
    stored = model_of(ClassSpec(classes=10, width=24, drop=0), folder=tmp_path)
    spread = replace(stored, state={**stored.state, "scale": torch.tensor([0.5, 1.0, 2.0, 3.0])})
    lost = save_original(tmp_path / "m.ckpt", spread)
    assert lost[0].endswith("made part of the first stage's 1 x 1 convolutions: equal up to rounding")
    ours, back = build(spread), build(convert_original(tmp_path / "m.ckpt", tmp_path / "m.yaml").stored)
    assert isinstance(ours, LatentDiffusion)
    assert isinstance(back, LatentDiffusion)
    images = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(back.encode(images), ours.encode(images), rtol=1e-4, atol=1e-5)


def test_what_comes_back_computes_the_same(tmp_path: Path) -> None:
    files = both(tmp_path, CONFIGS["text"][0])
    stored = convert_original(*files).stored
    save_original(tmp_path / "back.ckpt", stored)
    again = convert_original(tmp_path / "back.ckpt", tmp_path / "back.yaml").stored
    x, t = torch.randn(1, 4, 8, 8), torch.tensor([7])
    answers = []
    for each in (stored, again):
        model = build(each)
        assert isinstance(model, LatentDiffusion)
        answers.append(model.network(x, t, model.condition({"caption": torch.zeros(1, 6, dtype=torch.long)})))
    assert torch.equal(*answers)


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_everything_can_be_kept(tmp_path: Path, suffix: str) -> None:
    found = described(tmp_path, config())
    assert isinstance(found.spec, ModelSpec)
    state = {name: each.half() if "." in name else each for name, each in state_of(found).items()}
    extra = {"loss.logvar": torch.zeros((), dtype=torch.float64), "model_ema.decay": torch.tensor(0.9999)}
    state |= averages(state, found.spec) | extra | {"model_ema.num_updates": torch.tensor(3, dtype=torch.int32)}
    source = tmp_path / "all.ckpt"
    torch.save({"state_dict": {**state, "note": "hi"}, "global_step": 9, "callbacks": {}}, source)
    target = tmp_path / "kept" / f"all{suffix}"
    lost = rewrite_original(target, source, config=tmp_path / "config.yaml")
    assert lost == ("'state_dict' holds 'note', which is no tensor", "what lies beside the weights: callbacks")
    assert_same(tensors(target), state)
    assert target.with_suffix(".yaml").read_bytes() == (tmp_path / "config.yaml").read_bytes()
    assert read_checkpoint(target).global_step == 9
    smaller = target.with_stem("smaller")
    rewrite_original(smaller, source, dtype="bfloat16")
    halved = tensors(smaller)
    assert halved["model.diffusion_model.out.2.bias"].dtype == torch.bfloat16
    assert halved["model_ema.decay"].dtype == torch.float32
    written(tmp_path, config())
    raw, mean = (convert_original(source, tmp_path / "config.yaml", ema=ema).stored.state for ema in (False, True))
    assert not torch.equal(raw["network.head.bias"], mean["network.head.bias"])


def test_the_units_of_latents_with_a_hole_are_kept(tmp_path: Path) -> None:
    """The original scales latents, but not those of a picture with a hole."""
    files = both(tmp_path, config("__is_first_stage__", unet={"in_channels": 9}, concat_mode=True, scale_factor=0.5))
    stored = through_ours(tmp_path, files)
    assert isinstance(stored.spec, ModelSpec)
    (masked,) = stored.spec.conditioners
    assert masked.plain()["units"] == "first-stage"
    assert save_original(tmp_path / "again" / "model.ckpt", stored) == ()
    scaled = (masked.model_copy(update={"units": "denoiser"}),)
    with pytest.raises(ModelFileError, match=r"conditioners\.0\.units, which is none and will be read as first-stage"):
        save_original(
            tmp_path / "other.ckpt",
            replace(stored, spec=stored.spec.model_copy(update={"conditioners": scaled})),
        )
