"""Captions: a WordPiece tokenizer and a transformer trained jointly with the denoiser (paper, section 3.3)."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Final, Literal, final

import torch
from jaxtyping import Float
from pydantic import Field
from tokenizers import Tokenizer as Engine
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn

from darkroom.conditioning.byte_pairs import END, START, clip_engine
from darkroom.conditioning.tokenizer_parts import check_parts
from darkroom.conditioning.wordpiece import learn_pieces
from darkroom.core.errors import DataError, InputError
from darkroom.core.shapes import Choice, Ids, Tokens
from darkroom.core.spec import Spec
from darkroom.nn.transformer import EncoderFamily, TransformerEncoder

SHORT = 2  # letters; words of so many or fewer may be spelt letter by letter without a note
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
MARKS: Final[dict[EncoderFamily, tuple[str, str, str]]] = {  # begin, end and padding of a caption
    "bert": ("[CLS]", "[SEP]", "[PAD]"),
    "clip": (START, END, END),
}


class SequenceEncoderSpec(Spec):
    """A transformer over token ids.

    vocabulary: number of ids · length: longest sequence · width, depth, heads x head_width: of the transformer ·
    spare_logits: keep the unused output head that original checkpoints hold · family: see `TransformerEncoder`.
    """

    written_where_used: ClassVar = frozenset({"family"})

    vocabulary: int = Field(gt=0)
    length: int = Field(gt=0)
    width: int = Field(gt=0)
    depth: int = Field(gt=0)
    heads: int = Field(default=8, gt=0)
    head_width: int = Field(default=64, gt=0)
    spare_logits: bool = False
    family: EncoderFamily = "bert"


class TextSpec(Spec):
    """Captions as tokens; `drop` is the share of samples trained with the empty caption."""

    kind: Literal["text"] = "text"
    port: Literal["tokens"] = "tokens"
    encoder: SequenceEncoderSpec
    drop: float = Field(default=0.1, ge=0, lt=1)

    field: ClassVar[str] = "caption"

    @property
    def width(self) -> int:
        """Width of the port."""
        return self.encoder.width


@final
class SequenceEncoder(nn.Module):
    """Token and position embeddings, then a transformer (the original's BERT-like encoder, or CLIP's)."""

    def __init__(self, spec: SequenceEncoderSpec) -> None:
        super().__init__()
        self.spec = spec
        # Unit deviation, torch's own: with the usual 0.02 a fresh encoder says nearly the same for all tokens, and the
        # caption is ignored for tens of thousands of pictures.
        self.tokens = nn.Embedding(spec.vocabulary, spec.width)
        self.positions = nn.Embedding(spec.length, spec.width)
        self.transformer = TransformerEncoder(
            spec.width, depth=spec.depth, heads=spec.heads, head_width=spec.head_width, family=spec.family
        )
        self.logits = nn.Linear(spec.width, spec.vocabulary) if spec.spare_logits else None

    def forward(self, ids: Ids) -> Float[Tensor, "b l d"]:
        """(b, l) ids with l at most the spec's length to (b, l, width)."""
        if ids.shape[1] > self.spec.length:
            raise InputError(f"{ids.shape[1]} tokens came, this encoder takes at most {self.spec.length}")
        if ids.numel():
            low, high = int(ids.min()), int(ids.max())
            if low < 0 or high >= self.spec.vocabulary:
                wrong = low if low < 0 else high
                raise InputError(f"token ids must lie in 0..{self.spec.vocabulary - 1}, {wrong} came")
        places = torch.arange(ids.shape[1], device=ids.device)
        return self.transformer(self.tokens(ids) + self.positions(places))


@final
class TextConditioner(nn.Module):
    """Caption ids to tokens. The empty caption is the null condition."""

    empty_ids: Tensor

    def __init__(self, spec: TextSpec) -> None:
        super().__init__()
        self.spec = spec
        self.encoder = SequenceEncoder(spec.encoder)
        ids = torch.zeros(spec.encoder.length, dtype=torch.long)
        self.register_buffer("empty_ids", ids)

    def set_empty(self, ids: Sequence[int]) -> None:
        """Tell which ids the tokenizer gives the empty caption (kept with the weights)."""
        self.empty_ids.copy_(torch.tensor(list(ids), dtype=torch.long))

    def forward(self, ids: Ids) -> Tokens:
        """(b, l) ids to (b, l, width)."""
        return self.encoder(ids)

    def drop(self, ids: Ids, choice: Choice) -> Ids:
        """The empty caption where `choice` says so."""
        return torch.where(choice[:, None], self.empty_ids[: ids.shape[1]], ids)

    def null(self, port: Tokens) -> Tokens:
        """The empty caption at the batch size and length of `port`."""
        empty = self.encoder(self.empty_ids[None, : port.shape[1]])
        return empty.to(port.dtype).expand(len(port), -1, -1)


