"""DFA: Differentiable Feature Aggregation Search for Knowledge Distillation, in TensorFlow.

    alpha = dfa_tf.search(teacher=..., student=..., train=..., validation=..., workdir=...)
    student = dfa_tf.distill(teacher=..., student=..., alpha=alpha, train=..., workdir=...)

TensorFlow is imported with the first name that needs it, so that commands answer at once.
"""

import importlib

import wrapt

from dfa_tf.version import __version__

_MODULES = ("data", "figures", "methods", "models", "stages", "training")
_NAMES = {
    "Alpha": "dfa_tf.alpha",
    "Interrupted": "dfa_tf.errors",
    "Runtime": "dfa_tf.training.loop",
    "UserError": "dfa_tf.errors",
    "distill": "dfa_tf.stages.distill",
    "export": "dfa_tf.stages.export",
    "search": "dfa_tf.stages.search",
    "train_teacher": "dfa_tf.stages.teacher",
}
__all__ = ["__version__", *_MODULES, *_NAMES]


@wrapt.when_imported("keras")
def _register(keras):
    """Lets `keras.saving.load_model` know the classes of this package's files."""
    importlib.import_module("dfa_tf.models")


def __getattr__(name):
    if name in _MODULES:
        return importlib.import_module(f"dfa_tf.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    raise AttributeError(f"module 'dfa_tf' has no attribute {name!r}")


def __dir__():
    return [*globals(), *__all__]
