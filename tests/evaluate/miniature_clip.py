"""A folder with a CLIP of random weights, as transformers saves one."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors


def clip(folder: Path) -> Path:
    """A miniature CLIP with words."""
    transformer = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = transformer | {"image_size": 32, "patch_size": 16}
    text = transformer | {"vocab_size": 6, "max_position_embeddings": 5, "eos_token_id": 5}
    config = {"model_type": "clip", "projection_dim": 12, "vision_config": vision, "text_config": text}
    draw = torch.Generator().manual_seed(1)
    state = {
        "vision_model.embeddings.class_embedding": (16,),
        "vision_model.embeddings.patch_embedding.weight": (16, 3, 16, 16),
        "vision_model.embeddings.position_embedding.weight": (5, 16),
        "visual_projection.weight": (12, 16),
        "text_model.embeddings.token_embedding.weight": (6, 16),
        "text_model.embeddings.position_embedding.weight": (5, 16),
        "text_projection.weight": (12, 16),
    }
    norms = ["vision_model.pre_layrnorm", "vision_model.post_layernorm", "text_model.final_layer_norm"]
    for top in ("vision_model", "text_model"):
        at = f"{top}.encoder.layers.0"
        norms += [f"{at}.layer_norm1", f"{at}.layer_norm2"]
        for part in (
            "self_attn.q_proj",
            "self_attn.k_proj",
            "self_attn.v_proj",
            "self_attn.out_proj",
            "mlp.fc1",
            "mlp.fc2",
        ):
            state |= {f"{at}.{part}.weight": (16, 16), f"{at}.{part}.bias": (16,)}
    state |= {f"{name}.{part}": (16,) for name in norms for part in ("weight", "bias")}
    folder.mkdir()
    weights = {name: torch.randn(shape, generator=draw) for name, shape in state.items()}
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    prepared = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}, "resample": 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(prepared))
    words = Tokenizer(models.WordLevel({"a": 0, "red": 1, "blue": 2, "?": 3, "<s>": 4, "</s>": 5}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 4), ("</s>", 5)])
    words.save(str(folder / "tokenizer.json"))
    return folder
