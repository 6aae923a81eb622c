"""What a config can bind: the configurables, with the defaults of their own signatures.

    dataset                                 the data set
    teacher, student                        macros: @teacher/wide_resnet, @keras_file, ...
    wide_resnet  shufflenet_v2  ...         networks (dfa_tf/models)
    keras_application                       a network of keras.applications, to be fine-tuned
    keras_file                              a trained network in a file
    train_teacher  search  search_process   the stages
    distill  export
    dfa  kd  fitnets  at  ...               methods, for distill.methods (gin/methods)
    adaptive  process                       weightings, for distill.weights
    sgd  adam  step_decay  cosine           optimizers and schedules
    runtime                                 logging and saving

The settings of a stage are the fields of its bundles, `search.epochs` for instance that of
`Training.epochs`. Fields that only Python sets are marked NOT_BINDABLE.
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import gin
from dfa_tf import data, models
from dfa_tf.bilevel.dfa_search import SearchOptions
from dfa_tf.bilevel.process_search import SearchProcessOptions
from dfa_tf.deployment.options import ExportOptions
from dfa_tf.methods import METHODS
from dfa_tf.methods.method import Method
from dfa_tf.objectives.targets import Targets
from dfa_tf.stages import search, search_process
from dfa_tf.training.fine_tuning import FineTuning
from dfa_tf.training.keep_best import LAST, Keep
from dfa_tf.training.optimizers import SGD, Adam, Cosine, StepDecay
from dfa_tf.training.recipe import Training
from dfa_tf.training.runtime import Runtime
from dfa_tf.validation import Interval, NonNegative, annotations
from dfa_tf.weightings import WEIGHTINGS, Weighting

ROLES = ("teacher", "student")  # the macros that every config defines
REQUIRED = inspect.Parameter.empty

# What the data set decides about a network, and how the network is used.
_NETWORK_ARGUMENTS = ("num_classes", "image_shape", "mean", "std", "seed", "precision", "folded")
NETWORK_BUILDERS: dict[str, Callable] = {
    **models.NETWORKS,
    "keras_application": models.keras_application,
    "keras_file": models.load,
}


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A parameter that a config can bind.

    Attributes:
        annotation: Its type.
        default: Its default, or REQUIRED.
    """

    annotation: Any = Any
    default: Any = REQUIRED


@dataclasses.dataclass(frozen=True)
class Configurable:
    """Something that has bindings.

    Attributes:
        parameters: The parameters that can be bound.
        function: The function or class to call with them; None for a stage.
        bundles: For a stage, its bundles of settings at their defaults, by argument of the stage.
    """

    parameters: Mapping[str, Parameter]
    function: Callable | None = None
    bundles: Mapping[str, Any] = dataclasses.field(default_factory=dict)


# Settings of the stages that belong to no bundle. The first ones are of teacher and student.
_KEEP = {"keep": Parameter(Keep, LAST)}
_DISTILL = {
    "aggregation": Parameter(str, "search"),
    "methods": Parameter(Sequence[Method], ()),
    "weights": Parameter(Sequence[NonNegative] | Weighting | None, None),
    "ce_weight": Parameter(NonNegative | None, None),
    "generations": Parameter(Annotated[int, Interval(2)], 2),
    "teacher_views": Parameter(Annotated[int, Interval(0)], 0),
    **_KEEP,
}


def _field_parameters(settings):
    """Returns the bindable fields of a dataclass, or of an object with other defaults."""
    hints = annotations(settings if isinstance(settings, type) else type(settings))
    return {
        field.name: Parameter(hints[field.name], getattr(settings, field.name, REQUIRED))
        for field in dataclasses.fields(settings)
        if field.metadata.get("bindable", True)
    }


def _stage(own=None, **bundles):
    parameters = dict(own or {})
    for bundle in bundles.values():
        parameters |= _field_parameters(bundle)
    return Configurable(parameters, bundles=bundles)


def _function(function, excluded=()):
    hints = annotations(function)
    return Configurable(
        {
            name: Parameter(hints.get(name, Any), parameter.default)
            for name, parameter in inspect.signature(function).parameters.items()
            if name not in excluded
        },
        function,
    )


def _settings_class(cls):
    return Configurable(_field_parameters(cls), cls)


CONFIGURABLES: dict[str, Configurable] = {
    "dataset": _function(data.load, excluded=("data_dir",)),
    "train_teacher": _stage(
        {"count": Parameter(Annotated[int, Interval(1, 100)], 1), **_KEEP},
        training=Training(),
        targets=Targets(),
        fine_tuning=FineTuning(),
    ),
    "search": _stage(
        {"beta_optimizer": Parameter(SGD | Adam, Adam())},
        training=search.TRAINING,
        options=SearchOptions(),
    ),
    "search_process": _stage(
        {"alpha_optimizer": Parameter(SGD | Adam, search_process.ALPHA_OPTIMIZER)},
        training=search_process.TRAINING,
        options=SearchProcessOptions(),
    ),
    "distill": _stage(_DISTILL, training=Training(), targets=Targets(), fine_tuning=FineTuning()),
    "export": _stage(options=ExportOptions()),
    "runtime": _settings_class(Runtime),
    **{name: _function(build, _NETWORK_ARGUMENTS) for name, build in NETWORK_BUILDERS.items()},
    **{name: _settings_class(method) for name, method in METHODS.items()},
    **{name: _settings_class(weighting) for name, weighting in WEIGHTINGS.items()},
    **{cls.name: _settings_class(cls) for cls in (SGD, Adam, StepDecay, Cosine)},
}

# What the macros teacher and student can refer to, and what a binding can, as in @sgd().
REFERABLE = {
    name
    for name, configurable in CONFIGURABLES.items()
    if configurable.function and name not in {"dataset", "runtime", *NETWORK_BUILDERS}
}

# Bindings of earlier versions, and what they are called now.
RENAMED = {"search.entry": "search.tail_input"}


def _register(name, configurable):
    """Registers a configurable with gin, by its bindable parameters.

    Gin builds the settings that a config refers to, such as @sgd(). The other configurables are
    called by `Config`, so that their exceptions arrive as they are.
    """
    if configurable.function in (
        SGD,
        Adam,
        StepDecay,
        Cosine,
        *METHODS.values(),
        *WEIGHTINGS.values(),
    ):
        excluded = {f.name for f in dataclasses.fields(configurable.function)}
        excluded -= set(configurable.parameters)
        function, denylist = configurable.function, sorted(excluded)
    else:

        def function(**bindings):
            raise TypeError(f"{name} is not called by gin")

        function.__name__, denylist = name, None
        function.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [
                inspect.Parameter(parameter, inspect.Parameter.KEYWORD_ONLY)
                for parameter in configurable.parameters
            ]
        )
    gin.external_configurable(function, name, module="dfa_tf", denylist=denylist or None)


for _name, _configurable in CONFIGURABLES.items():
    _register(_name, _configurable)
