"""Captions: the tokenizer's promises, and the encoder behind it."""

import functools
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from darkroom.conditioning.text import SequenceEncoder, SequenceEncoderSpec, TextConditioner, TextSpec, Tokenizer
from darkroom.core.errors import DataError, InputError

CAPTIONS = ["a red circle", "a blue square left of a red star", "two green hearts"] * 3
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "circle", "##s", "a"]
SPEC = SequenceEncoderSpec(vocabulary=12, length=6, width=8, depth=1, heads=2, head_width=4)


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    return Tokenizer.train(CAPTIONS, vocabulary=80, length=8)


@pytest.fixture
def vocabulary(tmp_path: Path) -> Path:
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(VOCABULARY) + "\n")
    return path


def text(*, empty: bool = True, **options) -> TextConditioner:
    torch.manual_seed(0)
    conditioner = TextConditioner(TextSpec(encoder=SPEC.model_copy(update=options)))
    if empty:
        conditioner.set_empty([2, 3, 0, 0, 0, 0])
    return conditioner


def test_words_that_are_spelt(trained: Tokenizer, vocabulary: Path) -> None:
    assert trained.spelt("a Red circle left of two green hearts") == []
    assert trained.spelt("a red dragon, an elf and a red dragon") == ["dragon", "elf", "and"]
    assert Tokenizer.from_vocabulary(vocabulary, length=6).spelt("a red circles dragon") == ["dragon"]


def test_captions_are_framed_and_padded(trained: Tokenizer) -> None:
    ids = trained(["a red circle", ""])
    assert ids.shape == (2, 8)
    assert ids.dtype == torch.long
    assert ids[0, 0] == 2
    assert ids[0].tolist().count(3) == 1
    assert ids[1].tolist() == [2, 3, 0, 0, 0, 0, 0, 0]
    assert int(ids.max()) < trained.vocabulary <= 80


def test_case_and_spaces_do_not_matter(trained: Tokenizer) -> None:
    assert torch.equal(trained(["A  Red CIRCLE "]), trained(["a red circle"]))
    assert not torch.equal(trained(["a red circle"]), trained(["a circle red"]))


def test_long_captions_are_cut_and_said_so(trained: Tokenizer) -> None:
    long = "a red circle " * 10
    ids = trained([long])[0].tolist()
    assert (len(ids), ids[0], ids[-1], ids.count(0)) == (8, 2, 3, 0)
    assert trained.cuts(long)
    assert not trained.cuts("a red circle")


def test_through_json_nothing_is_lost(trained: Tokenizer) -> None:
    again = Tokenizer.from_json(trained.to_json(), length=8)
    captions = [*CAPTIONS, "", "an unheard thing", "é ü 漢"]
    assert torch.equal(again(captions), trained(captions))
    assert again.vocabulary == trained.vocabulary
    assert again.to_json() == trained.to_json()
    assert Tokenizer.from_json(trained.to_json(), length=5)(["a red circle"]).shape == (1, 5)


def test_a_bert_vocabulary(vocabulary: Path) -> None:
    tokenizer = Tokenizer.from_vocabulary(vocabulary, length=7)
    assert tokenizer.vocabulary == len(VOCABULARY)
    assert tokenizer(["a red Circles"]).tolist() == [[2, 8, 5, 6, 7, 3, 0]]
    assert tokenizer(["a purple circle"]).tolist() == [[2, 8, 1, 6, 3, 0, 0]]  # unknown words are [UNK]
    odd = [*VOCABULARY[:5], "\u2028", "\x85", *VOCABULARY[5:]]  # pieces that look like ends of lines
    vocabulary.write_text("\n".join(odd) + "\n", encoding="utf-8")
    assert Tokenizer.from_vocabulary(vocabulary, length=7).vocabulary == len(VOCABULARY) + 2


