"""The parts of a stranger's `tokenizer.json`, looked at before the library that reads it.

Some parts make that library abort, which no program can catch as an error, and a pattern may take for ever on the text
that it was made for.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from darkroom.conditioning.byte_pairs import SPACES, WORDS

PATTERNS: Final = frozenset({WORDS, SPACES})
PARTS: Final[Mapping[str, frozenset[str]]] = {
    "model": frozenset({"WordPiece", "BPE"}),
    "normalizer": frozenset(
        {"Sequence", "BertNormalizer", "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Strip", "Replace"}
    ),
    "pre_tokenizer": frozenset(
        {"Sequence", "BertPreTokenizer", "Whitespace", "WhitespaceSplit", "Punctuation", "Split", "ByteLevel"}
    ),
    "decoder": frozenset({"WordPiece", "ByteLevel", "BPEDecoder"}),
}


def check_parts(tokenizer: Any) -> None:
    """`ValueError` names a part that is missing or not needed, or a word for what is unknown that is itself unknown."""
    if not isinstance(tokenizer, Mapping):
        raise ValueError("it is no JSON object")
    for name, known in PARTS.items():
        for part in _inside({key: value for key, value in _table(tokenizer.get(name)).items() if key != "vocab"}):
            if isinstance(part.get("type"), str) and part["type"] not in known:
                raise ValueError(f"its {name} {part['type'][:60]!r} is not supported; {', '.join(sorted(known))} are")
            if "Regex" in part and part["Regex"] not in PATTERNS:
                raise ValueError(f"its pattern {str(part['Regex'])[:60]!r} is not supported")
    for name in ("normalizer", "pre_tokenizer"):
        if not _table(tokenizer.get(name)):
            raise ValueError(f"it has no {name}, which cuts captions")
    model = _table(tokenizer.get("model"))
    unknown, vocabulary = model.get("unk_token"), model.get("vocab")
    if isinstance(unknown, str) and isinstance(vocabulary, Mapping) and unknown not in vocabulary:
        raise ValueError(f"its vocabulary lacks {unknown[:60]!r}, which stands for what it does not know")


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _inside(value: Any) -> Iterator[Mapping[str, Any]]:
    """All tables in a JSON value, itself among them."""
    if isinstance(value, Mapping):
        yield value
    if isinstance(value, Mapping | list):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _inside(each)
