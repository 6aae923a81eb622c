"""Gin: what can be bound, where the shipped files are, what a stage's bindings come to.

The only file that imports gin. Configurables (defaults in the functions' own signatures):

    dataset                                what to learn
    teacher, student (macros)              @teacher/wide_resnet, @keras_file, ...
    wide_resnet  shufflenet_v2  ...        networks, see dfa_tf/models
    keras_file                             a network trained before
    train_teacher  search  distill  export  the stages
    dfa  kd  fitnets  at  ...              methods, for distill.methods: see gin/methods
    sgd  adam  step_decay  cosine          optimizers and schedules
    runtime                                logging and saving; changes no weight and no alpha
"""

import difflib
import inspect
import pathlib
import re

import gin
from dfa_tf import data, models
from dfa_tf.errors import UserError
from dfa_tf.methods import METHODS
from dfa_tf.methods.method import ALPHA
from dfa_tf.stages.distill import distill
from dfa_tf.stages.export import export
from dfa_tf.stages.search import search
from dfa_tf.stages.teacher import train_teacher
from dfa_tf.training import optimizers
from dfa_tf.training.loop import Runtime

DEFAULTS = "distill.methods = [@dfa()]"  # a binding, so that dfa's count and are recorded
NETWORKS = ("teacher", "student")  # the macros that every config defines
_GIVEN = ("network", "teacher", "student", "alpha", "train", "validation", "test", "workdir")
_GIVEN += ("dataset", "augmentation", "seed", "runtime", "settings")
_GIVEN += ("class_names", "command", "fresh", "keep", "ladder")
_OF_DATA = ("num_classes", "image_shape", "mean", "std", "seed", "precision", "folded")


_FUNCTIONS = {}  # by name of the configurable
_SIGNATURES = {}  # its parameters that can be bound


def _register(function, name, given=()):
    parameters = inspect.signature(function).parameters
    denied = [parameter for parameter in given if parameter in parameters]
    _FUNCTIONS[name] = function
    _SIGNATURES[name] = {n: p for n, p in parameters.items() if n not in denied}
    gin.external_configurable(function, name, module="dfa_tf", denylist=denied or None)


_register(data.load, "dataset", ("data_dir",))
_register(train_teacher, "train_teacher", _GIVEN)
_register(search, "search", _GIVEN)
_register(distill, "distill", _GIVEN)
_register(export, "export", _GIVEN)
_register(Runtime, "runtime", ("strategy", "fresh", "quiet"))
for _name, _builder in models.NETWORKS.items():
    _register(_builder, _name, _OF_DATA)
_register(models.load, "keras_file")
for _name, _method in METHODS.items():
    _register(_method, _name, ("alpha",) if ALPHA in _method.needs else ())
_register(optimizers.SGD, "sgd")
_register(optimizers.Adam, "adam")
_register(optimizers.StepDecay, "step_decay")
_register(optimizers.Cosine, "cosine")


class Settings(dict):
    """{binding: value as text}. unbound: those that are at their defaults."""

    def __init__(self):
        super().__init__()
        self.unbound = set()


def shipped_folder():
    """The folder of the gin files that come with the package: beside it, or inside when installed."""
    package = pathlib.Path(__file__).parent
    inside = package / "gin_files"
    return inside if inside.is_dir() else package.parent / "gin"


def find_gin_file(path):
    """The file that `path` names: as it is, else among the shipped ones.

    Raises UserError where there is none.
    """
    path = pathlib.Path(path)
    if path.is_file():
        return path
    within = (
        pathlib.Path(*path.parts[path.parts.index("gin") + 1 :]) if "gin" in path.parts else path
    )
    shipped = shipped_folder() / within
    if shipped.is_file():
        return shipped
    names = [f"gin/{p.relative_to(shipped_folder())}" for p in shipped_folder().rglob("*.gin")]
    names = [name.replace("\\", "/") for name in names]
    close = difflib.get_close_matches(str(path), names, n=3, cutoff=0.5) or sorted(names)
    raise UserError(f"there is no gin file {path}: shipped are {', '.join(close)}")


def parse(gin_files, bindings):
    """Reads the config. Raises UserError for a file or a binding that is not right."""
    gin.clear_config()
    gin.config.register_file_reader(lambda path: open(find_gin_file(path)), _is_found)
    try:
        text = "\n".join([*map(_text_with_includes, gin_files), *bindings])
        gin.parse_config(DEFAULTS)
        for path in gin_files:
            where = str(path)
            gin.parse_config_file(str(find_gin_file(path)))
        for binding in bindings:
            where = f"--gin_bindings={binding!r}"
            gin.parse_config(binding)
        where = "the config"
        _check_macros(text)
        gin.finalize()
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{where} is not right: {_one_line(error)}") from error


def call(name, **given):
    """Calls the function of a configurable with what is bound to it and with `given`.

    The function itself, not gin's wrapper, so that its exceptions come as they are.
    """
    return _call((), name, given)


def network(role, task, seed):
    """The network that the macro `role` ("teacher" or "student") names.

    task: the data set's, as `Dataset.task`. seed: of the initial weights.
    Returns (network, path of the file it came trained from, or None).
    """
    reference = _macro(role)
    name = reference.configurable.name
    if name == "keras_file":
        return _call(reference.scopes, name, {}), _bindings(reference.scopes, name)["path"]
    return _call(reference.scopes, name, task | {"seed": seed}), None


