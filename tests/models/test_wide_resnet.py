"""Wide ResNets: published sizes, features, tails, initial weights."""

import keras
import numpy as np
import pytest

from dfa_tf import models
from dfa_tf.errors import UserError
from tests.conftest import same, small_network


# DFA, Tables 1 and 2 (100 classes), in trainable parameters.
@pytest.mark.parametrize(
    ("depth", "width", "count"),
    [(28, 4, 5_872_180), (16, 4, 2_772_020), (28, 2, 1_479_220)],
)
def test_parameter_counts_are_as_published(depth, width, count):
    network = models.wide_resnet(depth, width, 100)
    assert sum(np.prod(v.shape) for v in network.trainable_variables) == count
    assert network.name == f"WRN_{depth}_{width}"


def test_depth_that_would_take_hours_to_build_is_refused():
    with pytest.raises(UserError, match=r"wide_resnet\.depth: .*100000"):
        models.wide_resnet(100_000, 1, 10)


def test_each_group_has_n_features_and_halves_the_map():
    network = models.wide_resnet(28, 4, 100)
    outputs = network(np.zeros((2, 32, 32, 3), np.uint8), training=False)
    shapes = {name: [tuple(f.shape) for f in fs] for name, fs in outputs["features"].items()}
    assert shapes == {
        "group1": [(2, 32, 32, 64)] * 4,
        "group2": [(2, 16, 16, 128)] * 4,
        "group3": [(2, 8, 8, 256)] * 4,
    }
    assert outputs["logits"].shape == (2, 100)
    assert network.group("group2").feature_names == [f"group2_block{j}" for j in (1, 2, 3, 4)]


def test_feature_is_the_normalized_stream_before_its_relu(batch):
    images, _ = batch
    network = small_network()
    stream = keras.Model(network.input, network.group("group1").stream)(images, training=False)
    norm = network.get_layer("group2_block1_norm1")
    scale = norm.gamma.numpy() / np.sqrt(norm.moving_variance.numpy() + 1e-5)
    expected = (stream.numpy() - norm.moving_mean.numpy()) * scale + norm.beta.numpy()
    feature = network(images, training=False)["features"]["group1"][-1]
    np.testing.assert_allclose(feature, expected, rtol=1e-4, atol=1e-4)
    assert feature.numpy().min() < 0


def test_raw_features_are_the_outputs_of_blocks(batch):
    images, _ = batch
    network = small_network(features="raw")
    stream = keras.Model(network.input, network.group("group3").stream)(images, training=False)
    np.testing.assert_array_equal(network(images, training=False)["features"]["group3"][-1], stream)


def test_file_can_be_loaded_with_other_features_and_the_same_weights(tmp_path):
    saved = small_network(seed=4)
    path = tmp_path / "teacher.keras"
    saved.save(path)
    raw = models.load(path, features="raw")
    assert raw.spec["arguments"]["features"] == "raw"
    assert same(raw.get_weights(), saved.get_weights())
    assert models.load(path).spec["arguments"]["features"] == "normalized"


def test_features_of_a_file_without_a_choice_are_a_user_error(tmp_path):
    path = tmp_path / "vgg.keras"
    models.vgg(8, num_classes=10).save(path)
    with pytest.raises(UserError, match=r"keras_file\.features"):
        models.load(path, features="raw")


def test_features_of_one_group_equal_those_of_a_call(batch):
    images, _ = batch
    network = small_network()
    full = network(images, training=False)["features"]
    for group in network.group_names:
        for feature, expected in zip(network.features(group, images), full[group], strict=True):
            np.testing.assert_allclose(feature, expected, rtol=1e-5, atol=1e-6)


def test_weights_depend_on_the_seed_only():
    first, second, third = (models.wide_resnet(10, 1, 10, seed=s).get_weights() for s in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, third, strict=True))


def test_convolutions_have_he_initialization():
    kernel = models.wide_resnet(16, 4, 10).get_layer("group3_block2_conv2").kernel.numpy()
    assert kernel.shape == (3, 3, 256, 256)
    assert kernel.std() == pytest.approx(np.sqrt(2 / (9 * 256)), rel=0.01)
    assert np.abs(kernel).max() > 3 * kernel.std()  # not truncated at two


@pytest.mark.parametrize("depth", [4, 15, 17, 27, 30])
def test_depth_must_be_6n_plus_4(depth):
    with pytest.raises(UserError, match=r"wide_resnet\.depth"):
        models.wide_resnet(depth, 1, 10)


def test_network_normalizes_pixels():
    network = small_network()
    normalize = keras.Model(network.input, network.get_layer("normalize").output)
    pixels = np.array([0, 127.5, 255], np.float32).reshape(1, 1, 1, 3).repeat(8, 1).repeat(8, 2)
    np.testing.assert_allclose(normalize(pixels)[0, 0, 0], [-2, 0, 2], atol=1e-5)
