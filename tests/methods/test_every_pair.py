"""Every method with every network, as teacher and as student."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from dfa_tf import methods
from dfa_tf.alpha import fixed
from dfa_tf.objectives.objective import pretraining_objective, student_objective
from dfa_tf.objectives.teachers import build_method, check_method
from tests.conftest import made_examples
from tests.models.networks import SMALL, small

every_method = pytest.mark.parametrize("name", methods.METHODS)
every_network = pytest.mark.parametrize("teacher", SMALL)
LABELS = tf.constant([0, 3, 7, 9])


@functools.cache
def _teacher(name):
    return small(name).folded("float32")


def _method(name, teacher):
    method = methods.METHODS[name]
    return method(fixed("random", teacher, 5)) if name == "dfa" else method()


def _built(name, teacher, student):
    method = _method(name, teacher)
    check_method(method, [teacher], student)
    return method, build_method(method, [teacher], student, 3, "float32")


@every_method
@every_network
def test_every_method_builds_for_every_network(name, teacher):
    _, distillations = _built(name, small(teacher), small(teacher))
    for distillation in distillations:
        weights = [*distillation.weights.values(), distillation.cross_entropy]
        assert np.isfinite(weights).all()
        assert min(weights) >= 0


@pytest.mark.parametrize("name", [name for name in methods.METHODS if name != "dfa"])
@every_network
def test_every_method_but_dfa_builds_for_another_student(name, teacher):
    student = "VGG_8" if teacher != "VGG_8" else "ResNet_8"
    _, distillations = _built(name, small(teacher), small(student))
    for distillation in distillations:
        assert np.isfinite(list(distillation.weights.values())).all()


@pytest.mark.slow
@every_method
@every_network
def test_every_method_takes_a_step_with_every_network(name, teacher):
    student = small(teacher).copy("float32")
    method, distillations = _built(name, small(teacher), student)
    images = tf.constant(made_examples(4, seed=5, shape=(32, 32, 3), classes=10).images)
    objectives = [
        (
            student_objective(
                _teacher(teacher), student, distillations, [1.0] * len(distillations), method.needs
            ),
            [
                v
                for m in (student, *(c for d in distillations for c in d.connectors))
                for v in m.trainable_variables
            ],
        )
    ]
    for pretraining in filter(None, (d.pretraining for d in distillations)):
        objective = pretraining_objective(_teacher(teacher), student, pretraining, method.needs)
        objectives.append((objective, pretraining.variables))
    for objective, variables in objectives:
        with tf.GradientTape() as tape:
            loss, _, _ = objective(images, LABELS)
            mean = tf.reduce_mean(loss)
        gradients = tape.gradient(mean, [v.value for v in variables])
        assert np.isfinite(loss).all()
        assert all(g is not None and np.isfinite(g).all() for g in gradients)
