"""A pickle read as data: a small machine that follows its instructions and never calls, imports or builds anything.

Python's own unpickler calls what a file names. This one knows a handful of names by heart (tensors, ordered
dictionaries, NumPy scalars); every other name becomes an inert `Foreign` value, and calling, constructing or filling
one gives another `Foreign`. Names that no model needs and an attack does (os, subprocess, eval, ...) are refused
wherever they stand. A pickle may say the same long thing many times in few bytes, so what is made of it is bounded:
instructions, calls, and what calls are given.
"""

import pickletools
import re
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from darkroom.checkpoint.forbidden import BUILTINS, refuse_forbidden, word_set
from darkroom.core.errors import ModelFileError

MOST_NESTED = 1000
MOST_CALLS = 100_000  # and global names; a tensor takes three
MOST_NAME = 500  # characters
MOST_PLACE = 2**31  # whole numbers above it may all hash alike, and a dictionary of such takes forever
MOST_STEPS = 1_000_000  # instructions; a tensor takes about forty
MOST_BITS = 1024  # of a whole number; the state of a generator needs 128
_NUMPY_TYPE = re.compile(r"[<>=|]?[fiub][1248]")


@final
@dataclass(frozen=True, slots=True)
class Foreign:
    """A thing this reader does not know, by name; made by a call when `called`."""

    name: str
    called: bool = False


@final
@dataclass(frozen=True, slots=True)
class StorageRef:
    """The bytes of one or more tensors: key of the archive's entry, element type by torch's name, element count."""

    key: str
    kind: str
    count: int


@final
@dataclass(frozen=True, slots=True)
class TensorRef:
    """A view of a storage; nothing is read or checked yet."""

    storage: StorageRef
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@final
@dataclass(frozen=True)
class _NumpyType:
    code: str


_UNKNOWN_KEY = Foreign("an unusable key")
_SIZED = (str, bytes, tuple, list, dict)


def read_pickle(data: bytes, *, where: str) -> tuple[Any, list[str]]:
    """The value a pickle describes, and the foreign names in it, in order.

    `ModelFileError` for broken instructions, for a forbidden name anywhere, and for a foreign call in `state_dict`.
    """
    machine = _Machine(where, size=len(data))
    try:
        for number, (code, argument, _) in enumerate(pickletools.genops(data)):
            if code.name == "STOP":
                return machine.pop(), list(machine.foreign)
            if number >= MOST_STEPS:
                raise ModelFileError(f"{where}: refused, its pickle has more than {MOST_STEPS} instructions")
            machine.step(code.name, argument)
    except ModelFileError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, UnicodeError) as error:
        raise ModelFileError(f"{where}: its pickle is broken or truncated ({type(error).__name__})") from None
    except (RecursionError, MemoryError):
        raise ModelFileError(f"{where}: its pickle is nested too deeply") from None
    raise ModelFileError(f"{where}: its pickle is truncated")


