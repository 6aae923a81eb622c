"""Class weights in the stages: recorded, checked first, and used for the cross entropy."""

import pytest

from dfa_tf.errors import UserError
from dfa_tf.methods import KD
from dfa_tf.objectives.targets import Targets
from dfa_tf.training.optimizers import SGD
from tests.conftest import CLASSES, same, small_network

STAGES = {
    "train_teacher": ("teacher", {"network": small_network(depth=10)}),
    "distill": ("distill", {"teacher": None, "methods": []}),
}


@pytest.mark.parametrize("stage", STAGES)
def test_doubled_weights_act_as_a_doubled_learning_rate(run, tmp_path, stage):
    """Without weight decay. A factor of 2 is exact, so the weights are equal to the bit."""
    folder, arguments = STAGES[stage]

    def trained(name, learning_rate, class_weights):
        return getattr(run, stage)(
            **arguments,
            workdir=tmp_path / name,
            optimizer=SGD(learning_rate, momentum=0.0, nesterov=False, weight_decay=0.0),
            targets=Targets(class_weights),
        )

    network = trained("weights", 0.0625, [2.0] * CLASSES)
    assert same(network.get_weights(), trained("rate", 0.125, None).get_weights())
    config = (tmp_path / "weights" / folder / "config.gin").read_text()
    assert f"{stage}.class_weights = [2.0, 2.0, 2.0, 2.0]" in config


def test_balanced_weights_of_equal_classes_change_nothing(run, tmp_path):
    arguments = {"methods": [KD()], "teacher": small_network(depth=10, seed=1)}
    targets = Targets("balanced")
    balanced = run.distill(**arguments, targets=targets, workdir=tmp_path / "balanced")
    assert same(balanced.get_weights(), run.distill(**arguments).get_weights())


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("value", [[1.0], [1.0] * (CLASSES + 1)])
def test_wrong_class_weights_are_named_and_nothing_is_written(run, stage, value):
    with pytest.raises(UserError, match=rf"{stage}\.class_weights"):
        getattr(run, stage)(**STAGES[stage][1], targets=Targets(value))
    assert not list(run.workdir.iterdir())


def test_class_without_images_cannot_be_balanced(run):
    without = run.everything.select([k for k, y in enumerate(run.everything.labels) if y != 2])
    with pytest.raises(UserError, match=r"train_teacher\.class_weights.*class 2"):
        run.train_teacher(train=without, targets=Targets("balanced"))
