"""The networks that sets of pictures are seen through, by name or from a user's folder."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from tokenizers import Tokenizer
from torch import Tensor

from darkroom.checkpoint.diffusers_files import ENCODERS, read_object, weights_in
from darkroom.checkpoint.read_spec import parsed
from darkroom.checkpoint.unpickle import read_checkpoint
from darkroom.checkpoint.vision import image_encoder, text_encoder
from darkroom.core.compute import Compute
from darkroom.core.errors import InputError, ModelFileError, did_you_mean
from darkroom.core.hashes import weights_hash
from darkroom.core.shapes import Bytes, Images, PerSample
from darkroom.core.spec import Spec
from darkroom.metrics.extractors import FeatureNetwork
from darkroom.nn.features import Judge, judge
from darkroom.nn.inception import PUBLISHED, SIDE, Inception, inception
from darkroom.nn.published import find, is_whole, load_table
from darkroom.nn.taps import as_rgb
from darkroom.nn.vit import ImageEncoder, TextEncoder

NAMES: Final = ("judge", "inception")
_OVER_GREY: Final = "laid over mid-grey"
_FILTERS: Final = {"2": "bilinear", "3": "bicubic"}  # as Pillow numbers them
_CLIP_MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
_CLIP_DEVIATION: Final = (0.26862954, 0.26130258, 0.27577711)
_MEAN: Final = (0.485, 0.456, 0.406)
_DEVIATION: Final = (0.229, 0.224, 0.225)
_MOST_TOKENIZER: Final = 64 * 2**20  # bytes


@final
class Preparation(Spec):
    """What pictures pass before a transformer: `size` pixels, of these the centre square of `crop`, normalised."""

    size: int = Field(ge=16, le=4096)
    crop: int = Field(ge=16, le=4096)
    filter: Literal["bilinear", "bicubic"] = "bicubic"
    mean: tuple[float, float, float] = _MEAN
    deviation: tuple[float, float, float] = _DEVIATION

    def of(self, levels: Bytes) -> Float[Tensor, "b 3 s s"]:
        """Squares of eight bits, resized with antialiasing on eight bits as Pillow does, then normalised."""
        if levels.shape[-1] != self.size:
            levels = F.interpolate(levels, size=(self.size, self.size), mode=self.filter, antialias=True)
        edge = (self.size - self.crop) // 2
        square = levels[..., edge : edge + self.crop, edge : edge + self.crop].float() / 255
        mean, deviation = (
            torch.tensor(each, device=levels.device)[:, None, None] for each in (self.mean, self.deviation)
        )
        return (square - mean) / deviation


@final
class JudgeEye:
    """The judge that comes with the package; it takes pictures as they are and names no classes."""

    def __init__(self, network: Judge, compute: Compute) -> None:
        self._network, self._compute = compute.host(network), replace(compute, dtype=torch.float32)
        self.name, self.hash = network.name, network.hash
        self.preprocessing: Mapping[str, Any] = {"size": "as they are", "values": "-1 to 1", "transparency": _OVER_GREY}

    @torch.no_grad()
    def look(self, images: Images) -> dict[str, Tensor]:
        """The mean of its last map."""
        with self._compute.autocast():
            return {"features": self._network.features(self._compute.place(images)).float().cpu()}


@final
class InceptionEye:
    """The network of FID and of the inception score."""

    def __init__(self, network: Inception, compute: Compute) -> None:
        self.name = "inception"
        self.hash = weights_hash(network.state_dict().items())
        self._network, self._compute = compute.host(network), replace(compute, dtype=torch.float32)
        self.preprocessing: Mapping[str, Any] = {
            "size": SIDE,
            "filter": "bilinear as in TensorFlow 1, not antialiased",
            "values": "(x - 128) / 128 of 0 to 255",
            "transparency": _OVER_GREY,
        }

    @torch.no_grad()
    def look(self, images: Images) -> dict[str, Tensor]:
        """2048 features and the logits of 1008 classes, without their bias."""
        with self._compute.autocast():
            features, logits = self._network(_levels(self._compute.place(images)).float())
        return {"features": features.float().cpu(), "logits": logits.float().cpu()}


@final
class EncoderEye:
    """A transformer from a folder of the user's; with CLIP's text encoder it tells how well words fit."""

    def __init__(
        self,
        network: ImageEncoder,
        compute: Compute,
        *,
        name: str,
        preparation: Preparation,
        texts: "Texts | None" = None,
    ) -> None:
        self.name, self.texts = name, texts
        self.hash = weights_hash(network.state_dict().items())
        self._network, self._preparation = compute.host(network), preparation
        self._compute = replace(compute, dtype=torch.float32)
        self.preprocessing: Mapping[str, Any] = {**preparation.plain(), "transparency": _OVER_GREY}

    @torch.no_grad()
    def look(self, images: Images) -> dict[str, Tensor]:
        """What its class token becomes."""
        pictures = self._preparation.of(_levels(images.cpu()))  # only processors resize eight bits
        with self._compute.autocast():
            return {"features": self._network(self._compute.place(pictures)).float().cpu()}


@final
class Texts:
    """The other side of CLIP: words to vectors in the space of its pictures."""

    def __init__(self, network: TextEncoder, tokenizer: Tokenizer, compute: Compute) -> None:
        self.hash = weights_hash(network.state_dict().items())
        self._network, self._tokenizer = compute.host(network), tokenizer
        self._compute = replace(compute, dtype=torch.float32)
        tokenizer.no_padding()
        tokenizer.enable_truncation(network.spec.length)

    @torch.no_grad()
    def score(self, features: Float[Tensor, "b e"], captions: Sequence[str]) -> PerSample:
        """CLIP score of each picture's features with its caption: 100 max(cos, 0) (Hessel et al. 2021, without 2.5)."""
        rows = [each.ids for each in self._tokenizer.encode_batch(list(captions))]
        end, most = self._network.spec.end, max(map(len, rows))
        ids = torch.tensor([[*row, *[end] * (most - len(row))] for row in rows])
        with self._compute.autocast():
            found = self._network(ids.to(self._compute.device)).double().cpu()
        return 100 * F.cosine_similarity(features.double(), found).clamp(min=0)


