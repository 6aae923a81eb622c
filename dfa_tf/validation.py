"""Checks of settings against their type annotations.

A setting states its type, range and choices once, in its annotation:

    epochs: Positive                                # a finite number greater than 0
    form: Literal["paper", "code"]                  # one of these values
    width: Annotated[int, Interval(1)] | None       # an integer of at least 1, or None

`check_value` compares a value with such an annotation. `Settings` does so for the fields of a
dataclass, `checked_arguments` for the arguments of a function.
"""

import collections.abc
import dataclasses
import functools
import inspect
import math
import numbers
import types
import typing
from typing import Annotated, Any, ClassVar, Literal, Union

import numpy as np

from dfa_tf.errors import UserError


@dataclasses.dataclass(frozen=True)
class Interval:
    """The numbers from `low` to `high`.

    Args:
        low: Lower limit.
        high: Upper limit.
        open: Whether `low` itself is excluded.
        open_high: Whether `high` itself is excluded.
    """

    low: float = -math.inf
    high: float = math.inf
    open: bool = False
    open_high: bool = False

    def __contains__(self, value) -> bool:
        is_above = value > self.low if self.open else value >= self.low
        return is_above and (value < self.high if self.open_high else value <= self.high)

    def __str__(self):
        is_closed = not (self.open or self.open_high)
        if math.isfinite(self.low) and math.isfinite(self.high) and is_closed:
            return f"from {self.low:.10g} to {self.high:.10g}"
        limits: list[str] = []
        if math.isfinite(self.low):
            limits.append(
                f"greater than {self.low:.10g}" if self.open else f"of at least {self.low:.10g}"
            )
        if math.isfinite(self.high):
            limits.append(
                f"less than {self.high:.10g}" if self.open_high else f"of at most {self.high:.10g}"
            )
        return " and ".join(limits)


# Metadata of a dataclass field that a config does not set: the caller does.
NOT_BINDABLE = {"bindable": False}

Positive = Annotated[float, Interval(0, open=True)]
NonNegative = Annotated[float, Interval(0)]
Fraction = Annotated[float, Interval(0, 1)]
DecayRate = Annotated[float, Interval(0, 1, open_high=True)]  # of a moving average
Count = Annotated[int, Interval(1, 2**31 - 1)]
Whole = Annotated[int, Interval(0, 2**63 - 1)]


class Settings:
    """Base class of frozen dataclasses that check their fields against the annotations.

    A subclass sets `name`, which error messages put before the field: "sgd.momentum".
    """

    name: ClassVar[str]

    def __post_init__(self):
        for field, annotation in annotations(type(self)).items():
            value = getattr(self, field)
            check_value(f"{self.name}.{field}", value, annotation)
            # NumPy's numbers are accepted, but JSON files and records need Python's.
            object.__setattr__(self, field, plain(value))


def plain(value: Any) -> Any:
    """Returns a value whose NumPy scalars, also those in lists and tuples, are Python's numbers."""
    if isinstance(value, np.generic):
        return value.item()
    if type(value) in (list, tuple):
        return type(value)(plain(element) for element in value)
    return value


def checked_arguments(name: str):
    """Returns a decorator that checks a function's arguments against its annotations.

    Args:
        name: What error messages put before the parameter, as in "wide_resnet.depth".
    """

    def decorate(function):
        signature = inspect.signature(function)
        checked = annotations(function)

        @functools.wraps(function)
        def call(*args, **kwargs):
            for parameter, value in signature.bind(*args, **kwargs).arguments.items():
                if parameter in checked:
                    check_value(f"{name}.{parameter}", value, checked[parameter])
            return function(*args, **kwargs)

        return call

    return decorate


def check_value(name: str, value: object, annotation: Any) -> None:
    """Checks a value against a type annotation.

    Args:
        name: The setting, for the message: "search.epochs".
        value: Its value.
        annotation: A class, or a combination of `Literal`, `Annotated` with an `Interval`,
            unions, `tuple` and `Sequence`. Integers are numbers, booleans are not, and numbers
            must be finite. A list is accepted as a tuple.

    Raises:
        UserError: If the value does not match.
    """
    if not _matches(value, annotation):
        raise UserError(f"{name}: expected {expected(annotation)}, got {value!r}")


def expected(annotation: Any) -> str:
    """Returns a type annotation in words, "a number greater than 0" for instance."""
    if annotation is None or annotation is type(None):
        return "None"
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        limits = [str(limit) for limit in arguments[1:] if isinstance(limit, Interval)]
        return " ".join([expected(arguments[0]), *limits])
    if origin is Literal:
        return _either([repr(choice) for choice in arguments])
    if origin in (Union, types.UnionType):
        return _either(list(dict.fromkeys(map(expected, arguments))))
    if origin is tuple and arguments[-1] is not Ellipsis:
        elements = " and ".join(dict.fromkeys(map(expected, arguments)))
        return f"a tuple of {len(arguments)} elements, each {elements}"
    if origin in _SEQUENCES:
        return f"a list or tuple, each element {expected(arguments[0])}"
    return _NOUNS.get(annotation, f"a {getattr(annotation, '__name__', annotation)}")


_NOUNS = {
    bool: "True or False",
    int: "an integer",
    float: "a number",
    str: "a string",
    tuple: "a tuple",
    list: "a list",
}
_SEQUENCES = (tuple, list, collections.abc.Sequence)


def _matches(value, annotation):
    if annotation is Any:
        return True
    if annotation is None or annotation is type(None):
        return value is None
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        limits = (limit for limit in arguments[1:] if isinstance(limit, Interval))
        return _matches(value, arguments[0]) and all(value in limit for limit in limits)
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in arguments)
    if origin in (Union, types.UnionType):
        return any(_matches(value, argument) for argument in arguments)
    if origin in _SEQUENCES:
        return _matches_sequence(value, origin, arguments)
    if annotation in (int, float):
        kind = numbers.Integral if annotation is int else numbers.Real
        if not isinstance(value, kind) or isinstance(value, bool):
            return False
        try:
            return annotation is int or math.isfinite(value)
        except OverflowError:  # an integer beyond all floats
            return False
    if annotation in _SEQUENCES:
        return isinstance(value, list | tuple)
    if origin is not None:  # Callable[...] and other generics: the class alone
        annotation = origin
    return not isinstance(annotation, type) or isinstance(value, annotation)


def _matches_sequence(value, origin, arguments):
    if not isinstance(value, list | tuple):
        return False
    if origin is tuple and arguments[-1] is not Ellipsis:
        pairs = list(zip(value, arguments, strict=False))
        return len(value) == len(arguments) and all(_matches(*pair) for pair in pairs)
    return all(_matches(element, arguments[0]) for element in value)


def _either(words):
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def annotations(of: Any) -> dict[str, Any]:
    """Returns the annotations of a function's parameters or of a dataclass' fields."""
    hints = typing.get_type_hints(of, include_extras=True)
    if dataclasses.is_dataclass(of):
        return {field.name: hints[field.name] for field in dataclasses.fields(of)}
    hints.pop("return", None)
    return hints
