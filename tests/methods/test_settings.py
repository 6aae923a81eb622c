"""Each setting of a method changes what the method computes."""

import dataclasses
import typing

import numpy as np
import pytest

from dfa_tf.alpha import fixed
from dfa_tf.methods import METHODS
from dfa_tf.methods.dfa import DFA
from dfa_tf.methods.fitnets import FitNets
from dfa_tf.objectives.distillation_net import DistillationNet
from dfa_tf.validation import annotations
from tests.conftest import small_network

TEACHERS = {"feed": 2, "ensemble_kd": 2}  # their number; the default is 1
WITHOUT_EFFECT = {  # settings of the other form of a method
    FitNets(): {"weight"},
    FitNets("joint"): {"hint_epochs", "temperature", "alpha", "gamma"},
}


def _settings():
    """Yields each method with the name of each of its settings."""
    for method in [*(cls() for cls in METHODS.values()), FitNets("joint")]:
        for field in dataclasses.fields(method):
            is_bindable = field.metadata.get("bindable", True)
            if is_bindable and field.name not in WITHOUT_EFFECT.get(method, ()):
                form = f"-{method.form}" if isinstance(method, FitNets) else ""
                yield pytest.param(method, field.name, id=f"{method.name}{form}-{field.name}")


def _other_value(method, setting):
    """Returns another value of a setting: another choice, or twice the number."""
    value, annotation = getattr(method, setting), annotations(type(method))[setting]
    if typing.get_origin(annotation) is typing.Literal:
        return next(choice for choice in typing.get_args(annotation) if choice != value)
    if value is None:
        return 8
    return (not value) if isinstance(value, bool) else 2 * value


@pytest.fixture(scope="module")
def computed(batch):
    """Returns a function of a method: the losses of its phases, their epochs, and shapes."""
    teachers = [small_network(10, 2, seed=seed) for seed in (1, 2)]
    known = {}

    def compute(method):
        if method in known:
            return known[method]
        used = teachers[: TEACHERS.get(method.name, 1)]
        built = method.with_alpha(fixed("random", used[0])) if isinstance(method, DFA) else method
        net = DistillationNet(used, small_network(10, 1, seed=3), [built], steps=1, seed=4)
        phases = [phase for _, phase in net.pretrainings]
        objectives = [net.pretraining_objective(phase) for phase in phases]
        objectives += [segment.objective for segment in net.segments([1])]
        known[method] = (
            [phase.epochs for phase in phases],
            [tuple(variable.shape) for model in net.models for variable in model.variables],
            [objective(*batch)[0].numpy() for objective in objectives],
        )
        return known[method]

    return compute


@pytest.mark.parametrize(("method", "setting"), _settings())
def test_setting_changes_the_losses_the_epochs_or_the_connectors(computed, method, setting):
    changed = dataclasses.replace(method, **{setting: _other_value(method, setting)})
    (epochs, shapes, losses), (new_epochs, new_shapes, new_losses) = map(
        computed, (method, changed)
    )
    assert (
        epochs != new_epochs
        or shapes != new_shapes
        or not all(np.allclose(a, b, rtol=1e-4) for a, b in zip(losses, new_losses, strict=True))
    )
