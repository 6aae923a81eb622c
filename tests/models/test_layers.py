"""The shared layers, compared with NumPy and with Keras."""

import keras
import numpy as np
import tensorflow as tf

from dfa_tf.models import BatchNormalization
from dfa_tf.models.layers import Layers, ResidualAdd


def test_strided_convolution_pads_both_sides():
    """PyTorch's padding=1; Keras' "same" would shift the map by one pixel."""
    inputs = keras.Input((4, 4, 1))
    model = keras.Model(inputs, Layers().convolution(inputs, 1, 3, "conv", stride=2))
    kernel = np.arange(9, dtype=np.float32).reshape(3, 3)
    model.get_layer("conv").kernel.assign(kernel.reshape(3, 3, 1, 1))
    image = np.arange(16, dtype=np.float32).reshape(4, 4)
    padded = np.pad(image, 1)
    expected = [[np.sum(padded[y : y + 3, x : x + 3] * kernel) for x in (0, 2)] for y in (0, 2)]
    np.testing.assert_allclose(model(image.reshape(1, 4, 4, 1))[0, ..., 0], expected)


def _with_parameters(layer, channels):
    layer.build((None, 4, 4, channels))
    layer.gamma.assign(np.linspace(0.5, 2, channels))
    layer.beta.assign(np.linspace(-1, 1, channels))
    layer.moving_mean.assign(np.linspace(-0.5, 0.5, channels))
    layer.moving_variance.assign(np.linspace(0.5, 2, channels))
    return layer


def test_fused_normalization_equals_that_of_keras():
    maps = np.random.default_rng(0).normal(1, 2, (6, 4, 4, 5)).astype(np.float32)
    fused = _with_parameters(BatchNormalization(), 5)
    stock = _with_parameters(keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5), 5)
    for training in (False, True):
        np.testing.assert_allclose(
            fused(maps, training=training), stock(maps, training=training), atol=1e-5
        )


def test_moving_statistics_use_mean_and_unbiased_variance():
    maps = np.random.default_rng(1).normal(3, 2, (2, 2, 2, 1)).astype(np.float32)
    layer = BatchNormalization(momentum=0.9)
    layer(maps, training=True)
    np.testing.assert_allclose(layer.moving_mean, [0.1 * maps.mean()], rtol=1e-5)
    np.testing.assert_allclose(layer.moving_variance, [0.9 + 0.1 * maps.var(ddof=1)], rtol=1e-5)


def test_moving_statistics_are_constant_at_inference_or_frozen():
    maps = np.ones((2, 2, 2, 3), np.float32)
    layer = BatchNormalization()
    layer(maps, training=False)
    layer.trainable = False
    layer(maps, training=True)
    np.testing.assert_array_equal(layer.moving_mean, np.zeros(3))


def test_bfloat16_maps_stay_bfloat16_and_statistics_float32():
    layer = BatchNormalization(dtype="mixed_bfloat16")
    maps = tf.cast(np.random.default_rng(2).normal(0, 1, (8, 4, 4, 3)), tf.bfloat16)
    assert layer(maps, training=True).dtype == tf.bfloat16
    assert {v.dtype for v in layer.variables} == {"float32"}


def test_replicas_have_their_own_statistics_and_their_mean_is_read(two_replicas):
    with two_replicas.scope():
        layer = BatchNormalization(momentum=0.5)
        layer.build((None, 2, 2, 1))

    def replica():
        number = tf.distribute.get_replica_context().replica_id_in_sync_group
        layer(tf.fill([1, 2, 2, 1], 4.0 * tf.cast(number, tf.float32)), training=True)

    tf.function(lambda: two_replicas.run(replica))()
    assert [float(v[0]) for v in layer.moving_mean.value.values] == [0.0, 2.0]
    assert layer.get_weights()[2][0] == 1.0


def test_residual_add_and_its_gradient():
    x, y = (np.random.default_rng(k).normal(size=(2, 3, 3, 4)).astype(np.float32) for k in (0, 1))
    shortcut, branch = tf.constant(x), tf.constant(y)
    with tf.GradientTape() as tape:
        tape.watch([shortcut, branch])
        total = ResidualAdd()([shortcut, branch])
    np.testing.assert_array_equal(total, x + y)
    for gradient in tape.gradient(total, [shortcut, branch], tf.constant(x)):
        np.testing.assert_array_equal(gradient, x)
