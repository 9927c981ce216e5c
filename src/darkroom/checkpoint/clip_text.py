"""CLIP's text model and tokenizer in a folder: config.json <-> our spec, vocab.json and merges.txt <-> ours."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import FiniteFloat

from darkroom.checkpoint.diffusers_config import Count, Plain, check_options, read_options
from darkroom.checkpoint.diffusers_files import read_object, write_object
from darkroom.checkpoint.diffusers_text import SAME, TOKENS, NoTokenizer
from darkroom.checkpoint.read_spec import parsed
from darkroom.conditioning.byte_pairs import END, START, pieces_of, read_pieces
from darkroom.conditioning.text import SequenceEncoderSpec, Tokenizer
from darkroom.core.errors import DataError, ModelFileError, NotYetError
from darkroom.core.spec import Spec

CLASS: Final = "CLIPTextModel"
LISTED: Final = ("vocab.json", "merges.txt")
WHOLE: Final = "tokenizer.json"


class ClipConfig(Spec):
    """What is read of a CLIPTextModel, with its defaults."""

    vocab_size: Count = 49408
    hidden_size: Count = 512
    intermediate_size: Count = 2048
    num_hidden_layers: Count = 12
    num_attention_heads: Count = 8
    max_position_embeddings: Count = 77
    hidden_act: str = "quick_gelu"
    layer_norm_eps: FiniteFloat = 1e-5


def clip_spec(config: Mapping[str, Any], *, where: str) -> SequenceEncoderSpec:
    """Of a CLIPTextModel; `NotYetError` for OpenCLIP's, `ModelFileError` names what else our encoder does not have."""
    found = read_options(ClipConfig, config, where=where)
    if found.hidden_act == "gelu":
        raise NotYetError(
            f"{where}: OpenCLIP's text encoder (hidden_act 'gelu'), as of Stable Diffusion 2, is not read"
        )
    fits = {"hidden_act": "quick_gelu", "intermediate_size": 4 * found.hidden_size, "layer_norm_eps": 1e-5}
    came = {name: getattr(found, name) for name in fits}
    fits["architectures"], came["architectures"] = [CLASS], config.get("architectures") or [CLASS]
    check_options(came, fits, where=where)
    if found.hidden_size % found.num_attention_heads:
        width, heads = found.hidden_size, found.num_attention_heads
        raise ModelFileError(f"{where}: a hidden_size of {width} does not divide into {heads} attention heads")
    values = {
        "vocabulary": found.vocab_size,
        "length": found.max_position_embeddings,
        "width": found.hidden_size,
        "depth": found.num_hidden_layers,
        "heads": found.num_attention_heads,
        "head_width": found.hidden_size // found.num_attention_heads,
        "family": "clip",
    }
    return parsed(SequenceEncoderSpec, values, where=where)


def clip_config(spec: SequenceEncoderSpec) -> Plain:
    """config.json of a CLIPTextModel of this spec; `ModelFileError` for sizes that it does not have."""
    if spec.length != TOKENS or spec.heads * spec.head_width != spec.width:
        raise ModelFileError(
            f"diffusers' StableDiffusionPipeline has a text encoder of {TOKENS} tokens whose heads make up its width; "
            f"this one takes {spec.length} and has {spec.heads} heads of {spec.head_width} for a width of {spec.width}"
        )
    return {
        "architectures": [CLASS],
        "model_type": "clip_text_model",
        "vocab_size": spec.vocabulary,
        "hidden_size": spec.width,
        "intermediate_size": 4 * spec.width,
        "projection_dim": spec.width,
        "num_hidden_layers": spec.depth,
        "num_attention_heads": spec.heads,
        "max_position_embeddings": spec.length,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
        "attention_dropout": 0.0,
        "bos_token_id": spec.vocabulary - 2,
        "eos_token_id": spec.vocabulary - 1,
        "pad_token_id": 1,
        "torch_dtype": "float32",
    }


def find_clip_tokenizer(folder: Path, *, encoder: SequenceEncoderSpec) -> Tokenizer | None:
    """The tokenizer in a folder, padding to the encoder's length; None where there is none.

    It is its `vocab.json` and `merges.txt`, or its `tokenizer.json`. `ModelFileError` for what is not CLIP's.
    """
    listed, whole = [folder / name for name in LISTED], folder / WHOLE
    try:
        if all(path.is_file() for path in listed):
            pieces = read_pieces(*listed)
        elif whole.is_file():
            pieces = pieces_of(whole)
        else:
            return None
        found = Tokenizer.from_pieces(*pieces, length=encoder.length)
    except DataError as error:
        message = str(error)
        raise ModelFileError(message if str(folder) in message else f"{folder}: {message}") from None
    if found.vocabulary > encoder.vocabulary:
        raise ModelFileError(
            f"{folder}: its tokenizer has {found.vocabulary} pieces, the text encoder knows {encoder.vocabulary}"
        )
    return found


def read_clip_tokenizer(folder: Path, *, encoder: SequenceEncoderSpec) -> Tokenizer:
    """The tokenizer in a pipeline's folder; `NoTokenizer` when it is missing, `ModelFileError` for one that fills
    captions up otherwise.
    """
    options = folder / "tokenizer_config.json"
    said = read_object(options).get("pad_token", END) if options.is_file() else END
    pad = said.get("content") if isinstance(said, dict) else said
    if pad not in (END, None):
        raise ModelFileError(f"{options}: a tokenizer that fills captions up with {str(pad)[:40]!r} is not supported")
    found = find_clip_tokenizer(folder, encoder=encoder)
    if found is None:
        raise NoTokenizer(f"{folder}: holds no tokenizer ({' and '.join(LISTED)}, or {WHOLE}, are missing)")
    return found


def write_clip_tokenizer(folder: Path, text: str) -> None:
    """The files of a CLIPTokenizer; `ModelFileError` when this `tokenizer.json` text does not cut words as it does."""
    given = json.loads(text)
    (folder / WHOLE).write_text(text, encoding="utf-8")
    try:
        vocabulary, merges = pieces_of(folder / WHOLE)
        again = json.loads(Tokenizer.from_pieces(vocabulary, merges, length=TOKENS).to_json())
    except DataError:
        again = {}
    if any(given.get(part) != again.get(part) for part in SAME):
        raise ModelFileError(
            "diffusers' StableDiffusionPipeline needs a tokenizer of CLIP's, and this model's is another"
        )
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / LISTED[0]).write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    (folder / LISTED[1]).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    special = {"bos_token": START, "eos_token": END, "pad_token": END, "unk_token": END}
    config = {**special, "do_lower_case": True, "model_max_length": TOKENS, "tokenizer_class": "CLIPTokenizer"}
    for name, values in (("tokenizer_config.json", config), ("special_tokens_map.json", special)):
        write_object(folder / name, values)
