"""Networks of keras.applications: their pixels, weights and new heads."""

import random

import keras
import numpy as np
import pytest
from keras.applications import imagenet_utils

from dfa_tf import models
from dfa_tf.errors import UserError
from dfa_tf.models.keras_application import keras_application, pixel_scaling

SHAPE = (64, 64, 3)
MODES = {"MobileNetV2": "tf", "DenseNet121": "torch", "ResNet50": "caffe"}


def _images(count=2):
    return np.random.default_rng(0).integers(0, 256, (count, *SHAPE)).astype(np.float32)


def _build(name="MobileNetV3Small", **more):
    arguments = {"weights": None, "num_classes": 5, "image_shape": SHAPE, "seed": 3}
    return keras_application(name=name, **arguments | more)


@pytest.mark.parametrize("name", MODES)
def test_pixels_are_scaled_as_by_the_application(name):
    """The modes are those that Keras documents for `preprocess_input`."""
    scale, offset, is_reversed = pixel_scaling(getattr(keras.applications, name))
    images = _images()
    expected = imagenet_utils.preprocess_input(images.copy(), mode=MODES[name])
    scaled = images * scale + offset
    np.testing.assert_allclose(scaled[..., ::-1] if is_reversed else scaled, expected, atol=1e-4)
    assert is_reversed == (MODES[name] == "caffe")


@pytest.mark.parametrize(
    "name",
    [
        "MobileNetV2",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("DenseNet121", "ResNet50")),
    ],
)
def test_maps_equal_those_of_the_application(name, tmp_path):
    application = getattr(keras.applications, name)
    original = application(include_top=False, weights=None, input_shape=SHAPE)
    original.save_weights(tmp_path / "own.weights.h5")
    network = _build(name, weights=tmp_path / "own.weights.h5")
    expected = original(imagenet_utils.preprocess_input(_images(), mode=MODES[name]))
    pooled_map = network.full_outputs(_images())["pooled_map"]
    np.testing.assert_allclose(pooled_map, expected, rtol=2e-3, atol=1e-4)
    logits = network.classifier(np.mean(expected, axis=(1, 2)))
    np.testing.assert_allclose(network(_images())["logits"], logits, rtol=2e-3, atol=1e-3)


def test_initial_weights_follow_from_the_seed_alone():
    first = _build()
    random.seed(2)
    before = random.getstate()
    assert _build().weights_digest == first.weights_digest
    assert random.getstate() == before
    assert _build(seed=4).weights_digest != first.weights_digest


def test_network_is_saved_and_loaded(tmp_path):
    network = _build()
    network.save(tmp_path / "net.keras")
    loaded = models.load(tmp_path / "net.keras")
    assert loaded.num_classes == 5
    assert loaded.weights_digest == network.weights_digest
    np.testing.assert_array_equal(loaded(_images())["logits"], network(_images())["logits"])


def test_images_of_one_channel_need_initial_weights():
    assert _build(image_shape=(64, 64, 1)).image_shape == (64, 64, 1)
    with pytest.raises(UserError, match=r"keras_application\.weights"):
        _build(image_shape=(64, 64, 1), weights="imagenet")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"name": "MobilNet"}, "MobileNetV2"),
        ({"name": "InceptionV3", "image_shape": (32, 32, 3)}, r"InceptionV3.*32.*image_size"),
        ({"weights": "gone.weights.h5"}, r"gone\.weights\.h5"),
        ({"weights": __file__}, r"test_keras_application\.py"),
    ],
)
def test_wrong_setting_is_refused(changes, named):
    with pytest.raises(UserError, match=rf"keras_application\..*{named}") as error:
        _build(**changes)
    assert "\n" not in str(error.value)


