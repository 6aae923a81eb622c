"""Loss scaling for float16: steps as without it, and steps that overflow are skipped."""

import numpy as np
import pytest
import tensorflow as tf

from dfa_tf.bilevel.dfa_search import SearchOptions
from dfa_tf.errors import UserError
from dfa_tf.stages.search import check
from dfa_tf.training.fine_tuning import HeadAndBackbone
from dfa_tf.training.optimizers import SGD, Adam
from dfa_tf.training.recipe import Training
from tests.conftest import made_examples, small_network

INITIAL = 2.0**15  # Keras' default


def _step(optimizer, variables, loss):
    """A step that minimises `loss`, a function of the variables."""
    with tf.GradientTape() as tape:
        value = loss(*variables)
    optimizer.apply(optimizer.gradients(tape, value))


@pytest.mark.parametrize("recipe", [SGD(0.1, weight_decay=0.01), Adam(0.1)])
def test_steps_with_a_scale_are_those_without_it(recipe):
    """A power of 2 does not change a float32 number, and the decay is not scaled twice."""
    found = []
    for loss_scaling in (False, True):
        variable = tf.Variable([1.0, -2.0, 0.5])
        optimizer = recipe.build([variable], 1, 5, loss_scaling=loss_scaling)
        for _ in range(4):
            _step(optimizer, [variable], lambda v: tf.reduce_sum(v**2))
        found.append(variable.numpy())
    np.testing.assert_array_equal(*found)


def test_scale_preserves_gradients_that_float16_rounds_to_0():
    """1e-8 is below 2^-24, the smallest float16 number."""
    found = []
    for loss_scaling in (False, True):
        variable = tf.Variable(1.0)
        optimizer = SGD(1.0, momentum=0.0, weight_decay=0.0).build(
            [variable], 1, 5, loss_scaling=loss_scaling
        )
        with tf.GradientTape() as tape:
            half = tf.cast(variable, tf.float16)
            loss = 1e-8 * tf.cast(half, tf.float32)
        found.append(float(optimizer.gradients(tape, loss)[0]))
    assert found[0] == 0
    assert found[1] == pytest.approx(1e-8, rel=1e-2)


def _overflowing(v):
    return tf.reduce_sum(tf.cast(tf.cast(v, tf.float16) * 4, tf.float32))  # 4 * 2^15 > 65,504


def test_overflow_halves_the_scale_and_leaves_the_variables():
    """It counts as a step, so that the schedule and the batches stay in step."""
    variable = tf.Variable([3.0])
    optimizer = SGD(0.5, momentum=0.9, weight_decay=0.1).build([variable], 1, 5, loss_scaling=True)
    assert float(optimizer.loss_scale) == INITIAL
    for steps, scale in ((1, INITIAL / 2), (2, INITIAL / 4)):
        _step(optimizer, [variable], _overflowing)
        assert float(optimizer.loss_scale) == scale
        assert variable.numpy() == [3.0]
        assert int(optimizer.step) == steps
    _step(optimizer, [variable], _overflowing)  # 4 * 2^13 fits
    assert variable.numpy() == pytest.approx([3 - 0.5 * 1.9 * (4 + 0.1 * 3)])
    assert int(optimizer.step) == 3


def test_overflow_on_one_replica_is_one_for_both(two_replicas):
    with two_replicas.scope():
        variable = tf.Variable([3.0])
        optimizer = SGD(0.5, weight_decay=0.0).build([variable], 1, 5, loss_scaling=True)

    @tf.function
    def step():
        context = tf.distribute.get_replica_context()
        is_large = context.replica_id_in_sync_group == 1
        optimizer.apply([tf.where(is_large, [float("inf")], [1.0])])

    two_replicas.run(step)
    assert variable.numpy() == [3.0]
    assert int(optimizer.step) == 1
    (scale,) = (variable for variable in optimizer.state if "dynamic_scale" in variable.name)
    for value in two_replicas.experimental_local_results(scale):
        assert float(value) == INITIAL / 2


def test_head_and_backbone_share_the_smaller_scale():
    variables = tf.Variable(1.0), tf.Variable(1.0)
    recipe = SGD(0.5, momentum=0.0, weight_decay=0.0)
    head, backbone = (recipe.build([v], 1, 5, loss_scaling=True) for v in variables)
    both = HeadAndBackbone(head, backbone)
    for _ in range(3):  # the backbone overflows twice
        _step(both, variables, lambda h, b: h + tf.reduce_sum(_overflowing(b)))
    assert [v.numpy() for v in variables] == [1 - 3 * 0.5, 1 - 0.5 * 4]


def test_second_order_search_refuses_float16():
    examples = made_examples(40)
    how = Training(epochs=1, batch_size=8, precision="mixed_float16"), SearchOptions(order=2), 1
    with pytest.raises(UserError, match=r"search\.precision"):
        check(small_network(), small_network(), examples, examples, *how)
