"""Keras models of any make as networks: their groups, their weights, and what cannot be split."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from dfa_tf import models
from dfa_tf.errors import UserError
from tests.conftest import same

APPLICATIONS = {
    "MobileNetV2": keras.applications.MobileNetV2,
    "MobileNetV3Small": keras.applications.MobileNetV3Small,
    "EfficientNetB0": keras.applications.EfficientNetB0,
    "ResNet50": keras.applications.ResNet50,
}
SIZES = [32, *(pytest.param(size, marks=pytest.mark.slow) for size in (96, 224))]
every_application = pytest.mark.parametrize("name", APPLICATIONS)


@functools.cache
def _pair(name, size=32):
    """(a model of keras.applications whose answers differ from class to class, its network)."""
    keras.utils.set_random_seed(0)
    model = APPLICATIONS[name](weights=None, input_shape=(size, size, 3), classes=7)
    last = [layer for layer in model.layers if hasattr(layer, "kernel")][-1]
    taken = keras.Model(model.input, last.input)(_images(size)).numpy()
    kernel = last.kernel.numpy()
    scores = taken.reshape(-1, kernel.shape[-2]) @ kernel.reshape(-1, 7)
    last.kernel.assign(kernel * 3 / np.abs(scores).max())
    return model, models.from_keras(model)


def _images(size=32, count=3):
    return np.random.default_rng(1).integers(0, 256, (count, size, size, 3)).astype(np.float32)


@every_application
@pytest.mark.parametrize("size", SIZES)
def test_logits_are_what_the_models_softmax_takes(name, size):
    model, network = _pair(name, size)
    outputs = network(_images(size), training=False)
    expected = model(_images(size), training=False)
    assert expected.shape == (3, 7)
    np.testing.assert_allclose(tf.nn.softmax(outputs["logits"]), expected, atol=1e-5)
    assert outputs["logits"].dtype == tf.float32


@every_application
@pytest.mark.parametrize("size", SIZES)
def test_groups_are_the_five_sizes_and_each_can_be_entered(name, size):
    _, network = _pair(name, size)
    shapes = [network.group(group).feature_shape for group in network.group_names]
    assert [shape[0] for shape in shapes] == [size // k for k in (2, 4, 8, 16, 32)]
    outputs = network(_images(size), training=False)
    scale = np.abs(outputs["logits"]).max()
    for group, features in outputs["features"].items():
        assert len({tuple(feature.shape) for feature in features}) == 1
        logits = network.tail(group, features[-1])
        np.testing.assert_allclose(logits, outputs["logits"], atol=1e-5 * scale, err_msg=group)


def test_features_of_a_resnet_are_its_sums_before_their_relu():
    """Blocks 3, 4, 6, 3, as ResNet50 has them."""
    model, network = _pair("ResNet50")
    counts = [len(network.group(name).features) for name in network.group_names]
    assert counts == [1, 3, 4, 6, 3]
    sums = keras.Model(model.input, model.get_layer("conv3_block2_add").output)
    feature = network(_images(), training=False)["features"]["group3"][1]
    expected = sums(_images())
    np.testing.assert_allclose(feature, expected, atol=1e-4 * np.abs(expected).max())
    assert np.min(feature) < 0


@pytest.mark.parametrize("name", ["MobileNetV2", "EfficientNetB0"])
def test_saved_file_and_copy_are_the_network(name, tmp_path):
    _, network = _pair(name)
    network.save(tmp_path / "network.keras")
    again = models.load(tmp_path / "network.keras")
    assert again.spec == network.spec
    for other in (again, network.copy(), network.folded()):
        np.testing.assert_array_equal(
            other(_images(), training=False)["logits"],
            network(_images(), training=False)["logits"],
        )


def test_file_of_a_keras_model_is_a_network(tmp_path):
    model, network = _pair("MobileNetV2")
    model.save(tmp_path / "mine.keras")
    loaded = models.load(tmp_path / "mine.keras")
    assert same(loaded.get_weights(), network.get_weights())
    scaled = models.load(tmp_path / "mine.keras", scale=1 / 127.5, offset=-1.0)
    np.testing.assert_allclose(
        tf.nn.softmax(scaled(_images(), training=False)["logits"]),
        model(_images() / 127.5 - 1, training=False),
        atol=1e-4,
    )
    network.save(tmp_path / "own.keras")
    with pytest.raises(UserError, match="has its groups and its scale inside"):
        models.load(tmp_path / "own.keras", scale=2.0)


@pytest.mark.parametrize("name", ["MobileNetV3Small", "ResNet50"])
def test_mixed_precision_computes_maps_in_bfloat16_and_logits_in_float32(name):
    _, network = _pair(name)
    outputs = network.copy("mixed_bfloat16")(_images(), training=False)
    assert outputs["logits"].dtype == tf.float32
    assert {f.dtype for maps in outputs["features"].values() for f in maps} == {tf.bfloat16}
    exact = network(_images(), training=False)["logits"]
    assert np.corrcoef(np.ravel(outputs["logits"]), np.ravel(exact))[0, 1] > 0.95


def test_model_itself_is_left_as_it_is():
    model, network = _pair("MobileNetV2")
    before = [np.copy(w) for w in model.get_weights()]
    assert model.layers[-1].activation is keras.activations.softmax
    network.trainable_variables[0].assign(network.trainable_variables[0] * 0)
    network(_images(), training=True)
    assert same(before, model.get_weights())
    _pair.cache_clear()


def test_replicas_keep_statistics_and_draws_of_their_own(two_replicas):
    """EfficientNet draws which features to drop, and normalizes each half of the batch alone."""
    network = _pair("EfficientNetB0")[1]
    with two_replicas.scope():
        copy = network.copy()

    @tf.function
    def train(images):
        return two_replicas.run(lambda x: copy(x, training=True)["logits"], args=(images,))

    halves = two_replicas.experimental_local_results(train(tf.constant(_images(count=4))))
    assert len(halves) == 2
    assert all(np.isfinite(half).all() for half in halves)
    assert not same(copy.get_weights(), network.get_weights())


def _small(*, end="softmax", activation=None):
    """Two sizes of plain convolutions, the second with a nested model: 8 and 4."""
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", name="first")(image)
    x = layers.BatchNormalization(name="first_norm")(x)
    x = layers.ReLU(name="first_relu")(x)
    x = layers.Conv2D(4, 3, padding="same", name="second", activation=activation)(x)
    x = layers.MaxPooling2D(name="pool")(x)
    inner = keras.Sequential(
        [
            keras.Input((4, 4, 4)),
            layers.Conv2D(6, 3, padding="same", name="third"),
            layers.ReLU(name="third_relu"),
        ],
        name="inner",
    )
    x = layers.GlobalAveragePooling2D(name="mean")(inner(x))
    return keras.Model(image, layers.Dense(5, activation=end, name="scores")(x), name="small")


@pytest.mark.parametrize("end", ["softmax", None])
def test_models_within_are_opened_and_features_precede_the_activation(end):
    model = _small(end=end)
    network = models.from_keras(model)
    outputs = network(_images(8), training=False)
    expected = model(_images(8), training=False)
    told = tf.nn.softmax(outputs["logits"]) if end else outputs["logits"]
    np.testing.assert_allclose(told, expected, atol=1e-5)
    shapes = {group: [tuple(f.shape[1:]) for f in fs] for group, fs in outputs["features"].items()}
    assert shapes == {"group1": [(8, 8, 4)] * 2, "group2": [(4, 4, 6)]}
    normalized = keras.Model(model.input, model.get_layer("first_norm").output)
    np.testing.assert_allclose(
        outputs["features"]["group1"][0], normalized(_images(8)), atol=1e-4, rtol=1e-4
    )


def test_normalization_that_has_seen_data_is_taken_as_it_is(tmp_path):
    image = keras.Input((8, 8, 3))
    normalization = layers.Normalization(name="seen")
    normalization.adapt(_images(8, 20))
    x = layers.Conv2D(4, 3, name="first")(normalization(image))
    x = layers.Dense(3, name="scores")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(image, x, name="adapted")
    network = models.from_keras(model)
    network.save(tmp_path / "network.keras")
    for each in (
        network,
        network.copy(),
        network.folded(),
        models.load(tmp_path / "network.keras"),
    ):
        np.testing.assert_allclose(
            each(_images(8), training=False)["logits"], model(_images(8)), atol=1e-5
        )


ENDS = {
    "layer": lambda x: layers.Softmax(name="odds")(layers.Dense(5)(x)),
    "operation": lambda x: keras.ops.softmax(layers.Dense(5)(x)),
    "before a reshape": lambda x: layers.Reshape((5,))(layers.Dense(5, activation="softmax")(x)),
    "activation": lambda x: layers.Activation("softmax")(layers.Dense(5)(x)),
}


@pytest.mark.parametrize("end", ENDS)
def test_softmax_is_taken_off_however_it_is_written(end):
    image = keras.Input((8, 8, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(image))
    model = keras.Model(image, ENDS[end](x), name="ending")
    logits = models.from_keras(model)(_images(8), training=False)["logits"]
    assert np.min(logits) < 0
    np.testing.assert_allclose(tf.nn.softmax(logits), model(_images(8)), atol=1e-5)


def _with_a_sigmoid():
    image = keras.Input((8, 8, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(image))
    return keras.Model(image, layers.Dense(2, activation="sigmoid", name="each")(x))


def _with_a_model_twice():
    inner = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.Conv2D(3, 3, padding="same")], name="in"
    )
    image = keras.Input((8, 8, 3))
    x = layers.GlobalAveragePooling2D()(inner(inner(image)))
    return keras.Model(image, layers.Dense(2)(x), name="twice")


def _with_a_name_of_ours():
    image = keras.Input((8, 8, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(3, 3, name="raw_pixels")(image))
    return keras.Model(image, layers.Dense(2)(x), name="named")


def test_groups_may_be_named():
    network = models.from_keras(_small(), groups=[["second"], ["third"]])
    assert [len(network.group(name).features) for name in network.group_names] == [1, 1]
    assert network.copy().group("group1").feature_shape == (8, 8, 4)


def _with_a_bypass():
    """A convolution that the image goes around."""
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(3, 3, padding="same", name="inside")(image)
    means = [
        layers.GlobalAveragePooling2D(name=f"mean{k}")(each) for k, each in enumerate((x, image))
    ]
    return keras.Model(image, layers.Dense(2)(layers.Concatenate()(means)), name="bypassed")


class _Own(keras.Model):
    def call(self, inputs):
        return inputs


@pytest.mark.parametrize(
    ("make", "groups", "told"),
    [
        (lambda: _Own(name="own"), None, "'own' is no built functional"),
        (lambda: keras.Sequential([layers.Dense(2)], name="bare"), None, "'bare' is no built"),
        (_with_a_sigmoid, None, "each ends in a sigmoid"),
        (_with_a_name_of_ours, None, "named has a layer called raw_pixels"),
        (_with_a_bypass, None, "bypassed cannot be split into groups: other maps pass by inside"),
        (_with_a_bypass, [["inside"]], "inside of bypassed cannot end a group"),
        (_small, [["fourth"]], "small has no layer fourth"),
        (_small, [["first", "third"]], r"first of small gives \(8, 8, 4\), third \(4, 4, 6\)"),
        (
            lambda: keras.Sequential(
                [keras.Input((None, None, 3)), layers.Conv2D(2, 3), layers.GlobalMaxPooling2D()]
            ),
            None,
            r"takes \(None, None, 3\): build it with a fixed input_shape",
        ),
        (
            lambda: keras.applications.MobileNetV2(
                weights=None, input_shape=(32, 32, 3), include_top=False
            ),
            None,
            r"ends in \(1, 1, 1280\), not in classes: its last layer is out_relu",
        ),
        (
            lambda: keras.Sequential([keras.Input((4, 4, 1)), layers.Flatten(), layers.Dense(2)]),
            None,
            "cannot be split into groups: it has no convolution",
        ),
    ],
)
def test_what_cannot_be_split_is_told_by_layer(make, groups, told):
    with pytest.raises(UserError, match=told):
        models.from_keras(make(), groups)
