"""Plain data: what is of a type, and how messages show what is not."""

import inspect
import re
import reprlib
from collections.abc import Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from torch import Tensor

from gscnn_lightning.errors import WeightsError

_LONGEST = 300


def fits(value: object, kind: Any) -> bool:  # noqa: ANN401
    """Whether a plain value is of an annotated type: lists do for tuples, whole numbers for real ones, no text.

    Example:
        >>> fits([1, 2], tuple[int, int] | None), fits("19", int), fits(True, int), fits(1, float)
        (True, False, False, True)
    """
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any or kind is inspect.Parameter.empty:
        return True
    if origin in (Union, UnionType):
        return any(fits(value, arg) for arg in args)
    if origin is Literal:
        return any(type(value) is type(arg) and value == arg for arg in args)
    if kind in (int, float):
        return isinstance(value, kind | int) and not isinstance(value, bool)
    if kind is None or kind is NoneType:
        return value is None
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, dict) and all(fits(k, args[0]) and fits(v, args[1]) for k, v in value.items())
    if origin is tuple and args[-1] is not ...:
        return isinstance(value, list | tuple) and len(value) == len(args) and all(map(fits, value, args))
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return isinstance(value, list | tuple) and all(fits(part, args[0]) for part in value)
    return isinstance(value, kind) if isinstance(kind, type) else True


def kind_text(kind: Any) -> str:  # noqa: ANN401
    """A type as messages show it."""
    return re.sub(r"(collections\.abc|typing)\.", "", inspect.formatannotation(kind))


def shown(value: object) -> str:
    """A value as messages show it: in one line, and not without end."""
    return "a tensor" if isinstance(value, Tensor) else _REPR.repr(value)


_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 120


def altered(name: str, what: str) -> WeightsError:
    """What is said of a checkpoint that no training has written so."""
    line = "".join(letter if letter.isprintable() else "?" for letter in " ".join(what.split()))
    line = line if len(line) <= _LONGEST else f"{line[:_LONGEST]} ..."
    return WeightsError(
        f"{name}: {line}: it was altered or comes from elsewhere, and nothing of it was used. Give best.ckpt or "
        "last.ckpt of a run, or a folder of gscnn publish"
    )
