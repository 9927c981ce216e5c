"""The text encoder of LDMTextToImagePipeline and its tokenizer: config.json <-> our spec, vocab.txt <-> ours."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from darkroom.checkpoint.diffusers_config import Count, Plain, check_options, read_options
from darkroom.checkpoint.diffusers_files import read_object, write_object
from darkroom.checkpoint.read_spec import parsed
from darkroom.conditioning.text import SequenceEncoderSpec, Tokenizer
from darkroom.core.errors import DataError, ModelFileError
from darkroom.core.spec import Spec

TOKENS: Final = 77  # that the pipeline pads captions to, whatever its encoder takes
MOST_VOCABULARY: Final = 64 * 2**20  # bytes
SAME: Final = ("normalizer", "pre_tokenizer", "model")  # parts of a tokenizer that say which ids a text gets
_ANOTHER: Final = "diffusers' LDMTextToImagePipeline needs a BERT tokenizer, and this model's is another"
_NAMED: Final = {"cls": "[CLS]", "mask": "[MASK]", "pad": "[PAD]", "sep": "[SEP]", "unk": "[UNK]"}


class NoTokenizer(ModelFileError):
    """A pipeline without the files of its tokenizer, of which all else can still be told."""


class BertConfig(Spec):
    """What is read of an LDMBertModel, with its defaults."""

    model_type: str = "ldmbert"
    vocab_size: Count = 30522
    max_position_embeddings: Count = 77
    encoder_layers: Count = 32
    encoder_ffn_dim: Count = 5120
    encoder_attention_heads: Count = 8
    head_dim: Count = 64
    d_model: Count = 1280
    activation_function: str = "gelu"
    pad_token_id: int | None = 0


class TokenizerConfig(Spec):
    """What is read of a BertTokenizer, with its defaults."""

    do_lower_case: bool = True
    strip_accents: bool | None = None
    tokenize_chinese_chars: bool = True


def bert_spec(config: Mapping[str, Any], *, where: str) -> SequenceEncoderSpec:
    """Of an LDMBertModel; `ModelFileError` names what our encoder does not have."""
    found = read_options(BertConfig, config, where=where)
    fits = {"model_type": "ldmbert", "activation_function": "gelu", "encoder_ffn_dim": 4 * found.d_model}
    check_options({name: getattr(found, name) for name in fits}, fits, where=where)
    sizes = {
        "vocabulary": found.vocab_size,
        "length": found.max_position_embeddings,
        "width": found.d_model,
        "depth": found.encoder_layers,
        "heads": found.encoder_attention_heads,
        "head_width": found.head_dim,
    }
    return parsed(SequenceEncoderSpec, {**sizes, "spare_logits": True}, where=where)


def bert_config(spec: SequenceEncoderSpec) -> Plain:
    """config.json of an LDMBertModel of this spec; `ModelFileError` where its pipeline gives it another length."""
    if spec.length != TOKENS:
        raise ModelFileError(
            f"diffusers' LDMTextToImagePipeline gives its text encoder {TOKENS} tokens, this one takes {spec.length}"
        )
    return {
        "architectures": ["LDMBertModel"],
        "model_type": "ldmbert",
        "vocab_size": spec.vocabulary,
        "max_position_embeddings": spec.length,
        "encoder_layers": spec.depth,
        "encoder_ffn_dim": 4 * spec.width,
        "encoder_attention_heads": spec.heads,
        "head_dim": spec.head_width,
        "d_model": spec.width,
        "activation_function": "gelu",
        "activation_dropout": 0.0,
        "attention_dropout": 0.0,
        "dropout": 0.0,
        "encoder_layerdrop": 0.0,
        "pad_token_id": 0,
        "torch_dtype": "float32",
    }


def read_tokenizer(folder: Path, *, encoder: SequenceEncoderSpec) -> Tokenizer:
    """The tokenizer in a pipeline's folder, padding to the encoder's length; `ModelFileError` for what is not BERT's,
    `NoTokenizer` where there is none.

    It is its `vocab.txt`, or its `tokenizer.json` where there is no such list.
    """
    options = folder / "tokenizer_config.json"
    said = read_options(TokenizerConfig, read_object(options) if options.is_file() else {}, where=str(options))
    if not said.do_lower_case or said.strip_accents is False or not said.tokenize_chinese_chars:
        raise ModelFileError(f"{options}: a tokenizer that tells letters by case or accents is not supported")
    found = next((path for name in ("vocab.txt", "tokenizer.json") if (path := folder / name).is_file()), None)
    if found is None:
        raise NoTokenizer(f"{folder}: holds no tokenizer (vocab.txt, or tokenizer.json, is missing)")
    return read_words(found, encoder=encoder)


def read_words(path: Path, *, encoder: SequenceEncoderSpec) -> Tokenizer:
    """BERT's `vocab.txt` or a `tokenizer.json`; `ModelFileError` for others, and for more pieces than the encoder's."""
    if path.is_file() and path.stat().st_size > MOST_VOCABULARY:
        raise ModelFileError(f"{path}: too large for a vocabulary")
    try:
        if path.suffix == ".txt":
            found = Tokenizer.from_vocabulary(path, length=encoder.length)
        else:
            found = Tokenizer.from_json(path.read_text(encoding="utf-8"), length=encoder.length)
    except (DataError, OSError, UnicodeDecodeError) as error:
        message = str(error)
        raise ModelFileError(message if str(path) in message else f"{path}: {message}") from None
    if found.vocabulary > encoder.vocabulary:
        raise ModelFileError(f"{path}: has {found.vocabulary} pieces, its text encoder knows {encoder.vocabulary}")
    return found


def write_tokenizer(folder: Path, text: str) -> None:
    """The files of a BertTokenizer; `ModelFileError` when this `tokenizer.json` text does not cut words as it does."""
    try:
        tokenizer = json.loads(Tokenizer.from_json(text, length=TOKENS).to_json())
    except DataError as error:
        raise ModelFileError(f"{_ANOTHER} ({error})") from None
    vocabulary = tokenizer["model"].get("vocab")
    listed = isinstance(vocabulary, dict)
    pieces = sorted(vocabulary, key=vocabulary.__getitem__) if listed else []
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces), encoding="utf-8")
    if not listed or not _same(tokenizer, folder / "vocab.txt"):
        raise ModelFileError(_ANOTHER)
    special = {f"{name}_token": token for name, token in _NAMED.items()}
    options = {"do_lower_case": True, "strip_accents": None, "tokenize_chinese_chars": True}
    config = {**special, **options, "model_max_length": TOKENS, "tokenizer_class": "BertTokenizer"}
    for name, values in (("tokenizer_config.json", config), ("special_tokens_map.json", special)):
        write_object(folder / name, values)


def _same(tokenizer: Mapping[str, Any], vocabulary: Path) -> bool:
    """Does BERT's tokenizer with this vocabulary give a text the same ids?"""
    try:
        again = json.loads(Tokenizer.from_vocabulary(vocabulary, length=TOKENS).to_json())
    except DataError:
        return False
    added = {each["content"]: each["id"] for each in tokenizer["added_tokens"]}
    return all(tokenizer[part] == again[part] for part in SAME) and added.items() <= again["model"]["vocab"].items()
