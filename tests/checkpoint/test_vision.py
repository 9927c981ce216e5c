"""DINOv2 and CLIP in the layout of transformers: against the arithmetic written down once more, and against itself."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from darkroom.checkpoint.vision import image_encoder, text_encoder
from darkroom.core.errors import ModelFileError

Table = dict[str, Tensor]
CLIP: dict[str, Any] = {
    "model_type": "clip",
    "projection_dim": 10,
    "vision_config": {
        "hidden_size": 12,
        "intermediate_size": 20,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "image_size": 16,
        "patch_size": 8,
        "projection_dim": 512,  # the model's own counts
    },
    "text_config": {
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "vocab_size": 30,
        "max_position_embeddings": 9,
        "eos_token_id": 29,
    },
}
DINO: dict[str, Any] = {
    "model_type": "dinov2",
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "image_size": 24,
    "patch_size": 4,
    "mlp_ratio": 4,
}


def drawn(shapes: Mapping[str, tuple[int, ...]]) -> Table:
    draw = torch.Generator().manual_seed(0)
    return {
        name: 0.3 * torch.randn(shape, generator=draw) + (name.endswith("norm.weight"))
        for name, shape in shapes.items()
    }


def pair(name: str, *shape: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def clip_layers(top: str, *, width: int, hidden: int) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for i in range(2):
        at = f"{top}.encoder.layers.{i}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            found |= pair(f"{at}.self_attn.{part}", width, width)
        found |= pair(f"{at}.layer_norm1", width) | pair(f"{at}.layer_norm2", width)
        found |= pair(f"{at}.mlp.fc1", hidden, width) | pair(f"{at}.mlp.fc2", width, hidden)
    return found


def clip() -> Table:
    vision, text = "vision_model", "text_model"
    return drawn(
        {
            f"{vision}.embeddings.class_embedding": (12,),
            f"{vision}.embeddings.patch_embedding.weight": (12, 3, 8, 8),
            f"{vision}.embeddings.position_embedding.weight": (5, 12),
            **pair(f"{vision}.pre_layrnorm", 12),
            **pair(f"{vision}.post_layernorm", 12),
            **clip_layers(vision, width=12, hidden=20),
            "visual_projection.weight": (10, 12),
            f"{text}.embeddings.token_embedding.weight": (30, 8),
            f"{text}.embeddings.position_embedding.weight": (9, 8),
            **pair(f"{text}.final_layer_norm", 8),
            **clip_layers(text, width=8, hidden=16),
            "text_projection.weight": (10, 8),
        }
    )


def dino(*, gated: bool = False) -> Table:
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.cls_token": (1, 1, 12),
        "embeddings.position_embeddings": (1, 37, 12),
        **pair("embeddings.patch_embeddings.projection", 12, 3, 4, 4),
        "embeddings.patch_embeddings.projection.bias": (12,),
        **pair("layernorm", 12),
    }
    for i in range(2):
        at = f"encoder.layer.{i}"
        for part in ("query", "key", "value"):
            shapes |= pair(f"{at}.attention.attention.{part}", 12, 12)
        shapes |= pair(f"{at}.attention.output.dense", 12, 12) | pair(f"{at}.norm1", 12) | pair(f"{at}.norm2", 12)
        shapes |= {f"{at}.layer_scale1.lambda1": (12,), f"{at}.layer_scale2.lambda1": (12,)}
        if gated:
            shapes |= pair(f"{at}.mlp.weights_in", 64, 12) | pair(f"{at}.mlp.weights_out", 12, 32)
        else:
            shapes |= pair(f"{at}.mlp.fc1", 48, 12) | pair(f"{at}.mlp.fc2", 12, 48)
    return drawn(shapes)


class Again:
    """Attention and the rest over a table of float64, without a module."""

    def __init__(self, table: Table, *, eps: float) -> None:
        self.table, self.eps = {name: value.double() for name, value in table.items()}, eps

    def linear(self, x: Tensor, name: str) -> Tensor:
        return x @ self.table[f"{name}.weight"].T + self.table.get(f"{name}.bias", torch.zeros(()))

    def norm(self, x: Tensor, name: str) -> Tensor:
        mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, correction=0)
        return (x - mean) / (variance + self.eps).sqrt() * self.table[f"{name}.weight"] + self.table[f"{name}.bias"]

    def attend(self, x: Tensor, names: tuple[str, str, str, str], *, heads: int, causal: bool = False) -> Tensor:
        width = x.shape[-1] // heads
        parts = []
        for head in range(heads):
            q, k, v = (self.linear(x, name)[..., head * width : (head + 1) * width] for name in names[:3])
            scores = q @ k.transpose(-1, -2) / width**0.5
            if causal:
                scores = scores + torch.full(scores.shape[-2:], -torch.inf).triu(1)
            parts.append(scores.softmax(-1) @ v)
        return self.linear(torch.cat(parts, -1), names[3])

    def clip_layer(self, x: Tensor, at: str, *, heads: int, causal: bool) -> Tensor:
        q, k, v, out = (f"{at}.self_attn.{part}_proj" for part in ("q", "k", "v", "out"))
        x = x + self.attend(self.norm(x, f"{at}.layer_norm1"), (q, k, v, out), heads=heads, causal=causal)
        inner = self.linear(self.norm(x, f"{at}.layer_norm2"), f"{at}.mlp.fc1")
        return x + self.linear(inner * torch.sigmoid(1.702 * inner), f"{at}.mlp.fc2")

    def dino_layer(self, x: Tensor, at: str, *, gated: bool) -> Tensor:
        names = [f"{at}.attention.attention.{part}" for part in ("query", "key", "value")]
        mixed = self.attend(self.norm(x, f"{at}.norm1"), (*names, f"{at}.attention.output.dense"), heads=3)
        x = x + mixed * self.table[f"{at}.layer_scale1.lambda1"]
        inner = self.norm(x, f"{at}.norm2")
        if gated:
            gate, value = self.linear(inner, f"{at}.mlp.weights_in").chunk(2, -1)
            inner = self.linear(gate * torch.sigmoid(gate) * value, f"{at}.mlp.weights_out")
        else:
            inner = self.linear(inner, f"{at}.mlp.fc1")
            inner = self.linear(inner * (1 + torch.erf(inner / 2**0.5)) / 2, f"{at}.mlp.fc2")
        return x + inner * self.table[f"{at}.layer_scale2.lambda1"]


def cells(pictures: Tensor, kernel: Tensor, *, patch: int) -> Tensor:
    """Patches row by row, each times the kernel."""
    rows = range(0, pictures.shape[-2], patch)
    columns = range(0, pictures.shape[-1], patch)
    flat = kernel.double().flatten(1)
    parts = [pictures[..., y : y + patch, x : x + patch].double().flatten(1) @ flat.T for y in rows for x in columns]
    return torch.stack(parts, 1)


def test_clips_pictures() -> None:
    table, pictures = clip(), torch.randn(2, 3, 16, 16)
    once = Again(table, eps=1e-5)
    at = "vision_model.embeddings"
    x = cells(pictures, table[f"{at}.patch_embedding.weight"], patch=8)
    x = torch.cat([once.table[f"{at}.class_embedding"].expand(2, 1, 12), x], 1)
    x = once.norm(x + once.table[f"{at}.position_embedding.weight"], "vision_model.pre_layrnorm")
    for i in range(2):
        x = once.clip_layer(x, f"vision_model.encoder.layers.{i}", heads=3, causal=False)
    expected = once.linear(once.norm(x[:, 0], "vision_model.post_layernorm"), "visual_projection")
    found = image_encoder(CLIP, table, where="here")(pictures)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("end", [29, 2])  # early configurations say 2, and mean the last token
def test_clips_words(end: int) -> None:
    table, once = clip(), Again(clip(), eps=1e-5)
    ids = torch.tensor([[28, 3, 4, 29, 29], [28, 7, 29, 29, 29]])
    at = "text_model.embeddings"
    x = once.table[f"{at}.token_embedding.weight"][ids] + once.table[f"{at}.position_embedding.weight"][:5]
    for i in range(2):
        x = once.clip_layer(x, f"text_model.encoder.layers.{i}", heads=2, causal=True)
    last = once.norm(x[torch.arange(2), torch.tensor([3, 2])], "text_model.final_layer_norm")
    config = CLIP | {"text_config": CLIP["text_config"] | {"eos_token_id": end}}
    found = text_encoder(config, table, where="here")(ids)
    torch.testing.assert_close(found.double(), once.linear(last, "text_projection"), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("side", [24, 16])
def test_dinos_pictures(gated: bool, side: int) -> None:
    table, pictures = dino(gated=gated), torch.randn(2, 3, side, side)
    once = Again(table, eps=1e-6)
    x = cells(pictures, table["embeddings.patch_embeddings.projection.weight"], patch=4)
    x = x + once.table["embeddings.patch_embeddings.projection.bias"]
    places = once.table["embeddings.position_embeddings"][0]
    learnt = places[1:].T.view(1, 12, 6, 6)
    fitted = F.interpolate(learnt, size=(side // 4, side // 4), mode="bicubic", align_corners=False)
    x = torch.cat([once.table["embeddings.cls_token"].expand(2, 1, 12), x], 1)
    x = x + torch.cat([places[:1], fitted.flatten(2)[0].T])
    for i in range(2):
        x = once.dino_layer(x, f"encoder.layer.{i}", gated=gated)
    config = DINO | {"use_swiglu_ffn": gated}
    found = image_encoder(config, table, where="here")(pictures)
    torch.testing.assert_close(found.double(), once.norm(x[:, 0], "layernorm"), rtol=1e-4, atol=1e-5)


def test_a_classifiers_prefix_is_left_out() -> None:
    prefixed = {f"dinov2.{name}": value for name, value in dino().items()}
    pictures = torch.randn(1, 3, 24, 24)
    expected = image_encoder(DINO, dino(), where="here")(pictures)
    assert torch.equal(image_encoder(DINO, prefixed, where="here")(pictures), expected)


@pytest.mark.parametrize(
    ("config", "spoil", "sentence"),
    [
        ({"model_type": "bert"}, None, "a 'bert' model is not read; dinov2, clip"),
        ({"hidden_act": "relu"}, None, "hidden_act 'relu' is not supported"),
        ({"num_attention_heads": 5}, None, "a width of 12 does not divide into 5 heads"),
        ({"num_hidden_layers": "many"}, None, "here: 'stack.depth'"),
        ({"num_hidden_layers": 10**9}, None, "here: 'stack.depth'"),
        ({}, lambda table: table.pop("layernorm.bias"), "'layernorm.bias' is missing"),
        ({"patch_size": 8}, None, "has shape"),
        ({"hidden_size": 16384, "num_hidden_layers": 200, "num_attention_heads": 1}, None, "has shape"),  # 2.5 TB
    ],
)
def test_what_is_refused(config: dict[str, Any], spoil: Callable[[Table], object] | None, sentence: str) -> None:
    table = dino()
    if spoil is not None:
        spoil(table)
    with pytest.raises(ModelFileError, match=sentence):
        image_encoder(DINO | config, table, where="here")


def test_transformers_own_models(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="needs transformers (CLIP and DINOv2 of their makers)")
    from safetensors.torch import load_file

    for config, pictures in (
        (transformers.Dinov2Config(**{k: v for k, v in DINO.items() if k != "model_type"}), torch.randn(2, 3, 16, 16)),
        (transformers.CLIPVisionConfig(**CLIP["vision_config"]), torch.randn(2, 3, 16, 16)),
    ):
        torch.manual_seed(0)
        model = transformers.AutoModel.from_config(config).eval()
        model.save_pretrained(tmp_path / config.model_type)
        weights = load_file(tmp_path / config.model_type / "model.safetensors")
        with torch.no_grad():
            expected = model(pictures).pooler_output
        found = image_encoder(config.to_dict(), weights, where="here")(pictures)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
