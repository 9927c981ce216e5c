"""The text encoder and the tokenizer in a folder of LDMTextToImagePipeline."""

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from darkroom.checkpoint import diffusers_text
from darkroom.checkpoint.diffusers import load_folder
from darkroom.checkpoint.diffusers_text import write_tokenizer
from darkroom.conditioning.text import TextSpec, Tokenizer
from darkroom.core.errors import ModelFileError
from darkroom.diffusion.model import ModelSpec
from pipelines import WORDS, change, save_text, text_parts


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    return text_parts()


@pytest.fixture
def folder(parts: dict[str, Any], tmp_path: Path) -> Path:
    return save_text(tmp_path / "text", parts)


def test_the_output_head_may_be_missing(folder: Path) -> None:
    assert spare(folder)
    path = folder / "bert" / "model.safetensors"
    save_file({name: each for name, each in load_file(path).items() if not name.startswith("to_logits")}, path)
    assert not spare(folder)


def spare(folder: Path) -> bool:
    spec = load_folder(folder).spec
    assert isinstance(spec, ModelSpec)
    (text,) = spec.conditioners
    assert isinstance(text, TextSpec)
    return text.encoder.spare_logits


def test_a_tokenizer_in_one_file(folder: Path) -> None:
    wanted = load_folder(folder).tokenizer
    listed = folder / "tokenizer" / "vocab.txt"
    text = Tokenizer.from_vocabulary(listed, length=5).to_json()
    (folder / "tokenizer" / "tokenizer.json").write_text(text, encoding="utf-8")
    listed.unlink()
    assert load_folder(folder).tokenizer == wanted
    (folder / "tokenizer" / "tokenizer_config.json").unlink()
    assert load_folder(folder).tokenizer == wanted


def test_another_length_is_said(parts: dict[str, Any], tmp_path: Path) -> None:
    from pipelines import bert

    stored = load_folder(save_text(tmp_path, {**parts, "bert": bert(max_position_embeddings=40)}))
    assert stored.odd == ("captions are padded to 40 tokens, diffusers pads them to 77",)
    assert len(stored.state["conditioning.by_field.caption.empty_ids"]) == 40


def test_tokenizers_that_are_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = folder / "tokenizer"

    def refused(message: str) -> None:
        with pytest.raises(ModelFileError, match=message) as caught:
            load_folder(folder)
        assert "\n" not in str(caught.value)
        assert "tokenizer" in str(caught.value)

    for name, value in (("do_lower_case", False), ("strip_accents", False), ("tokenize_chinese_chars", False)):
        change(place / "tokenizer_config.json", **{name: value})
        refused("tells letters by case or accents is not supported")
        change(place / "tokenizer_config.json", **{name: None})
    words = "\n".join(WORDS)
    (place / "vocab.txt").write_text(words.replace("[CLS]", "cls"), encoding="utf-8")
    refused(r"not a BERT vocabulary, it lacks \[CLS\]")
    (place / "vocab.txt").write_text(words + "\n" + "\n".join(map(str, range(20))), encoding="utf-8")
    refused("has 33 pieces, its text encoder knows 20")
    (place / "vocab.txt").write_bytes(b"\xff\xfe")
    refused("cannot be read as a vocabulary")
    monkeypatch.setattr(diffusers_text, "MOST_VOCABULARY", 1)
    refused("too large for a vocabulary")
    (place / "vocab.txt").unlink()
    refused(r"holds no tokenizer \(vocab\.txt, or tokenizer\.json, is missing\)")
    (place / "tokenizer.json").write_text("x")
    monkeypatch.setattr(diffusers_text, "MOST_VOCABULARY", 100)
    refused(r"tokenizer\.json: not a tokenizer file")


def test_other_encoders_are_refused(folder: Path) -> None:
    change(folder / "bert" / "config.json", encoder_ffn_dim=25)
    with pytest.raises(ModelFileError, match="encoder_ffn_dim '25' is not supported, '96' is"):
        load_folder(folder)
    change(folder / "model_index.json", bert=["transformers", "CLIPTextModel"])
    with pytest.raises(ModelFileError, match="bert: class 'CLIPTextModel' does not fit"):
        load_folder(folder)


def test_only_a_bert_tokenizer_is_written(tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Engine
    from tokenizers import models

    engine = Engine(models.WordLevel({"[CLS]": 0, "[SEP]": 1, "[PAD]": 2, "a": 3}, unk_token="a"))
    with pytest.raises(ModelFileError, match="needs a BERT tokenizer"):
        write_tokenizer(tmp_path, Tokenizer(engine, length=9).to_json())
    engine = Engine(models.WordPiece({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))
    engine.add_tokens(["new"])
    with pytest.raises(ModelFileError, match="needs a BERT tokenizer"):
        write_tokenizer(tmp_path, Tokenizer(engine, length=9).to_json())