@final
class _Machine:
    """Stack, marks and memo of the pickle language."""

    def __init__(self, where: str, *, size: int) -> None:
        self.where = where
        self.left = size  # of what calls may be given: nothing takes less than a byte to say, and is given once
        self.stack: list[Any] = []  # what stands above the last mark
        self.below: list[list[Any]] = []  # what stands below it and below earlier marks
        self.inside: list[bool] = []  # at each mark: is the value of a key 'state_dict' being made?
        self.calls = 0
        self.memo: dict[int, Any] = {}
        self.foreign: dict[str, None] = {}

    def step(self, code: str, argument: Any) -> None:
        if code in _PUSHES:
            if isinstance(argument, int) and argument.bit_length() > MOST_BITS:
                raise ModelFileError(f"{self.where}: refused, its pickle has a number of {argument.bit_length()} bits")
            self.stack.append(argument)
        elif code in _CONSTANTS:
            self.stack.append(_CONSTANTS[code]())
        elif code in _IGNORED:
            pass
        elif code in _ACTIONS:
            _ACTIONS[code](self, argument)
        else:  # extension registry, out-of-band buffers
            raise ModelFileError(f"{self.where}: refused, its pickle uses {code}, which no checkpoint needs")

    def pop(self) -> Any:
        return self.stack.pop()

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def mark(self) -> None:
        self.inside.append(self.in_state_dict())
        self.below.append(self.stack)
        self.stack = []
        if len(self.below) > MOST_NESTED:
            raise ModelFileError(f"{self.where}: its pickle is nested too deeply")

    def since_mark(self) -> list[Any]:
        values, self.stack = self.stack, self.below.pop()
        self.inside.pop()
        return values

    def memoize(self, place: int | None) -> None:
        if place is not None and not 0 <= place < MOST_PLACE:
            raise ValueError("a place in the memo that no pickle has")
        self.memo[len(self.memo) if place is None else place] = self.stack[-1]

    def name(self, module: Any, qualified: Any) -> None:
        """Push what a global name means here; the name is never looked up."""
        if not (isinstance(module, str) and isinstance(qualified, str) and f"{module}{qualified}".isprintable()):
            raise ValueError("a global name that is no text")
        if len(module) + len(qualified) > MOST_NAME:
            raise ModelFileError(f"{self.where}: refused, its pickle has a name of more than {MOST_NAME} characters")
        self.count()
        full = f"{module}.{qualified}"
        refuse_forbidden(module, qualified, where=self.where)
        if full not in _KNOWN and not full.startswith("torch.") and module not in BUILTINS:
            self.foreign.setdefault(full[:200])
        self.push(Foreign(full))

    def call(self, function: Any, arguments: Any) -> None:
        """Push what a call means here: a known value, or an inert one."""
        if not isinstance(function, Foreign) or not isinstance(arguments, tuple):
            raise ValueError("a call of something that has no name, or with no list of arguments")
        self.count()
        known = None if function.called else _KNOWN.get(function.name)
        if known is not None:
            self.charge(arguments)
            self.stack.append(known(*arguments))
            return
        if self.in_state_dict():
            raise ModelFileError(
                f"{self.where}: refused, it calls {function.name[:200]} inside 'state_dict', where only tensors belong"
            )
        self.push(Foreign(function.name, called=True))

    def count(self) -> None:
        self.calls += 1
        if self.calls > MOST_CALLS:
            raise ModelFileError(f"{self.where}: refused, it names and calls more than {MOST_CALLS} times")

    def charge(self, arguments: tuple[Any, ...]) -> None:
        """A known call looks at its arguments and may copy them; the same ones may be given many times in few bytes."""
        self.left -= len(arguments) + sum(len(each) for each in arguments if isinstance(each, _SIZED))
        if self.left < 0:
            raise ModelFileError(f"{self.where}: refused, its pickle gives more to its calls than it holds")

    def in_state_dict(self) -> bool:
        """Is the value of a key 'state_dict' being made? Keys stand at even places after a mark or a dictionary."""
        if self.below:
            return self.inside[-1] or _is_state(_last_key(self.stack))
        return any(_is_state(key) for key in self.stack[:8])

    def fill(self, pairs: list[Any]) -> None:
        """Put keys and values into the dictionary on top."""
        target = self.stack[-1]
        if isinstance(target, dict):
            for key, value in zip(pairs[::2], pairs[1::2], strict=True):
                if isinstance(key, str) and key in target:
                    raise ModelFileError(f"{self.where}: refused, its pickle has two entries {key[:100]!r}")
                target[_usable(key)] = value
        elif not isinstance(target, Foreign):
            raise ValueError("items for something that is no dictionary")

    def extend(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(values)
        elif not isinstance(target, Foreign):
            raise ValueError("items for something that is no list")

    def build(self) -> None:
        """Attributes given to an object: dropped. A dictionary keeps its items (torch stores `_metadata` so)."""
        self.pop()
        if not isinstance(self.stack[-1], dict | Foreign | _NumpyType):
            raise ValueError("attributes for a value that has none")

    def persistent(self, identity: Any) -> None:
        match identity:
            case ("storage", Foreign(name=name), str(key), _, int(count)) if re.fullmatch(r"\w{1,64}", key):
                kind = name.removeprefix("torch.storage.").removeprefix("torch.")
                self.stack.append(StorageRef(key, kind, count))
            case _:
                raise ModelFileError(f"{self.where}: refused, it refers to something outside that is no storage")


def _last_key(frame: list[Any]) -> Any:
    return frame[(len(frame) - 1) // 2 * 2] if frame else None


def _is_state(key: Any) -> bool:
    return isinstance(key, str) and key == "state_dict"


def _usable(key: Any) -> Hashable:
    """Keys that hash at once, and not all alike; a crafted nest of tuples, or multiples of 2^61 - 1, take forever."""
    if isinstance(key, int) and abs(key) >= MOST_PLACE:
        return _UNKNOWN_KEY
    return key if isinstance(key, str | int | float | bytes | bool | None | Foreign) else _UNKNOWN_KEY


def _ordered(pairs: Any = ()) -> dict[Any, Any]:
    keys = [pair[0] for pair in pairs if isinstance(pair[0], str)]
    if len(set(keys)) != len(keys):
        raise ValueError("two entries of one name")
    return {_usable(pair[0]): pair[1] for pair in pairs}


def _tensor(*arguments: Any) -> TensorRef:
    storage, offset, shape, stride, *_ = arguments
    if not isinstance(shape, tuple) or not isinstance(stride, tuple):
        raise ValueError("a tensor whose shape or strides are no tuple")
    numbers = [offset, *shape, *stride]
    if not isinstance(storage, StorageRef) or not all(type(n) is int and n >= 0 for n in numbers):
        raise ValueError("a tensor without a storage, or with impossible sizes")
    if len(shape) != len(stride):
        raise ValueError("a tensor with as many strides as axes is needed")
    return TensorRef(storage, offset, shape, stride)


def _numpy_type(code: Any, *_: Any) -> _NumpyType | Foreign:
    fits = isinstance(code, str) and _NUMPY_TYPE.fullmatch(code)
    return _NumpyType(code) if fits else Foreign("numpy.dtype", called=True)


def _numpy_scalar(kind: Any, data: Any = b"") -> Any:
    if not isinstance(kind, _NumpyType) or not isinstance(data, bytes):
        return Foreign("numpy scalar", called=True)
    return np.frombuffer(data, dtype=kind.code, count=1)[0].item()


def _encoded(text: Any, encoding: Any = "latin1") -> bytes:
    """Bytes as protocol 2 writes them."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise ValueError("an encoding that pickles do not use")
    return text.encode("latin-1")


_KNOWN: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": lambda data, *_: data,
    "torch.Size": lambda sizes=(): tuple(sizes),
    "numpy.dtype": _numpy_type,
    "numpy.core.multiarray.scalar": _numpy_scalar,
    "numpy._core.multiarray.scalar": _numpy_scalar,
    "_codecs.encode": _encoded,
}

_PUSHES = word_set(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE "
    "BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8"
)
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": list,
}
_IGNORED = frozenset({"PROTO", "FRAME"})


def _tuple(machine: _Machine, count: int) -> None:
    values = [machine.pop() for _ in range(count)]
    machine.stack.append(tuple(reversed(values)))


def _dictionary(machine: _Machine, _: Any) -> None:
    pairs = machine.since_mark()
    machine.stack.append({})
    machine.fill(pairs)


def _set_item(machine: _Machine, _: Any) -> None:
    value, key = machine.pop(), machine.pop()
    machine.fill([key, value])


def _reduce(machine: _Machine, _: Any) -> None:
    arguments, function = machine.pop(), machine.pop()
    machine.call(function, arguments)


def _reduce_with_keywords(machine: _Machine, _: Any) -> None:
    machine.pop()
    _reduce(machine, None)


def _object(machine: _Machine, _: Any) -> None:
    function, *arguments = machine.since_mark()
    machine.call(function, tuple(arguments))


def _instance(machine: _Machine, argument: Any) -> None:
    arguments = machine.since_mark()
    _global(machine, argument)
    machine.call(machine.pop(), tuple(arguments))


def _global(machine: _Machine, argument: Any) -> None:
    module, _, qualified = argument.rpartition(" ")
    machine.name(module, qualified)


def _stack_global(machine: _Machine, _: Any) -> None:
    qualified, module = machine.pop(), machine.pop()
    machine.name(module, qualified)


def _pop(machine: _Machine, _: Any) -> None:
    """The value on top, or the mark when nothing stands above it."""
    if machine.stack:
        machine.stack.pop()
    else:
        machine.since_mark()


def _get(machine: _Machine, place: int) -> None:
    machine.stack.append(machine.memo[int(place)])


_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": lambda machine, _: machine.mark(),
    "POP": _pop,
    "POP_MARK": lambda machine, _: machine.since_mark() and None,
    "DUP": lambda machine, _: machine.push(machine.stack[-1]),
    "GET": _get,
    "BINGET": _get,
    "LONG_BINGET": _get,
    "PUT": lambda machine, place: machine.memoize(int(place)),
    "BINPUT": lambda machine, place: machine.memoize(place),
    "LONG_BINPUT": lambda machine, place: machine.memoize(place),
    "MEMOIZE": lambda machine, _: machine.memoize(None),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.since_mark())),
    "TUPLE1": lambda machine, _: _tuple(machine, 1),
    "TUPLE2": lambda machine, _: _tuple(machine, 2),
    "TUPLE3": lambda machine, _: _tuple(machine, 3),
    "LIST": lambda machine, _: machine.push(machine.since_mark()),
    "FROZENSET": lambda machine, _: machine.push(machine.since_mark()),
    "DICT": _dictionary,
    "SETITEM": _set_item,
    "SETITEMS": lambda machine, _: machine.fill(machine.since_mark()),
    "APPEND": lambda machine, _: machine.extend([machine.pop()]),
    "APPENDS": lambda machine, _: machine.extend(machine.since_mark()),
    "ADDITEMS": lambda machine, _: machine.extend(machine.since_mark()),
    "BUILD": lambda machine, _: machine.build(),
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "INST": _instance,
    "REDUCE": _reduce,
    "NEWOBJ": _reduce,
    "NEWOBJ_EX": _reduce_with_keywords,
    "OBJ": _object,
    "PERSID": lambda machine, identity: machine.persistent(identity),
    "BINPERSID": lambda machine, _: machine.persistent(machine.pop()),
}
