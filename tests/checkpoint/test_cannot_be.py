"""What no model of ours can be: settings of another kind on its card, a scale or a type that cannot hold."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from darkroom.autoencoder.model import PixelsSpec
from darkroom.checkpoint.card import check_card
from darkroom.checkpoint.store import StoredModel, build, load_model, save_model
from darkroom.core.errors import ModelFileError
from darkroom.diffusion.model import LatentDiffusion, ModelSpec
from darkroom.network.unet import UNetSpec

UNET = UNetSpec(in_channels=3, out_channels=3, channels=32, multipliers=(1, 2), blocks=1, heads=2)
SPEC = ModelSpec(image_size=16, first_stage=PixelsSpec(), network=UNET)
CARD = {
    "data": {"size": 64, "degradation": {"kind": "bicubic"}, "masks": {"kind": "drawn"}},
    "sample": {"solver": "ddim", "eta": 0, "steps": 9, "guidance": 2.5, "match": 2, "prompts": ["a"], "later": None},
    "distill": {"guidance": 3},
}
WRONG: list[tuple[str, str, object]] = [
    ("sample", "steps", "9"),
    ("sample", "steps", 10**12),
    ("sample", "eta", None),
    ("sample", "guidance", [1]),
    ("sample", "guidance", float("nan")),
    ("sample", "solver", 3),
    ("sample", "match", 0.5),
    ("sample", "prompts", "red"),
    ("distill", "guidance", "x"),
    ("data", "degradation", "bicubic"),
]


@pytest.mark.parametrize(("part", "key", "value"), WRONG)
def test_settings_of_another_kind(part: str, key: str, value: object) -> None:
    check_card(CARD, where="m.safetensors, card")
    with pytest.raises(ModelFileError, match=f"^m.safetensors, card, {part}: '{key}.*came"):
        check_card({**CARD, part: {key: value}}, where="m.safetensors, card")


@pytest.fixture
def stored() -> StoredModel:
    model = LatentDiffusion(SPEC)
    return StoredModel("model", SPEC, {**model.state_dict(), "scale": torch.tensor(0.5)})


@pytest.mark.parametrize("scale", [0.0, -1.0, float("inf")])
def test_a_scale_that_cannot_be(stored: StoredModel, tmp_path: Path, scale: float) -> None:
    """Latents divided by infinity would all be one grey picture."""
    wrong = replace(stored, state={**stored.state, "scale": torch.tensor(scale)})
    acts: list[Callable[[StoredModel], object]] = [build, partial(save_model, tmp_path / "m.safetensors")]
    for act in acts:
        with pytest.raises(ModelFileError, match=rf"scale of latents is {scale}; a finite number above 0 fits"):
            act(wrong)
    assert not list(tmp_path.iterdir())


def test_a_type_that_cannot_hold_a_weight(stored: StoredModel, tmp_path: Path) -> None:
    name = "network.head.bias"
    wide = replace(stored, state={**stored.state, name: torch.full_like(stored.state[name], 1e6)})
    with pytest.raises(ModelFileError, match=f"tensor '{name}' holds numbers that float16 cannot; bfloat16"):
        save_model(tmp_path / "m.safetensors", wide, dtype="float16")
    assert not list(tmp_path.iterdir())
    assert load_model(save_model(tmp_path / "m.safetensors", wide, dtype="bfloat16")).state[name].isfinite().all()
