"""DFA: Differentiable Feature Aggregation Search for Knowledge Distillation, in TensorFlow.

    alpha = dfa_tf.search(teacher=..., student=..., train=..., validation=..., workdir=...)
    student = dfa_tf.distill(teacher=..., student=..., alpha=alpha, train=..., workdir=...)

TensorFlow is imported with the first name that needs it, so that commands start quickly.
"""

import importlib
from typing import TYPE_CHECKING

import wrapt

from dfa_tf.version import __version__

if TYPE_CHECKING:
    from dfa_tf import alpha, data, figures, methods, models, stages, training
    from dfa_tf.alpha import Alpha
    from dfa_tf.bilevel.dfa_search import SearchOptions
    from dfa_tf.deployment.options import ExportOptions
    from dfa_tf.errors import Interrupted, UserError
    from dfa_tf.objectives.targets import Targets
    from dfa_tf.stages.distill import distill
    from dfa_tf.stages.export import export
    from dfa_tf.stages.folder import Record
    from dfa_tf.stages.search import search
    from dfa_tf.stages.teacher import train_teacher
    from dfa_tf.training.fine_tuning import FineTuning
    from dfa_tf.training.optimizers import SGD, Adam, Cosine, StepDecay
    from dfa_tf.training.recipe import Training
    from dfa_tf.training.runtime import Runtime

_MODULES = ("alpha", "data", "figures", "methods", "models", "stages", "training")
_NAMES = {
    "Adam": "dfa_tf.training.optimizers",
    "Alpha": "dfa_tf.alpha",
    "Cosine": "dfa_tf.training.optimizers",
    "ExportOptions": "dfa_tf.deployment.options",
    "FineTuning": "dfa_tf.training.fine_tuning",
    "Interrupted": "dfa_tf.errors",
    "Record": "dfa_tf.stages.folder",
    "Runtime": "dfa_tf.training.runtime",
    "SGD": "dfa_tf.training.optimizers",
    "SearchOptions": "dfa_tf.bilevel.dfa_search",
    "StepDecay": "dfa_tf.training.optimizers",
    "Targets": "dfa_tf.objectives.targets",
    "Training": "dfa_tf.training.recipe",
    "UserError": "dfa_tf.errors",
    "distill": "dfa_tf.stages.distill",
    "export": "dfa_tf.stages.export",
    "search": "dfa_tf.stages.search",
    "train_teacher": "dfa_tf.stages.teacher",
}
__all__ = [
    "SGD",
    "Adam",
    "Alpha",
    "Cosine",
    "ExportOptions",
    "FineTuning",
    "Interrupted",
    "Record",
    "Runtime",
    "SearchOptions",
    "StepDecay",
    "Targets",
    "Training",
    "UserError",
    "__version__",
    "alpha",
    "data",
    "distill",
    "export",
    "figures",
    "methods",
    "models",
    "search",
    "stages",
    "train_teacher",
    "training",
]


@wrapt.when_imported("keras")
def _register(keras):
    """Registers the classes of this package's files for `keras.saving.load_model`."""
    importlib.import_module("dfa_tf.models")


def __getattr__(name):
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"dfa_tf.{name}")
    raise AttributeError(f"module 'dfa_tf' has no attribute {name!r}")


def __dir__():
    return [*globals(), *__all__]