@pytest.mark.parametrize("token", ["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
def test_a_vocabulary_without_special_tokens_is_refused(vocabulary: Path, token: str) -> None:
    vocabulary.write_text("\n".join(piece for piece in VOCABULARY if piece != token))
    with pytest.raises(DataError, match=rf"not a BERT vocabulary, it lacks \[{token[1:-1]}\]"):
        Tokenizer.from_vocabulary(vocabulary, length=7)


def test_unreadable_tokenizers_are_refused(trained: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read as a vocabulary"):
        Tokenizer.from_vocabulary(tmp_path / "absent.txt", length=7)
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read as a vocabulary"):
        Tokenizer.from_vocabulary(tmp_path / "binary.txt", length=7)
    for broken in ("", "{}", "[1, 2]"):
        with pytest.raises(DataError, match="not a tokenizer file"):
            Tokenizer.from_json(broken, length=7)
    plain = json.loads(trained.to_json())
    plain["model"]["vocab"] = {"[PAD]": 0, "[UNK]": 1, "[SEP]": 2}
    plain["added_tokens"] = []
    plain["post_processor"] = None
    with pytest.raises(DataError, match=r"no \[CLS\] token"):
        Tokenizer.from_json(json.dumps(plain), length=7)


PARTS: dict[str, tuple[str, Any, str]] = {
    "abort": ("normalizer", {"type": "Precompiled", "precompiled_charsmap": "AAAA"}, "'Precompiled' is not supported"),
    "pattern": (
        "pre_tokenizer",
        {
            "type": "Sequence",
            "pretokenizers": [{"type": "Split", "pattern": {"Regex": "(a+)+$"}}],
        },
        "its pattern .* is not supported",
    ),
    "model": ("model", {"type": "WordLevel", "vocab": {"[UNK]": 0}, "unk_token": "[UNK]"}, "'WordLevel' is not"),
    "unknown": ("model", {"type": "WordPiece", "vocab": {"a": 0}, "unk_token": "zz"}, "its vocabulary lacks 'zz'"),
    "no normalizer": ("normalizer", None, "it has no normalizer"),
    "no cutting": ("pre_tokenizer", None, "it has no pre_tokenizer"),
    "deep": ("normalizer", functools.reduce(lambda inner, _: {"a": inner}, range(400), {}), "recursion"),
}


@pytest.mark.parametrize("name", PARTS)
def test_tokenizers_that_mean_harm_or_cut_no_captions(trained: Tokenizer, name: str) -> None:
    """The first one makes the library abort, the second would take for ever on a caption of many letters a."""
    part, value, message = PARTS[name]
    text = json.dumps({**json.loads(trained.to_json()), part: value})
    with pytest.raises(DataError, match=f"not a tokenizer file .*{message}"):
        Tokenizer.from_json(text, length=7)


@torch.no_grad()
def test_the_encoder_adds_positions() -> None:
    torch.manual_seed(0)
    encoder = SequenceEncoder(SPEC)
    ids = torch.tensor([[2, 5, 6, 3, 0, 0]])
    places = encoder.positions.weight
    torch.testing.assert_close(encoder(ids), encoder.transformer(encoder.tokens(ids) + places))
    assert encoder(ids[:, :4]).shape == (1, 4, 8)
    assert not torch.allclose(encoder(ids[:, [0, 2, 1, 3, 4, 5]])[:, [0, 2, 1, 3, 4, 5]], encoder(ids), atol=1e-4)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([[0] * 7], "7 tokens came, this encoder takes at most 6"),
        ([[12]], r"token ids must lie in 0\.\.11, 12 came"),
        ([[0, -1]], r"token ids must lie in 0\.\.11, -1 came"),
    ],
)
def test_ids_that_do_not_fit_are_refused(ids: list[list[int]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        text()(torch.tensor(ids))


def test_the_spare_head_is_kept_and_unused() -> None:
    without, kept = text(), text(spare_logits=True)
    assert without.encoder.logits is None
    assert kept.encoder.logits is not None
    kept(torch.tensor([[2, 3]])).sum().backward()
    assert kept.encoder.logits.weight.grad is None


def test_dropping_puts_the_empty_caption_where_chosen() -> None:
    ids = torch.tensor([[2, 5, 6, 3], [2, 7, 3, 0]])
    assert text().drop(ids, torch.tensor([True, False])).tolist() == [[2, 3, 0, 0], [2, 7, 3, 0]]


@torch.no_grad()
def test_null_is_the_empty_caption_at_the_same_shape() -> None:
    conditioner = text()
    given = conditioner(torch.tensor([[2, 5, 6, 3], [2, 7, 3, 0]]))
    null = conditioner.null(given)
    assert null.shape == given.shape
    torch.testing.assert_close(null[:1], conditioner(torch.tensor([[2, 3, 0, 0]])))
    assert torch.equal(null[0], null[1])


def test_what_is_empty_is_kept_with_the_weights() -> None:
    other = text(empty=False)
    other.load_state_dict(text().state_dict())
    assert other.empty_ids.tolist() == [2, 3, 0, 0, 0, 0]


@torch.no_grad()
def test_a_fresh_encoder_tells_tokens_apart() -> None:
    """What differs between the tokens of a caption must not drown in what they have in common, or nobody listens."""
    torch.manual_seed(0)
    spec = SequenceEncoderSpec(vocabulary=50, length=12, width=64, depth=3, heads=4, head_width=16)
    encoder = SequenceEncoder(spec)
    encoded = encoder(torch.randint(50, (64, 12)))
    own = encoded - encoded.mean(dim=1, keepdim=True)
    assert float(own.square().mean()) > 0.5 * float(encoded.square().mean())
