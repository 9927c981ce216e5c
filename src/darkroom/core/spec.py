"""Specs: frozen pydantic values, parsed once at the door, unknown keys refused with a did-you-mean."""

import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final, TypeVar, cast

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_serializer
from pydantic_core import to_json

from darkroom.core.errors import SpecError, did_you_mean

S = TypeVar("S", bound="Spec")


class Spec(BaseModel):
    """A value that says what to build; frozen, comparable, written to YAML or JSON without loss.

    Its numbers are finite: NaN and infinity would spread in silence, and JSON does not know them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)

    written_where_used: ClassVar[frozenset[str]] = frozenset()  # fields left out at their default, which never changes

    @model_serializer(mode="wrap")
    def _without_unused(self, plain: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """A field that was added later is left out at its default: older specs keep their text and their hash."""
        fields = type(self).model_fields
        unused = {
            name
            for name in self.written_where_used
            if getattr(self, name) == fields[name].get_default(call_default_factory=True)
        }
        return {name: value for name, value in plain(self).items() if name not in unused}

    def plain(self) -> dict[str, Any]:
        """The spec as JSON-ready values; `parse(type(spec), spec.plain())` gives an equal spec."""
        return self.model_dump(mode="json")


def parse(kind: type[S], data: object, *, where: str) -> S:
    """Read a spec from plain values; `SpecError` names the key, what came and what fits. `where`: the source."""
    if not isinstance(data, Mapping):
        raise SpecError(f"{where}: a mapping of keys is needed, {type(data).__name__} came")
    return _read(kind, lambda: kind.model_validate(data), where=where)


def parse_strictly(kind: type[S], data: Mapping[str, Any], *, where: str) -> S:
    """As `parse`, by the types of JSON: a text that looks like a number is none, and neither is true."""
    text = to_json(data, inf_nan_mode="constants")
    return _read(kind, lambda: kind.model_validate_json(text, strict=True), where=where)


def _read(kind: type[S], validated: Callable[[], S], *, where: str) -> S:
    try:
        return validated()
    except ValidationError as error:
        raise SpecError(f"{where}: {_sentence(kind, error)}") from None


MOST_VALUES: Final = 2**21  # of a YAML, with every alias written out
MOST_MERGED: Final = 10_000
# What PyYAML raises beside its own errors: for `!!bool x`, for 2020-99-99, for a number of thousands of digits.
_STUMBLES: Final = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def parse_yaml(text: str, *, where: str, most: int = MOST_VALUES) -> Any:
    """Plain values from YAML text (safe loader); `SpecError` names the line at fault.

    most: values at most, counted with every alias written out; one that lies within itself is refused so, too.
    """
    try:
        values = yaml.load(text, _Loader)
    except _TwiceError as error:
        raise SpecError(f"{where}: {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark is not None else ""
        raise SpecError(f"{where}: not valid YAML{line}") from None
    except _STUMBLES:
        raise SpecError(f"{where}: not valid YAML, a value is not what it looks like; put it in quotes") from None
    except RecursionError:
        raise SpecError(f"{where}: not valid YAML, it is nested too deeply") from None
    _check_aliases(values, most, where=where)
    return values


def _check_aliases(values: object, most: int, *, where: str) -> None:
    """`SpecError` when aliases make a small text large: whoever copies the values would write them all out."""
    waiting, seen = [values], 0
    while waiting:
        value = waiting.pop()
        seen += 1
        if seen + len(waiting) > most:
            raise SpecError(f"{where}: refused, more than {most} values with its aliases written out")
        if isinstance(value, Mapping):
            waiting += cast("Mapping[Any, object]", value).values()
        elif isinstance(value, list | tuple | set):
            waiting += cast("Iterable[object]", value)


_MERGE: Final = "tag:yaml.org,2002:merge"


class _TwiceError(yaml.YAMLError):
    """A key that stands twice in one mapping: YAML forbids it, and whoever wrote both meant one of them."""


class _Loader(yaml.SafeLoader):
    """The safe loader, without doubled keys, and with a bound on what `<<` copies.

    A few lines that merge each other would make 10^9 pairs.
    """

    merged = 0

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                if (key.tag, key.value) in seen:
                    line = key.start_mark.line + 1
                    raise _TwiceError(f"key {key.value[:100]!r} stands twice, the second time at line {line}")
                seen.add((key.tag, key.value))
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        for key, value in node.value:
            parts = value.value if isinstance(value, yaml.SequenceNode) else [value]
            for part in parts if key.tag == _MERGE else []:
                if isinstance(part, yaml.MappingNode):
                    self.flatten_mapping(part)
                    self.merged += len(part.value)
                if self.merged > MOST_MERGED:
                    raise yaml.constructor.ConstructorError(problem_mark=node.start_mark)
        super().flatten_mapping(node)


def override(data: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """A copy of nested plain values with `a.b=value` assignments applied; values are read as YAML."""
    result = cast("dict[str, Any]", _copy(data))
    for assignment in assignments:
        path, found, value = assignment.partition("=")
        if not found or not path:
            raise SpecError(f"{assignment!r}: an override is written key=value, e.g. denoiser.train.steps=2000")
        *parents, last = path.split(".")
        place: Any = result
        for key in parents:
            place = _below(place, key, assignment=assignment)
        if isinstance(place, list):
            _below(place, last, assignment=assignment)
            place[int(last)] = parse_yaml(value, where=assignment)
        else:
            place[last] = parse_yaml(value, where=assignment)
    return result


def _below(place: Any, key: str, *, assignment: str) -> Any:
    """What stands under a key of a mapping (made if absent) or at a number of a list; `SpecError` otherwise."""
    if isinstance(place, list):
        items = cast("list[Any]", place)
        if not key.isdecimal() or int(key) >= len(items):
            raise SpecError(f"{assignment!r}: {key!r} does not fit, this list has places 0..{len(items) - 1}")
        return items[int(key)]
    inner = cast("dict[str, Any]", place).setdefault(key, {})
    if not isinstance(inner, (dict, list)):
        raise SpecError(f"{assignment!r}: {key!r} is a value, it has no keys below it")
    return cast("Any", inner)


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(inner) for key, inner in cast("Mapping[str, Any]", value).items()}
    if isinstance(value, (list, tuple)):
        return [_copy(inner) for inner in cast("Sequence[Any]", value)]
    return value


def _sentence(kind: type[BaseModel], error: ValidationError) -> str:
    first = error.errors()[0]
    place = [str(part) for part in first["loc"]]
    name = ".".join(_without_tags(kind, place))
    match first["type"]:
        case "extra_forbidden":
            return f"unknown key {name!r}{did_you_mean(place[-1], _keys_at(kind, place[:-1]))}"
        case "missing":
            return f"{name!r} is missing"
        case "union_tag_invalid":
            context = first.get("ctx", {})
            tag, expected = str(context.get("tag")), str(context.get("expected_tags", ""))
            options = [option.strip(" '") for option in expected.split(",")]
            return f"{name!r}: unknown kind {tag!r}{did_you_mean(tag, options)}"
        case _:
            message = first["msg"].removeprefix("Value error, ")
            at = f"{name!r}: " if name else ""
            came = (
                ""
                if first["type"] == "value_error" and isinstance(first["input"], (Mapping, BaseModel))
                else f" ({_shown(first['input'])} came)"
            )
            return f"{at}{message[0].lower()}{message[1:]}{came}"[:400]


def _shown(value: object) -> str:
    try:
        return repr(value)
    except ValueError:  # Python writes no number of so many digits
        return "a number of thousands of digits"


_TYPE: Final = re.compile(r"(constrained-)?(float|int|str)|\w+\[.*\]")  # as pydantic names plain members of unions


def _without_tags(kind: type[BaseModel], place: Sequence[str]) -> list[str]:
    """The place as a person writes it, without the tags and types of unions that pydantic puts into it."""
    kept: list[str] = []
    for depth, part in enumerate(place):
        unions = {
            tag for each in _classes_at(kind, place[:depth]) if (tag := _tag(each)) is not None and not part.isdigit()
        }
        if part in _keys_at(kind, place[:depth]) or not (part in unions or _TYPE.fullmatch(part)):
            kept.append(part)
    return kept


def _tag(kind: type[BaseModel]) -> str | None:
    field = kind.model_fields.get("kind")
    return None if field is None or not isinstance(field.default, str) else field.default


def _keys_at(kind: type[BaseModel], place: Sequence[str]) -> set[str]:
    """Field names of the spec classes that may stand at this place."""
    return {name for each in _classes_at(kind, place) for name in each.model_fields}


def _classes_at(kind: type[BaseModel], place: Sequence[str]) -> set[type[BaseModel]]:
    """The spec classes that may stand at this place (union tags in it choose among them)."""
    classes: set[type[BaseModel]] = {kind}
    for part in place:
        below = {
            inner
            for each in classes
            if part in each.model_fields
            for inner in _spec_classes(each.model_fields[part].annotation)
        }
        tagged = {each for each in classes if _tag(each) == part}
        classes = below or tagged or classes
    return classes


def _spec_classes(annotation: Any) -> set[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {annotation}
    if typing.get_origin(annotation) is None and not isinstance(annotation, types.UnionType):
        return set()
    return {found for inner in typing.get_args(annotation) for found in _spec_classes(inner)}
