"""The pooled map: the map whose spatial average the classifier receives."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dfa_tf import models
from tests.conftest import made_examples, same, small_network, with_statistics

IMAGES = made_examples(4, seed=5, shape=(32, 32, 3)).images
BUILDERS = {
    "wide_resnet": {"depth": 10, "width": 1},
    "cifar_resnet": {"depth": 8},
    "resnet": {"depth": 18},
    "shufflenet_v2": {"width": 0.5},
    "mobilenet_v2": {},
    "vgg": {"depth": 8},
}


def _flat(outputs):
    return [np.array(tf.cast(x, tf.float32)) for x in keras.tree.flatten(outputs)]


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_pooled_map_of_a_wide_resnet_is_the_relu_of_its_last_feature(precision, folded, batch):
    network = small_network(depth=16, width=2, seed=3)
    network = network.folded(precision) if folded else network.copy(precision)
    outputs = network.full_outputs(batch[0])
    activation = tf.nn.relu(outputs["features"]["group3"][-1])
    assert outputs["pooled_map"].dtype == activation.dtype
    np.testing.assert_array_equal(outputs["pooled_map"], activation)


@pytest.mark.parametrize("name", BUILDERS)
def test_classifier_maps_the_average_of_the_pooled_map_to_the_logits(name):
    network = with_statistics(models.NETWORKS[name](num_classes=10, **BUILDERS[name]))
    outputs = network.full_outputs(IMAGES)
    average = tf.reduce_mean(outputs["pooled_map"], [1, 2])
    np.testing.assert_allclose(
        network.get_layer("logits")(average), outputs["logits"], rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("training", [False, True])
def test_outputs_are_those_of_a_call_and_the_pooled_map(training):
    first, second = small_network(), small_network()
    images = made_examples(8).images
    outputs = first.full_outputs(images, training=training)
    del outputs["pooled_map"], outputs["stem"]
    assert outputs.keys() == {"logits", "features"}
    assert same(_flat(outputs), _flat(second(images, training=training)))
    assert same(first.get_weights(), second.get_weights())


def test_pooled_map_of_a_keras_model_is_the_input_of_its_global_pooling():
    model = keras.applications.MobileNetV2(weights=None, input_shape=(32, 32, 3), classes=7)
    network = models.from_keras(model)
    outputs = network.full_outputs(IMAGES)
    assert outputs["pooled_map"].shape == (4, 1, 1, 1280)
    average = tf.reduce_mean(outputs["pooled_map"], [1, 2])
    logits = network.get_layer("predictions")(average)
    np.testing.assert_allclose(logits, outputs["logits"], rtol=1e-4, atol=1e-6)


def test_pooled_map_precedes_a_head_of_convolutions():
    model = keras.applications.MobileNetV3Small(weights=None, input_shape=(64, 64, 3), classes=7)
    pooled_map = models.from_keras(model).full_outputs(np.zeros((2, 64, 64, 3)))["pooled_map"]
    assert pooled_map.shape == (2, 2, 2, 576)


def test_pooled_map_of_a_head_that_flattens_is_the_map_before():
    image = keras.Input((8, 8, 3))
    x = keras.layers.ReLU(name="relu")(keras.layers.Conv2D(4, 3, padding="same")(image))
    logits = keras.layers.Dense(5)(keras.layers.Flatten()(x))
    model = keras.Model(image, logits)
    images = made_examples(4).images
    expected = keras.Model(image, x)(images.astype(np.float32))
    pooled_map = models.from_keras(model).full_outputs(images)["pooled_map"]
    np.testing.assert_allclose(pooled_map, expected, rtol=1e-5, atol=1e-3)
