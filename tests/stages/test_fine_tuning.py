"""Fine-tuning: a frozen backbone, its own learning rate, and resumption."""

import dataclasses

import keras
import numpy as np
import pytest

from dfa_tf import models
from dfa_tf.errors import Interrupted, UserError
from dfa_tf.methods import AB, FT, KD
from dfa_tf.methods.losses import plain_objective
from dfa_tf.stages import distill as distillations
from dfa_tf.training.fine_tuning import FineTuning, split_variables
from dfa_tf.training.fit import Problem, fit
from dfa_tf.training.loop import Loop
from dfa_tf.training.optimizers import SGD, Adam
from tests.conftest import same, small_network
from tests.stages.conftest import Run, stop_at


def _changes(before, after):
    """Changes of all weights, by layer: {name: [arrays]}."""
    return {
        layer.name: [
            b - a
            for a, b in zip(
                before.get_layer(layer.name).get_weights(), layer.get_weights(), strict=True
            )
        ]
        for layer in after.layers
        if layer.weights
    }


@pytest.mark.parametrize("optimizer", [SGD(0.05), Adam(0.01)])
def test_only_the_head_changes_while_the_backbone_is_frozen(run, optimizer):
    """Also the moving statistics of batch normalization stay, and no weight decays."""
    network = small_network(depth=10, seed=3)
    problem = Problem(network, plain_objective(network), fine_tuning=FineTuning(head_epochs=1))
    training = dataclasses.replace(run.training, optimizer=optimizer)
    arguments = {"label": "tuned", "folder": run.workdir, "runtime": run.runtime}
    trained, result = fit(problem, run.everything, None, training, **arguments)
    assert result.steps == 10
    changes = _changes(small_network(depth=10, seed=3), trained)
    assert {name for name, each in changes.items() if any(map(np.any, each))} == {
        network.classifier.name
    }


def test_head_cannot_be_trained_alone_for_the_whole_run(run):
    with pytest.raises(UserError, match="head_epochs"):
        run.train_teacher(fine_tuning=FineTuning(head_epochs=1))


def test_backbone_moves_by_its_factor_of_the_learning_rate(tmp_path):
    """One step of SGD moves each weight by the learning rate times its gradient."""
    student = small_network(depth=10, seed=3)
    moved = {}
    for rate in (1.0, 0.25):
        run = Run(tmp_path / str(rate))
        trained = run.train_teacher(
            network=student,
            batch_size=120,
            optimizer=SGD(0.05, momentum=0.0, nesterov=False),
            fine_tuning=FineTuning(backbone_rate=rate),
        )
        moved[rate] = _changes(student, trained)
    classifier = student.classifier.name
    for name in moved[1.0]:
        trainable = len(student.get_layer(name).trainable_weights)
        factor = 1.0 if name == classifier else 0.25
        for whole, part in zip(
            moved[1.0][name][:trainable], moved[0.25][name][:trainable], strict=True
        ):
            np.testing.assert_allclose(part, factor * whole, rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("at", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_interrupted_fine_tuning_resumes_to_the_same_student(tmp_path, monkeypatch, at):
    """Before and after the backbone starts to train, at step 6 of 10."""
    arguments = {"methods": [KD()], "fine_tuning": FineTuning(0.6, 0.1)}
    runtime = dataclasses.replace(Run(tmp_path).runtime, log_every=2)
    straight = Run(tmp_path / "straight", runtime).distill(**arguments)
    with monkeypatch.context() as patched:
        stop_at(patched, Loop, "_record", at)
        with pytest.raises(Interrupted):
            Run(tmp_path / "killed", runtime).distill(**arguments)
    resumed = Run(tmp_path / "killed", runtime).distill(**arguments)
    assert same(resumed.get_weights(), straight.get_weights())


def test_network_without_a_dense_classifier_is_refused(run):
    inputs = keras.Input(small_network().image_shape)
    x = keras.layers.Conv2D(4, 3)(inputs)
    x = keras.layers.Dense(5)(keras.layers.Flatten()(x))
    network = models.from_keras(keras.Model(inputs, x))
    with pytest.raises(UserError, match=r"head_epochs"):
        run.train_teacher(network=network, fine_tuning=FineTuning(backbone_rate=0.1))


def _ids(variables):
    return {id(variable) for variable in variables}


def test_connectors_belong_to_the_head():
    student = small_network(depth=10, seed=3)
    connector = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    variables = [*student.trainable_variables, *connector.trainable_variables]
    head, backbone = split_variables(student, variables)
    expected = [*student.classifier.trainable_variables, *connector.trainable_variables]
    assert _ids(head) == _ids(expected)
    assert _ids(backbone) == _ids(student.trainable_variables) - _ids(expected)


def test_pretraining_freezes_no_layer_and_keeps_the_rate(run, monkeypatch):
    """The phase of AB trains the student; that of FT trains its paraphraser alone."""
    found = {}
    original = distillations.fit

    def recorded(problem, *arguments, label, **more):
        found[label] = problem.fine_tuning
        return original(problem, *arguments, label=label, **more)

    monkeypatch.setattr(distillations, "fit", recorded)
    run.distill(
        teacher=small_network(depth=10, width=2, seed=1),
        methods=[AB(epochs=0.2), FT(paraphraser_epochs=0.2)],
        epochs=0.5,
        fine_tuning=FineTuning(head_epochs=0.2, backbone_rate=0.25),
    )
    assert found == {
        "distill/ab": FineTuning(head_epochs=0.0, backbone_rate=0.25),
        "distill/ft": FineTuning(),
        "distill": FineTuning(head_epochs=0.2, backbone_rate=0.25),
    }