def test_file_to_download_by_hand_is_named(monkeypatch, tmp_path):
    """The text is that of `keras.utils.get_file` on a machine without a network."""
    url = "https://storage.googleapis.com/tensorflow/keras-applications/x/weights_notop.h5"

    def application(**arguments):
        raise Exception(f"URL fetch failure on {url}: None -- [Errno -2] Name unknown")

    monkeypatch.setattr(keras.applications, "MobileNetV3Small", application)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.raises(UserError, match=r"keras_application\.weights") as error:
        _build(weights="imagenet")
    assert url in str(error.value)
    assert str(tmp_path / "models") in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["MobileNet", "Xception", "EfficientNetV2B0", "ConvNeXtTiny", "NASNetMobile", "VGG16"]
)
def test_every_application_has_groups(name):
    network = _build(name, image_shape=(96, 96, 3))
    assert network.classifier is not None
    assert len(network.group_names) >= (2 if name.startswith("NASNet") else 4)


@pytest.fixture
def own_file(tmp_path):
    """A wide ResNet for 7 classes of 32x32 pixels, in a file."""
    models.wide_resnet(10, 1, num_classes=7, seed=1).save(tmp_path / "own.keras")
    return tmp_path / "own.keras"


def _foreign_file(path):
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same", activation="relu")(inputs)
    x = keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(9, activation="relu")(x)
    keras.Model(inputs, keras.layers.Dense(7, activation="softmax")(x)).save(path)
    return path


@pytest.mark.parametrize("kind", ["own", "foreign"])
def test_new_head_keeps_all_other_weights(own_file, tmp_path, kind):
    path = own_file if kind == "own" else _foreign_file(tmp_path / "foreign.keras")
    old = models.load(path)
    new = models.load(path, head="new", num_classes=3, image_shape=(32, 32, 3), seed=5)
    images = _images()[:, :32, :32]
    assert new(images)["logits"].shape == (2, 3)
    for name in old.group_names:
        for a, b in zip(old.features(name, images), new.features(name, images), strict=True):
            np.testing.assert_array_equal(a, b)
    maps = old.full_outputs(images)["pooled_map"], new.full_outputs(images)["pooled_map"]
    np.testing.assert_array_equal(*maps)
    again = models.load(path, head="new", num_classes=3, image_shape=(32, 32, 3), seed=5)
    assert again.weights_digest == new.weights_digest


def test_new_head_of_an_own_file_accepts_other_image_shapes(own_file):
    network = models.load(own_file, head="new", num_classes=3, image_shape=(48, 64, 3))
    assert network.image_shape == (48, 64, 3)
    with pytest.raises(UserError, match=r"keras_file\.path.*1 channels"):
        models.load(own_file, head="new", num_classes=3, image_shape=(32, 32, 1))


@pytest.mark.parametrize("scale", [0, [1.0, 0.0, 1.0]])
def test_scale_of_zero_is_refused(tmp_path, scale):
    path = _foreign_file(tmp_path / "foreign.keras")
    with pytest.raises(UserError, match=r"keras_file\.scale"):
        models.load(path, scale=scale)


@pytest.mark.parametrize("path", ["/dev/zero", "/"])
def test_device_or_folder_is_no_network(path):
    with pytest.raises(UserError, match=path):
        models.load(path)


@pytest.mark.parametrize("setting", ["scale", "offset"])
def test_scaling_of_each_channel_needs_as_many_numbers(tmp_path, setting):
    path = _foreign_file(tmp_path / "foreign.keras")
    assert models.load(path, **{setting: [0.5, 0.6, 0.7]}).num_classes == 7
    with pytest.raises(UserError, match=rf"keras_file\.{setting}"):
        models.load(path, **{setting: [0.5, 0.6]})


@pytest.mark.parametrize("name", ["MobileNetV2", "EfficientNetB0"])
def test_moving_statistics_follow_within_a_short_training(name):
    """The applications' own momentum, 0.999 and 0.99, would leave 90 and 37 % after 100 steps."""
    network = keras_application(name, None, num_classes=3, image_shape=(32, 32, 3))
    layers = [
        layer for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert layers
    assert all(layer.momentum**100 < 0.01 for layer in layers)
