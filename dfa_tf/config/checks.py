"""Checks of a parsed config: every binding, used or not."""

import difflib
import re
from typing import Any

from dfa_tf.config.gin_state import Reference, State, is_macro, macros, resolved
from dfa_tf.config.registry import CONFIGURABLES, NETWORK_BUILDERS, REFERABLE, RENAMED, ROLES
from dfa_tf.errors import UserError
from dfa_tf.validation import check_value


def check_names(text: str) -> None:
    """Checks the text of a config for bindings that have a new name.

    Raises:
        UserError: If there is one. The message contains the new name.
    """
    for old, new in RENAMED.items():
        if re.search(rf"^\s*{re.escape(old)}\s*=", text, re.MULTILINE):
            raise UserError(f"{old}: renamed; bind {new} instead")


def check_bindings(state: State, text: str) -> None:
    """Checks the macros of a config, the types of its bindings, and what they refer to.

    Args:
        state: The bindings.
        text: The text of all its files.

    Raises:
        UserError: If a macro or a scope is not used, a value does not have the type of its
            parameter, or a reference is undefined, unsuitable or part of a cycle.
    """
    _check_macros(state, text)
    _check_scopes(state, text)
    refers: dict[str, set[str]] = {}
    for (scope, selector), bound in state.items():
        name = selector.rpartition(".")[2]
        for parameter, value in bound.items():
            is_binding = name in CONFIGURABLES  # or else a macro
            key = "/".join(filter(None, [scope, f"{name}.{parameter}"])) if is_binding else scope
            for reference in _references(value):
                _check_reference(key, reference, is_binding)
                refers.setdefault(name, set()).add(reference.configurable.name)
            if is_binding:
                annotation = CONFIGURABLES[name].parameters[parameter].annotation
                _check_type(key, resolved(value), annotation)
    for name in refers:
        _check_no_cycle(name, refers, ())


def _check_macros(state, text):
    """Raises UserError for a macro that nothing uses: likely a misspelt one.

    Uses are looked for in the text, since a later binding may replace a use.
    """
    used = set(re.findall(r"%([\w./]+)", text))
    for name in macros(state):
        if name not in used and name not in ROLES:
            close = difflib.get_close_matches(name, [*ROLES, *used], n=1)
            advice = f"did you mean {close[0]}?" if close else "remove it"
            raise UserError(f"{name}: nothing uses this macro; {advice}")


def _check_scopes(state, text):
    """Raises UserError for a binding in a scope that nothing uses: likely a misspelt one.

    As for macros, a use may be one that a later binding replaces.
    """
    used = {scopes for scopes, _ in re.findall(r"@((?:\w+/)+)(\w+)", text)}
    for (scope, selector), bound in state.items():
        name = selector.rpartition(".")[2]
        if not scope or name not in CONFIGURABLES:
            continue
        key = f"{scope}/{name}.{next(iter(bound), '')}"
        if name not in {*REFERABLE, *NETWORK_BUILDERS}:
            raise UserError(f"{key}: expected {name} without a scope, got {scope!r}; remove it")
        if not any(each.startswith(f"{scope}/") for each in used):
            known = sorted(each.rstrip("/") for each in used)
            close = difflib.get_close_matches(scope, known, n=1)
            advice = f"did you mean {close[0]}?" if close else "remove the binding"
            raise UserError(f"{key}: nothing uses the scope {scope!r}; {advice}")


def _references(value):
    """Returns all references within a value, with macros replaced by their values."""
    value = resolved(value)
    if isinstance(value, Reference):
        return [value]
    if isinstance(value, list | tuple | dict):
        values = value.values() if isinstance(value, dict) else value
        return [reference for each in values for reference in _references(each)]
    return []


def _check_reference(key, reference, is_binding):
    name = reference.configurable.name
    if name in NETWORK_BUILDERS and is_binding:
        raise UserError(f"{key}: expected a value, got the network {reference!r}")
    if name not in {*REFERABLE, *NETWORK_BUILDERS}:
        raise UserError(
            f"{key}: expected a value, or a reference to a network, method, weighting, optimizer or "
            f"schedule, got {reference!r}"
        )


def _check_no_cycle(name, refers, path):
    if name in path:
        cycle = " -> ".join([*path, name])
        raise UserError(
            f"{name}: its bindings form a cycle ({cycle}); remove one of the references"
        )
    for other in refers.get(name, ()):
        _check_no_cycle(other, refers, (*path, name))


def _check_type(key, value, annotation):
    """Checks a bound value, except for the references in it."""
    if isinstance(value, Reference):
        if not value.evaluate:
            raise UserError(f"{key}: expected {value!r}() with brackets, got {value!r}")
    elif isinstance(value, list | tuple) and _has_reference(value):
        for element in value:
            _check_type(key, element, Any)
    else:
        check_value(key, value, annotation)


def _has_reference(values):
    return any(isinstance(value, Reference) and not is_macro(value) for value in values)