def arguments(name):
    """What is bound to a configurable: {parameter: value}, references and macros resolved."""
    return _bindings((), name)


def value(name, parameter):
    """What a configurable's parameter is bound to, or its default."""
    return _bindings((), name).get(parameter, _SIGNATURES[name][parameter].default)


def settings(*roots, without=()):
    """{binding: value as text} of all that shapes a stage's result, defaults included.

    roots: configurables and macros that the stage uses, by name. References are followed.
    without: bindings that this stage does not depend on.
    """
    found = Settings()
    for root in roots:
        if root in NETWORKS:
            found[root] = repr(_macro(root))
            _collect(_macro(root), found)
        else:
            _collect_bindings((), root, found)
    for name in without:
        found.pop(name, None)
    return found


def _call(scopes, name, given):
    bound = _bindings(scopes, name)
    for parameter, spec in _SIGNATURES[name].items():
        if spec.default is inspect.Parameter.empty and parameter not in {*bound, *given}:
            key = "/".join([*scopes, f"{name}.{parameter}"])
            raise UserError(f"the config does not say {key}: bind it")
    return _FUNCTIONS[name](**bound, **given)


def _bindings(scopes, name, resolve_references=True):
    try:
        with gin.config_scope("/".join(scopes) or None):
            return gin.get_bindings(name, resolve_references=resolve_references)
    except UserError as error:
        raise UserError(str(error).splitlines()[0]) from error  # gin adds lines of its own


def _collect(value, found):
    if isinstance(value, gin.config.ConfigurableReference):
        _collect_bindings(tuple(value.scopes), value.configurable.name, found)
    elif isinstance(value, list | tuple):
        for item in value:
            _collect(item, found)


def _collect_bindings(scopes, name, found):
    bound = _bindings(scopes, name, resolve_references=False)
    for parameter, spec in _SIGNATURES[name].items():
        key = "/".join([*scopes, f"{name}.{parameter}"])
        if parameter in bound:
            value = _resolved(bound[parameter])
            _check_type(key, value, spec.default)
            found[key] = repr(value)
            _collect(value, found)
        elif spec.default is not inspect.Parameter.empty:
            plain = isinstance(spec.default, int | float | str | bool | tuple | list | type(None))
            key = key if plain else f"# default {key}"
            found[key] = repr(spec.default)
            found.unbound.add(key)


def _resolved(value):
    """The value behind macros; other references stay."""
    while isinstance(value, gin.config.ConfigurableReference) and repr(value).startswith("%"):
        value = gin.query_parameter(repr(value))
    return value


def _macro(name):
    try:
        value = _resolved(gin.query_parameter(f"%{name}"))
    except ValueError as error:
        raise UserError(
            f"the config names no {name}: bind one, {name} = @{name}/wide_resnet say"
        ) from error
    if not isinstance(value, gin.config.ConfigurableReference):
        raise UserError(
            f"{name} is a reference to a network, {name} = @{name}/wide_resnet say, not {value!r}"
        )
    return value


def _check_macros(text):
    """Raises UserError for a macro that nothing in the config's text uses: likely a misspelt one.

    In the text, since a use that a later binding replaced is one all the same.
    """
    used = set(re.findall(r"%([\w./]+)", text))
    for scope, selector in gin.config._CONFIG:
        if selector == "gin.macro" and scope not in used and scope not in NETWORKS:
            close = difflib.get_close_matches(scope, [*NETWORKS, *used], n=1)
            hint = f"did you mean {close[0]}" if close else "remove it"
            raise UserError(f"nothing uses the macro {scope}: {hint}")


def _text_with_includes(path):
    """The text of a gin file and of all that it includes, by way of the working directory, the
    file's own folder, or the shipped files; gin is told where to look."""
    path = find_gin_file(path)
    gin.add_config_file_search_path(str(path.parent))
    text = path.read_text()
    included = re.findall(r"""^\s*include\s+["'](.+?)["']""", text, re.MULTILINE)
    own = [path.parent / name for name in included]
    included = [
        file if file.is_file() and not pathlib.Path(name).is_file() else name
        for name, file in zip(included, own, strict=True)
    ]
    return "\n".join([text, *map(_text_with_includes, included)])


def _check_type(name, value, default):
    """Raises UserError where a plain value is not of the kind of its default."""
    if isinstance(value, list | tuple):
        for item in value:
            _check_type(name, item, inspect.Parameter.empty)
    if isinstance(value, gin.config.ConfigurableReference):
        if not value.evaluate:
            raise UserError(f"{name} is set to {value!r}: write {value!r}(), with its brackets")
        return
    if hasattr(default, "build"):
        raise UserError(f"{name} is set to {value!r}, but is a reference, like @sgd()")
    if value is None and default not in (None, inspect.Parameter.empty):
        raise UserError(f"{name} is set to None, but is like {default!r}")
    kinds = ((bool, bool), (int | float, int | float), (str, str), (tuple, tuple | list))
    for kind, accepted in kinds:
        if isinstance(default, kind):
            right = isinstance(value, accepted) and isinstance(value, bool) == (kind is bool)
            if not right:
                raise UserError(f"{name} is set to {value!r}, but is like {default!r}")
            return


def _is_found(path):
    try:
        find_gin_file(path)
    except UserError:
        return False
    return True


def _one_line(error):
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if any("bindings string" in line for line in lines):
        lines = lines[:1]  # the rest repeats the binding
    return " ".join(lines[:3])[:300]