@final
class Tokenizer:
    """Captions to ids of pieces of words, between marks of begin and end, padded and cut to one length.

    WordPiece as BERT uses it (lower case, [CLS] ... [SEP] [PAD] ...), or CLIP's byte pairs, padded with the end mark.
    """

    def __init__(self, engine: Engine, *, length: int) -> None:
        self._engine = engine
        self.length = length
        begin, end, pad = MARKS["clip" if isinstance(engine.model, models.BPE) else "bert"]
        ids = {token: _id(engine, token) for token in (begin, end, pad)}
        engine.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A {end}", special_tokens=[(token, ids[token]) for token in (begin, end)]
        )
        engine.enable_truncation(length)
        engine.enable_padding(length=length, pad_id=ids[pad], pad_token=pad)

    @classmethod
    def train(cls, captions: Iterable[str], *, vocabulary: int, length: int) -> "Tokenizer":
        """A vocabulary of at most `vocabulary` pieces from captions."""
        engine = _bert(models.WordPiece(unk_token="[UNK]"))
        words = Counter(word for caption in captions for word in _words(engine, caption))
        pieces = learn_pieces(words, specials=SPECIALS, size=vocabulary)
        engine.model = models.WordPiece({piece: place for place, piece in enumerate(pieces)}, unk_token="[UNK]")
        return cls(engine, length=length)

    @classmethod
    def from_vocabulary(cls, path: Path, *, length: int) -> "Tokenizer":
        """From a BERT `vocab.txt`, one piece a line."""
        try:
            pieces = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")  # other ends of lines are pieces
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: cannot be read as a vocabulary ({error})") from None
        missing = [token for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]") if token not in pieces]
        if missing:
            raise DataError(f"{path}: not a BERT vocabulary, it lacks {', '.join(missing)}")
        vocabulary = {piece: place for place, piece in enumerate(pieces)}
        return cls(_bert(models.WordPiece(vocabulary, unk_token="[UNK]")), length=length)

    @classmethod
    def from_pieces(
        cls, vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]], *, length: int
    ) -> "Tokenizer":
        """CLIP's, from what `byte_pairs.read_pieces` answers; `DataError` where that does not fit."""
        return cls(clip_engine(vocabulary, merges), length=length)

    @classmethod
    def from_json(cls, text: str, *, length: int) -> "Tokenizer":
        """From what `to_json` wrote, or any WordPiece `tokenizer.json`; `DataError` for others, and damaged ones."""
        try:
            check_parts(json.loads(text))
            engine = Engine.from_str(text)
        except Exception as error:  # the library raises bare Exception
            raise DataError(f"not a tokenizer file ({error})") from None
        return cls(engine, length=length)

    def to_json(self) -> str:
        """The tokenizer as one JSON text, in the standard `tokenizer.json` format."""
        return json.dumps(json.loads(self._engine.to_str()), ensure_ascii=False)

    @property
    def vocabulary(self) -> int:
        """Number of pieces."""
        return self._engine.get_vocab_size()

    def __call__(self, captions: Sequence[str]) -> Ids:
        """(b, length) ids."""
        return torch.tensor([encoding.ids for encoding in self._engine.encode_batch(list(captions))])

    def spelt(self, caption: str) -> list[str]:
        """Words of a caption that are not in the vocabulary: spelt nearly letter by letter, or not read at all."""
        found: list[str] = []
        for word in dict.fromkeys(_words(self._engine, caption)):
            encoding = self._engine.encode(word, add_special_tokens=False)
            pieces = [piece for piece, seen in zip(encoding.tokens, encoding.attention_mask, strict=True) if seen]
            spelt = "[UNK]" in pieces or (len(word) > SHORT and len(pieces) > len(word) / 2)
            if spelt and word.isalnum():
                found.append(word)
        return found

    def cuts(self, caption: str) -> bool:
        """Is the caption longer than fits?"""
        return bool(self._engine.encode(caption).overflowing)


def _bert(model: models.WordPiece) -> Engine:
    engine = Engine(model)
    engine.normalizer = normalizers.BertNormalizer(lowercase=True)
    engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    engine.decoder = decoders.WordPiece()
    return engine


def _words(engine: Engine, caption: str) -> list[str]:
    """The words of a caption as the engine cuts it, lower case, for BERT without accents."""
    normal = engine.normalizer.normalize_str(caption)
    return [normal[slice(*place)] for _, place in engine.pre_tokenizer.pre_tokenize_str(normal)]


def _id(engine: Engine, token: str) -> int:
    found = engine.token_to_id(token)
    if found is None:
        raise DataError(f"the tokenizer has no {token} token, which captions need")
    return found