def open_network(source: str, compute: Compute) -> tuple[FeatureNetwork, tuple[str, ...]]:
    """The network of a name, of a file with Inception's weights or of a folder as `transformers` writes it; and notes.

    `judge` is there always; `inception` comes from the cache, or is fetched. `InputError` in one sentence.
    """
    path = Path(source)
    if source == "judge":
        return JudgeEye(judge(), compute), ()
    if source == "inception":
        return _published(compute), ()
    if path.is_dir():
        return _encoder(path, compute)
    if path.is_file():
        weights: Mapping[str, Tensor]
        weights = read_checkpoint(path).state_dict if path.suffix == ".safetensors" else load_table(path)
        odd = f"{path.name} does not have the checksum of the published weights; its figures may be no FID"
        found = InceptionEye(inception(weights, where=str(path)), compute)
        return found, () if is_whole(path, PUBLISHED) else (odd,)
    raise InputError(
        f"--features {source}: no such feature network{did_you_mean(source, NAMES)}; a file of Inception's weights or "
        "a folder with a dinov2 or clip model of transformers fits too"
    )


def open_networks(sources: Sequence[str], compute: Compute) -> tuple[tuple[FeatureNetwork, ...], tuple[str, ...]]:
    """Several networks, each once, and notes; errors as for `open_network`.

    Figures are told apart by names, so a second network of one name has its hash behind it.
    """
    found, notes = dict[str, FeatureNetwork](), list[str]()
    for source in dict.fromkeys(sources):
        network, odd = open_network(source, compute)
        notes += odd
        if any((each.hash, each.preprocessing) == (network.hash, network.preprocessing) for each in found.values()):
            continue
        if network.name in found:
            network.name = f"{network.name}-{network.hash}"
        found[network.name] = network
    return tuple(found.values()), tuple(dict.fromkeys(notes))


def _published(compute: Compute) -> InceptionEye:
    path = find(PUBLISHED, folder="inception", hub=True, needs="--features inception", instead="--features judge")
    if not is_whole(path, PUBLISHED):
        raise ModelFileError(f"{path}: not the published weights, their checksum is {PUBLISHED.digest}...; remove it")
    return InceptionEye(inception(load_table(path), where=str(path)), compute)


def _encoder(folder: Path, compute: Compute) -> tuple[EncoderEye, tuple[str, ...]]:
    config = read_object(folder / "config.json")
    found = weights_in(folder, stems=ENCODERS)
    where, kind = str(folder), str(config.get("model_type"))
    network = image_encoder(config, found.tensors, where=where)
    words = folder / "tokenizer.json"
    texts = None
    if kind == "clip" and words.is_file() and "text_projection.weight" in found.tensors:
        texts = Texts(text_encoder(config, found.tensors, where=where), _tokenizer(words), compute)
    preparation = _preparation(folder / "preprocessor_config.json", clip=network.spec.kind == "clip")
    _check_size(network, preparation, where=where)
    eye = EncoderEye(network, compute, name=network.spec.kind, preparation=preparation, texts=texts)
    return eye, found.odd


def _check_size(network: ImageEncoder, preparation: Preparation, *, where: str) -> None:
    spec = network.spec
    if spec.kind == "clip" and preparation.crop != spec.side:
        raise ModelFileError(f"{where}: its pictures are cut to {preparation.crop} pixels, the model takes {spec.side}")
    if preparation.crop % spec.patch or preparation.size < preparation.crop:
        raise ModelFileError(
            f"{where}: pictures of {preparation.size} pixels cut to {preparation.crop} do not divide into patches of "
            f"{spec.patch}"
        )


def _tokenizer(path: Path) -> Tokenizer:
    if path.stat().st_size > _MOST_TOKENIZER:
        raise ModelFileError(f"{path}: too large for a tokenizer")
    try:
        return Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises nothing narrower
        raise ModelFileError(f"{path}: no tokenizer ({error})") from None


def _preparation(path: Path, *, clip: bool) -> Preparation:
    """What the folder says, else what the models were published with."""
    said = read_object(path) if path.is_file() else {}
    size = _side(said.get("size"), otherwise=224 if clip else 256)
    values = {
        "size": size,
        "crop": _side(said.get("crop_size"), otherwise=224) if said.get("do_center_crop", True) else size,
        "filter": _FILTERS.get(str(said.get("resample", 3)), f"filter {said.get('resample')}"),
        "mean": said.get("image_mean", _CLIP_MEAN if clip else _MEAN),
        "deviation": said.get("image_std", _CLIP_DEVIATION if clip else _DEVIATION),
    }
    return parsed(Preparation, values, where=str(path))


def _side(value: object, *, otherwise: int) -> object:
    match value:
        case None:
            return otherwise
        case {"shortest_edge": side} | {"height": side}:
            return side
        case _:
            return value


def _levels(images: Images) -> Bytes:
    """Pictures in [-1, 1] as three channels of eight bits."""
    return ((as_rgb(images).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
