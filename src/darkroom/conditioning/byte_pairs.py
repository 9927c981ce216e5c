"""CLIP's way to cut words: byte-pair encoding (Sennrich et al. 2016) of lower-case words."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Engine

from darkroom.core.errors import DataError

START: Final = "<|startoftext|>"
END: Final = "<|endoftext|>"  # which also stands for what is unknown, and fills captions up
SPACES: Final = r"\s+"
WORDS: Final = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
LARGEST: Final = 64 * 2**20  # bytes of a file of words
Pairs = Sequence[tuple[str, str]]


def clip_engine(vocabulary: Mapping[str, int], merges: Pairs) -> Engine:
    """An engine that gives texts the ids that CLIP's gives them; `DataError` for pairs and pieces that do not fit.

    vocabulary: pieces and their ids, 0 to n - 1 · merges: pairs of pieces, most frequent first.
    """
    missing = [token for token in (START, END) if token not in vocabulary]
    if missing:
        raise DataError(f"not a vocabulary of CLIP's, it lacks {' and '.join(missing)}")
    try:
        model = models.BPE(dict(vocabulary), list(merges), end_of_word_suffix="</w>", unk_token=END)
    except Exception as error:  # the library raises bare Exception
        raise DataError(f"its merges do not fit its vocabulary ({error})") from None
    engine = Engine(model)
    spaces = normalizers.Replace(Regex(SPACES), " ")
    engine.normalizer = normalizers.Sequence([normalizers.NFC(), spaces, normalizers.Lowercase()])
    split = pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True)
    engine.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    engine.decoder = decoders.ByteLevel()
    engine.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in (START, END)])
    return engine


def read_pieces(vocabulary: Path, merges: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """CLIP's `vocab.json` and `merges.txt`; `DataError` for files of another kind."""
    lines = [line.strip() for line in _text(merges).split("\n")]
    return _numbered(_object(vocabulary), where=vocabulary), _pairs(
        [line for line in lines if line and line[:8] != "#version"], where=merges
    )


def pieces_of(path: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """What `read_pieces` answers, of a `tokenizer.json`; how that cuts words before is not asked, CLIP has one way."""
    model = _object(path).get("model")
    match model:
        case {"vocab": {**found}, "merges": [*merges]}:
            return _numbered(found, where=path), _pairs(merges, where=path)
        case _:
            raise DataError(f"{path}: not a tokenizer of CLIP's, it has no vocabulary with merges")


def _numbered(found: Mapping[str, object], *, where: Path) -> dict[str, int]:
    numbered = {piece: number for piece, number in found.items() if type(number) is int}
    if not found or sorted(numbered.values()) != list(range(len(found))):
        raise DataError(f"{where}: a vocabulary must number its {len(found)} pieces from 0 on")
    return numbered


def _pairs(merges: Sequence[object], *, where: Path) -> list[tuple[str, str]]:
    """Each merge is a text of two pieces, or a list of them."""
    found: list[tuple[str, str]] = []
    for merge in merges:
        match merge.split(" ") if isinstance(merge, str) else merge:
            case [str(one), str(other)]:
                found.append((one, other))
            case _:
                raise DataError(f"{where}: a merge is two pieces, {str(merge)[:60]!r} came")
    return found


def _object(path: Path) -> dict[str, object]:
    try:
        value = json.loads(_text(path))
    except (ValueError, RecursionError):
        raise DataError(f"{path}: not valid JSON") from None
    if not isinstance(value, dict):
        raise DataError(f"{path}: no JSON object, as a vocabulary is")
    return value


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > LARGEST:
            raise DataError(f"{path}: too large for a vocabulary")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a vocabulary ({error})") from None
