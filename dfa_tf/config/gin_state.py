"""Gin's global state, and what it keeps private. Tried with gin-config 0.5.0.

Gin holds one configuration in module variables. `gin_state` replaces them within a block, so
that a parsed config is a value: several can exist, and an error leaves nothing behind.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import gin
from dfa_tf.config.gin_files import Reader
from dfa_tf.errors import UserError

Reference = gin.config.ConfigurableReference
State = dict[tuple[str, str], dict[str, Any]]  # by (scope, selector): the bindings by parameter

_VARIABLES = {
    "_CONFIG": dict,
    "_SINGLETONS": dict,
    "_IMPORTS": set,
    "_OPERATIVE_CONFIG": dict,
    "_FILE_READERS": list,
}
_STARTS_EMPTY = ("_SINGLETONS", "_IMPORTS", "_OPERATIVE_CONFIG")


@contextlib.contextmanager
def gin_state(bindings: State | None = None, reader: Reader | None = None) -> Iterator[State]:
    """Gives gin a configuration of its own within the block.

    Args:
        bindings: The configuration; None for an empty one.
        reader: Opens the files to parse; None if none are parsed.

    Yields:
        The bindings, which parsing within the block changes.
    """
    saved = {name: getattr(gin.config, name) for name in _VARIABLES}
    for name, kind in _VARIABLES.items():
        setattr(gin.config, name, kind() if name in _STARTS_EMPTY else kind(saved[name]))
    # Not a deep copy: copying a reference evaluates it.
    gin.config._CONFIG = {key: dict(values) for key, values in (bindings or {}).items()}
    gin.config._FILE_READERS = [(reader.open, reader.exists)] if reader else []
    try:
        with gin.unlock_config():
            yield gin.config._CONFIG
    finally:
        for name, value in saved.items():
            setattr(gin.config, name, value)


def macros(state: State) -> dict[str, Any]:
    """Returns the macros of a configuration, `{name: value}`."""
    return {s: v["value"] for (s, selector), v in state.items() if selector == "gin.macro"}


def is_macro(value: Any) -> bool:
    """Returns whether a bound value is a macro, such as %precision."""
    return isinstance(value, Reference) and repr(value).startswith("%")


def resolved(value: Any) -> Any:
    """Returns the value behind macros. Other references stay as they are.

    Raises:
        UserError: If a macro is not defined or refers to itself.
    """
    seen: list[str] = []
    while is_macro(value):
        name = repr(value)
        if name in seen:
            raise UserError(f"{name.removeprefix('%')}: this macro refers to itself")
        seen.append(name)
        try:
            value = gin.query_parameter(name)
        except ValueError as error:
            raise UserError(f"{name}: expected a macro that the config defines") from error
    return value
