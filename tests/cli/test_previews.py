"""Tiny decoders of others: the same pictures as diffusers' AutoencoderTiny, from each kind of file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import darkroom
from darkroom.checkpoint.previews import find_preview
from darkroom.core.errors import InputError, ModelFileError
from darkroom.tasks.parts import load_decoder
from pipelines import change, drawn, unconditional

diffusers = pytest.importorskip("diffusers", reason="compares with diffusers")
Say = Callable[..., tuple[int, str, str]]
WIDTHS = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8), "latent_channels": 3}


def tiny(**options: Any) -> Any:
    blocks = {"num_encoder_blocks": (1, 2), "num_decoder_blocks": (2, 1)}
    return drawn(diffusers.AutoencoderTiny(**{**WIDTHS, **blocks, **options}))


def alone(model: Any, side: str = "decoder", *, first: int = 1) -> dict[str, Tensor]:
    """As the authors store it: layers by number; that which limits latents is the decoder's first."""
    found: dict[str, Tensor] = {}
    for name, tensor in getattr(model, side).layers.state_dict().items():
        number, _, rest = name.partition(".")
        found[f"{int(number) + first}.{rest}"] = tensor.clone()
    return found


def saved(folder: Path, kind: str) -> tuple[Any, Path]:
    model = tiny(scaling_factor=1.3) if kind == "folder" else tiny()
    match kind:
        case "folder":
            model.save_pretrained(folder / "tiny")
            return model, folder / "tiny"
        case "whole.safetensors":
            save_file({name: tensor.clone() for name, tensor in model.state_dict().items()}, folder / kind)
        case "taesd_decoder.safetensors":
            save_file(alone(model), folder / kind)
        case _:
            torch.save(alone(model), folder / kind)
    return model, folder / kind


def test_a_layer_with_a_number_of_thousands_of_digits(tmp_path: Path) -> None:
    names = ("1.weight", "3.conv.0.weight", f"{'9' * 5000}.weight")
    save_file({name: torch.zeros(4, 4, 3, 3) for name in names}, tmp_path / "x.safetensors")
    with pytest.raises(ModelFileError, match="tiny decoder"):
        find_preview(tmp_path / "x.safetensors")


KINDS = ("folder", "whole.safetensors", "taesd_decoder.safetensors", "taesd_decoder.pth")


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_the_same_pictures(kind: str, tmp_path: Path) -> None:
    theirs, path = saved(tmp_path, kind)
    found = load_decoder(path, device="cpu")
    latents = 2 * torch.randn(2, 3, 5, 4)
    wanted = theirs.decode(latents / theirs.config.scaling_factor).sample
    torch.testing.assert_close(found.decode(latents), wanted, rtol=0, atol=1e-5)
    assert wanted.std() > 1e-3
    assert found.spec.factor == 2


@torch.no_grad()
def test_the_published_sizes(tmp_path: Path) -> None:
    model = drawn(diffusers.AutoencoderTiny())
    torch.save(alone(model), tmp_path / "taesd_decoder.pth")
    found = load_decoder(tmp_path / "taesd_decoder.pth", device="cpu")
    assert (found.spec.factor, sum(each.numel() for each in found.parameters())) == (8, 1_222_531)
    latents = torch.randn(1, 4, 3, 2)
    torch.testing.assert_close(found.decode(latents), model.decode(latents).sample, rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_model_decodes_with_it(say: Say, tmp_path: Path) -> None:
    """It takes latents as the denoiser has them, whatever their scale."""
    unconditional().save_pretrained(tmp_path / "model")
    theirs, path = saved(tmp_path, "taesd_decoder.pth")
    model = darkroom.load(tmp_path / "model", device="cpu").with_decoder(path)
    latents = torch.randn(1, 3, 8, 8)
    torch.testing.assert_close(model.decode(latents), theirs.decode(latents).sample, rtol=0, atol=1e-5)
    torch.testing.assert_close(model.decode_smoothly(latents), theirs.decode(latents).sample, rtol=0, atol=1e-5)
    again = darkroom.load(tmp_path / "model", device="cpu").with_decoder(load_decoder(path, device="cpu"))
    assert torch.equal(again.decode(latents), model.decode(latents))
    words = ("--model", tmp_path / "model", "--decoder", path, "--steps", 2, "--device", "cpu", "--json")
    code, told, complaint = say("sample", *words, "--out", tmp_path / "drawn")
    assert code == 0, complaint
    assert json.loads(told)
    code, told, complaint = say("inspect", path, "--json")
    assert code == 0, complaint
    facts = json.loads(told)
    assert (facts["kind"], facts["factor"], facts["spec"]["blocks"]) == ("tiny decoder", 2, [2, 1])
    assert "nothing in a tiny decoder says whose latents" in facts["odd"][0]


def test_what_does_not_fit(tmp_path: Path) -> None:
    unconditional().save_pretrained(tmp_path / "model")
    model = darkroom.load(tmp_path / "model", device="cpu")
    tiny(latent_channels=4).save_pretrained(tmp_path / "wide")
    with pytest.raises(InputError, match="wide does not fit model: it has latents of 4 channels, f = 2"):
        model.with_decoder(tmp_path / "wide")
    with pytest.raises(ModelFileError, match="a tiny decoder, which draws nothing alone"):
        darkroom.load(tmp_path / "wide")


def test_other_decoders_are_refused(say: Say, tmp_path: Path) -> None:
    theirs, folder = saved(tmp_path, "folder")
    for name, value in (("act_fn", "gelu"), ("upsampling_scaling_factor", 3), ("shift_factor", 0.1)):
        old = theirs.config[name]
        change(folder / "config.json", **{name: value})
        with pytest.raises(ModelFileError, match=f"{name} .* is not supported"):
            find_preview(folder)
        change(folder / "config.json", **{name: old})
    change(folder / "config.json", num_decoder_blocks=[2, 2])
    with pytest.raises(ModelFileError, match="missing, which a tiny decoder of its kind needs"):
        find_preview(folder)
    torch.save(alone(theirs, "encoder", first=0), tmp_path / "taesd_encoder.pth")
    with pytest.raises(ModelFileError, match="TAESD's encoder; its decoder"):
        find_preview(tmp_path / "taesd_encoder.pth")
    held = alone(theirs)
    for broken, message in (
        ({name: tensor for name, tensor in held.items() if "4.conv.2" not in name}, "missing"),
        ({**held, "9.conv.0.weight": torch.zeros(8, 8, 3, 3)}, "not those of a tiny decoder"),
        ({**held, "3.conv.0.weight": torch.zeros(8, 8, 1, 1)}, r"has shape \(8, 8, 1, 1\)"),
        ({**held, "1.weight": torch.zeros(8)}, "not those of a tiny decoder"),
    ):
        torch.save(broken, tmp_path / "broken.pth")
        with pytest.raises(ModelFileError, match=message):
            find_preview(tmp_path / "broken.pth")
    code, _, complaint = say("sample", "--decoder", tmp_path / "broken.pth")
    assert (code, complaint.count("\n")) == (2, 1)
