"""A parsed config: what is bound, and what stages and networks are built from it."""

import contextlib
import dataclasses
import inspect
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gin
from dfa_tf.config.checks import check_bindings, check_names
from dfa_tf.config.gin_files import (
    Reader,
    check_statements,
    find_gin_file,
    included_files,
    read_text,
)
from dfa_tf.config.gin_state import Reference, State, gin_state, macros, resolved
from dfa_tf.config.registry import CONFIGURABLES, NETWORK_BUILDERS, REQUIRED, ROLES
from dfa_tf.errors import UserError
from dfa_tf.models.network import Network
from dfa_tf.validation import Settings, check_value

DEFAULTS = "distill.methods = [@dfa()]"  # a binding, so that dfa's bindings count and are recorded


class Bindings(dict):
    """`{binding: value as text}`.

    Attributes:
        unbound: The bindings that are at their defaults.
    """

    def __init__(self):
        super().__init__()
        self.unbound: set[str] = set()


class Config:
    """A parsed config. It is a value: several configs can be used side by side.

    Args:
        gin_files: Paths of gin files, as they are or among the shipped ones. Later ones win.
        bindings: Further bindings, such as "search.epochs = 3".

    Raises:
        UserError: If a file or a binding is wrong.
    """

    def __init__(self, gin_files: Sequence, bindings: Sequence[str] = ()):
        with gin_state(reader=Reader()) as state:
            _parse(gin_files, bindings, state)
            self._state: State = {key: dict(values) for key, values in state.items()}

    @contextlib.contextmanager
    def _active(self, *scopes: str) -> Iterator[None]:
        with gin_state(self._state), gin.config_scope("/".join(scopes) or None):
            yield

    def call(self, name: str, **arguments: Any) -> Any:
        """Calls the function of a configurable with its bindings and `arguments`."""
        return self._call((), name, arguments)

    def network(
        self, role: str, task: Mapping[str, Any], seed: int, number: int = 1
    ) -> tuple[Network, str | None]:
        """Builds or loads a network.

        Args:
            role: The macro that names it, "teacher" or "student".
            task: What the data set requires (see `Dataset.task`).
            seed: Seed of the initial weights.
            number: Which network of a list, from 1. A single network counts for all numbers.

        Returns:
            The network, and the path of its file if it is a trained one.
        """
        references = self._network_references(role)
        reference = references[number - 1] if len(references) > 1 else references[0]
        name, scopes = reference.configurable.name, tuple(reference.scopes)
        accepted = inspect.signature(CONFIGURABLES[name].function).parameters
        given = {key: value for key, value in {**task, "seed": seed}.items() if key in accepted}
        return self._call(scopes, name, given), self._trained_file(reference)

    def network_count(self, role: str) -> int:
        """Returns the number of networks that a macro lists; 1 without a list."""
        return len(self._network_references(role))

    def network_path(self, role: str) -> str | None:
        """Returns the path of a network that is loaded from a file; None for others and lists."""
        references = self._network_references(role)
        return self._trained_file(references[0]) if len(references) == 1 else None

    def _trained_file(self, reference):
        """Returns the path of the file of a trained network; None for one that is to be trained."""
        if reference.configurable.name != "keras_file":
            return None
        bound = self._bound(tuple(reference.scopes), "keras_file")
        return None if bound.get("head") == "new" else bound.get("path")

    def pixel_scale(self, path: str | os.PathLike) -> dict[str, Any]:
        """Returns the bindings of keras_file.scale and keras_file.offset for a file.

        They are those of the network of the config that names the file, and otherwise those without
        a scope.
        """
        scopes = ()
        for role in ROLES:
            try:
                references = self._network_references(role)
            except UserError:  # an evaluation needs no networks in the config
                continue
            for reference in references:
                named = tuple(reference.scopes)
                if reference.configurable.name == "keras_file" and _is_file(
                    self._bound(named, "keras_file").get("path"), path
                ):
                    scopes = named
        bound = self._bound(scopes, "keras_file")
        return {name: bound[name] for name in ("scale", "offset") if name in bound}

    def binds(self, name: str) -> bool:
        """Returns whether a parameter of a configurable is bound, without a scope."""
        return bool(self._bound((), name, resolve=False))

    def stage(self, name: str, **arguments: Any) -> dict[str, Any]:
        """Builds the settings of a stage from its bindings.

        Args:
            name: Name of the stage.
            **arguments: Fields of its bundles that the caller sets. They override bindings.

        Returns:
            The stage's bundles by argument, `{"training": Training(...), ...}`, and its other
            settings.
        """
        configurable, bound = CONFIGURABLES[name], self._bound((), name)
        given = {**bound, **arguments}
        built, used = {}, set()
        for argument, default in configurable.bundles.items():
            fields = {field.name for field in dataclasses.fields(default)}
            used |= fields
            built[argument] = dataclasses.replace(
                default, **{field: value for field, value in given.items() if field in fields}
            )
        others = {k: p.default for k, p in configurable.parameters.items() if k not in used}
        return built | others | {k: v for k, v in bound.items() if k in others}

    def value(self, name: str, parameter: str) -> Any:
        """Returns what a parameter is bound to, or its default."""
        default = CONFIGURABLES[name].parameters[parameter].default
        bound = self._bound((), name, resolve=False)
        if parameter not in bound:
            return default
        with self._active():
            value = resolved(bound[parameter])
        is_plain = not isinstance(value, Reference | list | tuple)
        return value if is_plain else self._bound((), name)[parameter]

    def settings(
        self, *roots: str, without: Sequence[str] = (), number: int | None = None
    ) -> Bindings:
        """Checks and returns all bindings that shape the result of a stage, with defaults.

        Args:
            roots: The configurables, macros and single parameters, such as "distill.methods", that
                the stage uses. References are followed.
            without: Bindings that the result does not depend on.
            number: Which of several teachers the stage uses; None for all.

        Raises:
            UserError: If a value does not match the type of its parameter.
        """
        found = Bindings()
        for root in roots:
            if root in ROLES:
                references = self._network_references(root)
                if number and len(references) > 1:
                    references = [references[number - 1]]
                found[root] = repr(references if len(references) > 1 else references[0])
                self._collect(references, found)
            elif "." in root:
                configurable, parameter = root.split(".")
                with self._active():
                    value = resolved(self._bound((), configurable, resolve=False).get(parameter))
                found[root] = repr(value)
                self._collect(value, found)
            else:
                self._collect_bindings((), root, found)
                for parameter, value in self._bound((), root).items():
                    annotation = CONFIGURABLES[root].parameters[parameter].annotation
                    check_value(f"{root}.{parameter}", value, annotation)
        for name in without:
            found.pop(name, None)
        return found

    def _call(self, scopes, name, arguments):
        bound = self._bound(scopes, name)
        for parameter, spec in CONFIGURABLES[name].parameters.items():
            if spec.default is REQUIRED and parameter not in {*bound, *arguments}:
                key = "/".join([*scopes, f"{name}.{parameter}"])
                raise UserError(f"{key}: expected a binding, got none; bind it in the config")
        return CONFIGURABLES[name].function(**bound, **arguments)

    def _bound(self, scopes, name, resolve=True):
        """Returns what is bound to a configurable, with references resolved if asked."""
        try:
            with self._active(*scopes):
                return gin.get_bindings(name, resolve_references=resolve)
        except UserError as error:
            raise UserError(str(error).splitlines()[0]) from error  # gin adds lines of its own

    def _collect(self, value, found):
        with self._active():
            value = resolved(value)
        if isinstance(value, Reference):
            self._collect_bindings(tuple(value.scopes), value.configurable.name, found)
        elif isinstance(value, list | tuple):
            for element in value:
                self._collect(element, found)

    def _collect_bindings(self, scopes, name, found):
        bound = self._bound(scopes, name, resolve=False)
        for parameter, spec in CONFIGURABLES[name].parameters.items():
            key = "/".join([*scopes, f"{name}.{parameter}"])
            if parameter in bound:
                with self._active():
                    value = resolved(bound[parameter])
                found[key] = repr(value)
                self._collect(value, found)
            elif spec.default is not REQUIRED:
                # An object has no gin syntax: its default is recorded as a comment.
                key = f"# default {key}" if isinstance(spec.default, Settings) else key
                found[key] = repr(spec.default)
                found.unbound.add(key)

    def _network_references(self, role):
        """Returns the references of a macro: one, or those of a list."""
        with self._active():
            value = resolved(macros(self._state).get(role))
        if role != "teacher" or not isinstance(value, list | tuple):
            return [self._network_reference(role, value)]
        references = [self._network_reference(role, resolved(each)) for each in value]
        names = [repr(reference) for reference in references]
        if not references or len(set(names)) < len(names):
            raise UserError(
                f"{role}: expected different networks in the list, got {', '.join(names) or 'none'}; "
                "bind train_teacher.count for several seeds of one network"
            )
        return references

    def _network_reference(self, role, value):
        expected = f"a reference to a network, as in {role} = @{role}/wide_resnet"
        if value is None:
            raise UserError(f"{role}: expected {expected}, got no binding")
        if not isinstance(value, Reference):
            raise UserError(f"{role}: expected {expected}, got {value!r}")
        if value.configurable.name not in NETWORK_BUILDERS:
            raise UserError(f"{role}: expected {expected}, got {value!r}")
        return value


def _is_file(name, path):
    return isinstance(name, str) and os.path.realpath(name) == os.path.realpath(path)


def _parse(gin_files, bindings, state):
    source = "the config"
    try:
        texts = list(bindings)
        for binding in bindings:
            source = f"--gin_bindings={binding!r}"
            if check_statements(binding, source):
                raise UserError(f"{source}: expected a binding, got an include; use --gin_file")
        for path in gin_files:
            source = str(path)
            texts += [read_text(file) for file in included_files(find_gin_file(path))]
        source = "the config"
        check_names("\n".join(texts))
        gin.parse_config(DEFAULTS)
        for path in gin_files:
            source = str(path)
            gin.parse_config_file(str(find_gin_file(path)))
        for binding in bindings:
            source = f"--gin_bindings={binding!r}"
            gin.parse_config(binding)
        source = "the config"
        check_bindings(state, "\n".join(texts))
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{source}: {_one_line(error)}") from error


def _one_line(error):
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if any("bindings string" in line for line in lines):
        lines = lines[:1]  # the rest repeats the binding
    return " ".join(lines[:3])[:300]
