"""Vision transformers in the layout of `transformers`: its configurations to our specs, its names to ours."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar

from torch import Tensor, nn

from darkroom.checkpoint.clip_names import INSIDE, LAYER
from darkroom.checkpoint.read_spec import parsed
from darkroom.core.errors import ModelFileError, first_line
from darkroom.core.hollow import UNBUILDABLE, hollow
from darkroom.nn.vit import ImageEncoder, ImageEncoderSpec, StackSpec, TextEncoder, TextEncoderSpec

Config = Mapping[str, Any]
S = TypeVar("S", ImageEncoderSpec, TextEncoderSpec)
N = TypeVar("N", bound=nn.Module)
_BENDS: Final = ("quick_gelu", "gelu", "swiglu")
_DINO_LAYER: Final = {
    "norm1": "norm1",
    "norm2": "norm2",
    "attention.query": "attention.attention.query",
    "attention.key": "attention.attention.key",
    "attention.value": "attention.attention.value",
    "attention.out": "attention.output.dense",
    "expand": "mlp.fc1",
    "out": "mlp.fc2",
    "scale1": "layer_scale1.lambda1",
    "scale2": "layer_scale2.lambda1",
}
_GATED: Final = {"expand": "mlp.weights_in", "out": "mlp.weights_out"}


def image_encoder(config: Config, weights: Mapping[str, Tensor], *, where: str) -> ImageEncoder:
    """DINOv2, or the image encoder of CLIP, frozen; `ModelFileError` for other models and for weights that lack."""
    match config.get("model_type"):
        case "dinov2":
            spec, names = _dino_spec(config, where=where), _dino_names
        case "clip":
            vision = {**_part(config, "vision_config"), "projection_dim": config.get("projection_dim", 512)}
            spec, names = _clip_spec(vision, weights, where=where), _clip_names
        case "clip_vision_model":
            spec, names = _clip_spec(config, weights, where=where), _clip_names
        case other:
            raise ModelFileError(
                f"{where}: a {str(other)[:40]!r} model is not read; dinov2, clip and clip_vision_model are"
            )
    network = _hollow(lambda: ImageEncoder(spec), where=where)
    _fill(network, weights, dict(names(spec)), where=where)
    return network


def text_encoder(config: Config, weights: Mapping[str, Tensor], *, where: str) -> TextEncoder:
    """The text encoder of a CLIP model, frozen; `ModelFileError` as for `image_encoder`."""
    text = {**_part(config, "text_config"), "projection_dim": config.get("projection_dim", 512)}
    end, vocabulary = _number(text, "eos_token_id", 49407), _number(text, "vocab_size", 49408)
    values = {
        "stack": _clip_stack(text, width=512, heads=8, causal=True, where=where),
        "vocabulary": vocabulary,
        "length": text.get("max_position_embeddings", 77),
        # Early configurations name 2, which is no token that ends a text: it is the last of the vocabulary.
        "end": vocabulary - 1 if end == 2 else end,
        "projection": text["projection_dim"],
    }
    spec = _spec(TextEncoderSpec, values, where=where)
    network = _hollow(lambda: TextEncoder(spec), where=where)
    _fill(network, weights, dict(_text_names(spec)), where=where)
    return network


def _clip_spec(vision: Config, weights: Mapping[str, Tensor], *, where: str) -> ImageEncoderSpec:
    values = {
        "kind": "clip",
        "stack": _clip_stack(vision, width=768, heads=12, causal=False, where=where),
        "side": vision.get("image_size", 224),
        "patch": vision.get("patch_size", 32),
        "projection": vision.get("projection_dim", 512) if "visual_projection.weight" in weights else None,
    }
    return _spec(ImageEncoderSpec, values, where=where)


def _clip_stack(config: Config, *, width: int, heads: int, causal: bool, where: str) -> Mapping[str, Any]:
    found = config.get("hidden_size", width)
    return {
        "width": found,
        "depth": config.get("num_hidden_layers", 12),
        "heads": config.get("num_attention_heads", heads),
        "layer": {
            "hidden": config.get("intermediate_size", 4 * width),
            "eps": config.get("layer_norm_eps", 1e-5),
            "bias": True,
            "causal": causal,
            "bend": _bend(config, otherwise="quick_gelu", where=where),
        },
    }


def _dino_spec(config: Config, *, where: str) -> ImageEncoderSpec:
    width, gated = _number(config, "hidden_size", 768), bool(config.get("use_swiglu_ffn", False))
    hidden = width * _number(config, "mlp_ratio", 4)
    layer = {
        "hidden": (hidden * 2 // 3 + 7) // 8 * 8 if gated else hidden,
        "eps": config.get("layer_norm_eps", 1e-6),
        "bias": True,
        "bend": "swiglu" if gated else _bend(config, otherwise="gelu", where=where),
        "scaled": True,
    }
    stack = {
        "width": width,
        "depth": config.get("num_hidden_layers", 12),
        "heads": config.get("num_attention_heads", 12),
        "layer": layer,
    }
    values = {
        "kind": "dinov2",
        "stack": stack,
        "side": config.get("image_size", 224),
        "patch": config.get("patch_size", 14),
    }
    return _spec(ImageEncoderSpec, values, where=where)


def _part(config: Config, name: str) -> Config:
    value = config.get(name)
    return value if isinstance(value, Mapping) else {}


def _number(config: Config, name: str, otherwise: int) -> int:
    value = config.get(name, otherwise)
    return value if type(value) is int else otherwise


def _bend(config: Config, *, otherwise: str, where: str) -> str:
    name = str(config.get("hidden_act", otherwise))
    if name not in _BENDS:
        raise ModelFileError(f"{where}: hidden_act {name[:40]!r} is not supported; {', '.join(_BENDS)} are")
    return name


def _spec(kind: type[S], values: Mapping[str, Any], *, where: str) -> S:
    spec = parsed(kind, values, where=where)
    if spec.stack.width % spec.stack.heads:
        raise ModelFileError(f"{where}: a width of {spec.stack.width} does not divide into {spec.stack.heads} heads")
    return spec


def _hollow(build: Callable[[], N], *, where: str) -> N:
    """Without memory: what a configuration says is compared with the weights before any is taken."""
    try:
        with hollow():
            return build()
    except UNBUILDABLE as error:
        raise ModelFileError(f"{where}: what its configuration says cannot be built ({first_line(error)})") from None


def _clip_names(spec: ImageEncoderSpec) -> Iterator[tuple[str, str]]:
    top = "vision_model."
    yield "token", f"{top}embeddings.class_embedding"
    yield "places", f"{top}embeddings.position_embedding.weight"
    yield "patches", f"{top}embeddings.patch_embedding"
    yield "before", f"{top}pre_layrnorm"
    yield "after", f"{top}post_layernorm"
    yield "project", "visual_projection"
    yield from _clip_layers(spec.stack, top)


def _text_names(spec: TextEncoderSpec) -> Iterator[tuple[str, str]]:
    yield "tokens", f"{INSIDE}embeddings.token_embedding"
    yield "places", f"{INSIDE}embeddings.position_embedding.weight"
    yield "after", f"{INSIDE}final_layer_norm"
    yield "project", "text_projection"
    yield from _clip_layers(spec.stack, INSIDE)


def _clip_layers(spec: StackSpec, top: str) -> Iterator[tuple[str, str]]:
    for i in range(spec.depth):
        yield from ((f"layers.{i}.{ours}", f"{top}encoder.layers.{i}.{theirs}") for theirs, ours in LAYER.items())


def _dino_names(spec: ImageEncoderSpec) -> Iterator[tuple[str, str]]:
    yield "token", "embeddings.cls_token"
    yield "places", "embeddings.position_embeddings"
    yield "patches", "embeddings.patch_embeddings.projection"
    yield "after", "layernorm"
    layer = _DINO_LAYER | (_GATED if spec.stack.layer.bend == "swiglu" else {})
    for i in range(spec.stack.depth):
        yield from ((f"layers.{i}.{ours}", f"encoder.layer.{i}.{each}") for ours, each in layer.items())


def _fill(network: nn.Module, weights: Mapping[str, Tensor], names: Mapping[str, str], *, where: str) -> None:
    """Each of our tensors from the one whose name is its module's, or its own; leading axes of 1 are left out."""
    own, found = network.state_dict(), dict[str, Tensor]()
    for name, tensor in own.items():
        module, _, last = name.rpartition(".")
        theirs = names[name] if name in names else f"{names[module]}.{last}"
        known = (
            theirs,
            f"dinov2.{theirs}",
            theirs.removeprefix("vision_model."),
        )  # of a classifier; of an encoder alone
        taken = next((weights[each] for each in known if each in weights), None)
        if taken is None:
            raise ModelFileError(f"{where}: {theirs!r} is missing among its weights")
        while taken.ndim > tensor.ndim and taken.shape[0] == 1:
            taken = taken[0]
        if taken.shape != tensor.shape:
            came, fits = tuple(taken.shape), tuple(tensor.shape)
            raise ModelFileError(f"{where}: {theirs} has shape {came}, by its configuration {fits} fits")
        found[name] = taken.to(tensor.dtype)
    network.load_state_dict(found, assign=True)
    network.eval().requires_grad_(False)
