"""Keras models as networks: groups, weights, and the models that cannot be split."""

import functools
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from dfa_tf import models
from dfa_tf.errors import UserError
from dfa_tf.models.files import load, save
from dfa_tf.models.keras_graph import consumers
from dfa_tf.models.normalization import BatchNormalization
from tests.conftest import same

APPLICATIONS = {
    "MobileNetV2": keras.applications.MobileNetV2,
    "MobileNetV3Small": keras.applications.MobileNetV3Small,
    "EfficientNetB0": keras.applications.EfficientNetB0,
    "ResNet50": keras.applications.ResNet50,
}
SIZES = [32, *(pytest.param(size, marks=pytest.mark.slow) for size in (96, 224))]
SLOW = ("EfficientNetB0", "ResNet50")
every_application = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in APPLICATIONS]
)


@functools.cache
def _pair(name, size=32):
    """Returns a model of keras.applications with distinct class probabilities, and its network."""
    keras.utils.set_random_seed(0)
    model = APPLICATIONS[name](weights=None, input_shape=(size, size, 3), classes=7)
    last = [layer for layer in model.layers if hasattr(layer, "kernel")][-1]
    head_input = keras.Model(model.input, last.input)(_images(size)).numpy()
    kernel = last.kernel.numpy()
    scores = head_input.reshape(-1, kernel.shape[-2]) @ kernel.reshape(-1, 7)
    last.kernel.assign(kernel * 3 / np.abs(scores).max())
    return model, models.from_keras(model)


def _images(size=32, count=3):
    return np.random.default_rng(1).integers(0, 256, (count, size, size, 3)).astype(np.float32)


@every_application
@pytest.mark.parametrize("size", SIZES)
def test_logits_are_the_input_of_the_models_softmax(name, size):
    model, network = _pair(name, size)
    outputs = network(_images(size), training=False)
    expected = model(_images(size), training=False)
    assert expected.shape == (3, 7)
    np.testing.assert_allclose(tf.nn.softmax(outputs["logits"]), expected, atol=1e-5)
    assert outputs["logits"].dtype == tf.float32


@every_application
@pytest.mark.parametrize("size", SIZES)
def test_groups_have_five_sizes_and_a_tail_each(name, size):
    _, network = _pair(name, size)
    shapes = [network.group(group).feature_shape for group in network.group_names]
    assert [shape[0] for shape in shapes] == [size // k for k in (2, 4, 8, 16, 32)]
    outputs = network(_images(size), training=False)
    scale = np.abs(outputs["logits"]).max()
    for group, features in outputs["features"].items():
        assert len({tuple(feature.shape) for feature in features}) == 1
        logits = network.tail(group, features[-1])
        np.testing.assert_allclose(logits, outputs["logits"], atol=1e-5 * scale, err_msg=group)


def test_features_of_a_resnet_are_its_sums_before_the_relu():
    """ResNet50 has groups of 3, 4, 6 and 3 blocks."""
    model, network = _pair("ResNet50")
    counts = [len(network.group(name).features) for name in network.group_names]
    assert counts == [1, 3, 4, 6, 3]
    sums = keras.Model(model.input, model.get_layer("conv3_block2_add").output)
    feature = network(_images(), training=False)["features"]["group3"][1]
    expected = sums(_images())
    np.testing.assert_allclose(feature, expected, atol=1e-4 * np.abs(expected).max())
    assert np.min(feature) < 0


@pytest.mark.parametrize(
    "name", ["MobileNetV2", pytest.param("EfficientNetB0", marks=pytest.mark.slow)]
)
def test_saved_file_copy_and_folded_form_equal_the_network(name, tmp_path):
    _, network = _pair(name)
    network.save(tmp_path / "network.keras")
    again = models.load(tmp_path / "network.keras")
    assert again.spec == network.spec
    for other in (again, network.copy(), network.folded()):
        np.testing.assert_array_equal(
            other(_images(), training=False)["logits"],
            network(_images(), training=False)["logits"],
        )


@pytest.mark.slow
def test_file_of_a_keras_model_loads_as_a_network(tmp_path):
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
    with pytest.raises(UserError, match=r"own\.keras.*keras_file\.scale"):
        models.load(tmp_path / "own.keras", scale=2.0)


@pytest.mark.parametrize("name", ["MobileNetV3Small", "ResNet50"])
def test_mixed_precision_computes_maps_in_bfloat16_and_logits_in_float32(name):
    _, network = _pair(name)
    outputs = network.copy("mixed_bfloat16")(_images(), training=False)
    assert outputs["logits"].dtype == tf.float32
    assert {f.dtype for maps in outputs["features"].values() for f in maps} == {tf.bfloat16}
    exact = network(_images(), training=False)["logits"]
    assert np.corrcoef(np.ravel(outputs["logits"]), np.ravel(exact))[0, 1] > 0.95


def test_model_itself_does_not_change():
    model, network = _pair("MobileNetV2")
    before = [np.copy(w) for w in model.get_weights()]
    assert model.layers[-1].activation is keras.activations.softmax
    network.trainable_variables[0].assign(network.trainable_variables[0] * 0)
    network(_images(), training=True)
    assert same(before, model.get_weights())
    _pair.cache_clear()


@pytest.mark.slow
def test_replicas_have_their_own_statistics_and_random_numbers(two_replicas):
    """EfficientNet drops features at random. Each replica normalizes its half of the batch."""
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
    """Convolutions at two sizes, 8 and 4, the second in an inner model."""
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
def test_inner_models_are_opened_and_features_precede_the_activation(end):
    model = _small(end=end)
    network = models.from_keras(model)
    outputs = network(_images(8), training=False)
    expected = model(_images(8), training=False)
    result = tf.nn.softmax(outputs["logits"]) if end else outputs["logits"]
    np.testing.assert_allclose(result, expected, atol=1e-5)
    shapes = {group: [tuple(f.shape[1:]) for f in fs] for group, fs in outputs["features"].items()}
    assert shapes == {"group1": [(8, 8, 4)] * 2, "group2": [(4, 4, 6)]}
    normalized = keras.Model(model.input, model.get_layer("first_norm").output)
    np.testing.assert_allclose(
        outputs["features"]["group1"][0], normalized(_images(8)), atol=1e-4, rtol=1e-4
    )


def test_adapted_normalization_keeps_its_statistics(tmp_path):
    image = keras.Input((8, 8, 3))
    normalization = layers.Normalization(name="adapted")
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
def test_softmax_is_removed_in_every_form(end):
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


def _with_a_reserved_name():
    image = keras.Input((8, 8, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(3, 3, name="raw_pixels")(image))
    return keras.Model(image, layers.Dense(2)(x), name="named")


class Backbone(keras.Model):
    """A functional model whose config is the arguments of its class, as those of Keras Hub."""

    def __init__(self, channels, **kwargs):
        self.channels = channels
        image = keras.Input((16, 16, 3))
        x = layers.Conv2D(channels, 3, padding="same", name="first")(image)
        x = layers.BatchNormalization(name="norm")(x)
        x = layers.Conv2D(channels, 3, 2, padding="same", name="second")(layers.ReLU()(x))
        super().__init__(image, x, **kwargs)

    def get_config(self):
        return {"channels": self.channels, "name": self.name}


def test_functional_subclass_is_a_network_without_its_class(tmp_path):
    """Its layers are adapted as those of any model, and its files do not need its class."""
    backbone = Backbone(4)
    network = models.from_keras(backbone, num_classes=5)
    assert [len(network.group(name).features) for name in network.group_names] == [1, 1]
    assert isinstance(network.get_layer("norm"), BatchNormalization)
    kernel = network.get_layer("second").kernel.numpy()
    np.testing.assert_array_equal(kernel, backbone.get_layer("second").kernel.numpy())
    save(network, tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        assert b"Backbone" not in archive.read("config.json")
    outputs = [each(_images(16))["logits"] for each in (network, load(tmp_path / "model.keras"))]
    np.testing.assert_array_equal(*outputs)


def test_groups_can_be_named():
    network = models.from_keras(_small(), groups=[["second"], ["third"]])
    assert [len(network.group(name).features) for name in network.group_names] == [1, 1]
    assert network.copy().group("group1").feature_shape == (8, 8, 4)


def _with_a_bypass():
    """A convolution that the image bypasses."""
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(3, 3, padding="same", name="inside")(image)
    means = [
        layers.GlobalAveragePooling2D(name=f"mean{k}")(each) for k, each in enumerate((x, image))
    ]
    return keras.Model(image, layers.Dense(2)(layers.Concatenate()(means)), name="bypassed")


class _Subclassed(keras.Model):
    def call(self, inputs):
        return inputs


@pytest.mark.parametrize(
    ("build", "groups", "names"),
    [
        (lambda: _Subclassed(name="own"), None, ["own"]),
        (lambda: keras.Sequential([layers.Dense(2)], name="bare"), None, ["bare"]),
        (_with_a_sigmoid, None, ["each", "sigmoid"]),
        (_with_a_model_twice, None, ["twice"]),
        (_with_a_reserved_name, None, ["named", "raw_pixels"]),
        (_with_a_bypass, None, ["bypassed", "inside"]),
        (_with_a_bypass, [["inside"]], ["groups", "inside", "bypassed"]),
        (_small, [["fourth"]], ["groups", "small", "fourth"]),
        (_small, "first", ["groups"]),
        (_small, [[]], ["groups"]),
        (
            _small,
            [["first", "third"]],
            ["groups", "small", "first", "(8, 8, 4)", "third", "(4, 4, 6)"],
        ),
        (
            lambda: keras.Sequential(
                [keras.Input((None, None, 3)), layers.Conv2D(2, 3), layers.GlobalMaxPooling2D()]
            ),
            None,
            ["(None, None, 3)", "input_shape"],
        ),
        (
            lambda: keras.applications.MobileNetV2(
                weights=None, input_shape=(32, 32, 3), include_top=False
            ),
            None,
            ["mobilenetv2", "(None, 1, 1, 1280)", "out_relu"],
        ),
        (
            lambda: keras.Sequential([keras.Input((4, 4, 1)), layers.Flatten(), layers.Dense(2)]),
            None,
            ["sequential", "convolution"],
        ),
        (lambda: "mobilenet", None, ["model", "mobilenet"]),
    ],
)
def test_error_names_the_layer_or_model(build, groups, names):
    with pytest.raises(UserError) as error:
        models.from_keras(build(), groups)
    assert all(name in str(error.value) for name in names), error.value
    assert "\n" not in str(error.value)


def test_normalization_without_scale_is_no_normalization_of_a_group():
    """It has no gamma, from which margin could compute expected negative values."""
    image = keras.Input((8, 8, 3))
    x = layers.BatchNormalization(scale=False)(layers.Conv2D(4, 3)(image))
    x = layers.Dense(2)(layers.GlobalAveragePooling2D()(layers.ReLU()(x)))
    assert models.from_keras(keras.Model(image, x)).group("group1").normalization is None


def test_normalization_of_a_group_is_that_of_its_last_feature():
    network = models.from_keras(_small(), groups=[["first_norm"], ["third"]])
    normalizations = [network.group(name).normalization for name in network.group_names]
    assert normalizations == [network.get_layer("first_norm"), None]


def test_consumers_are_the_operations_that_read_an_output():
    image = keras.Input((8, 8, 3))
    convolution, relu, addition = layers.Conv2D(3, 1), layers.ReLU(), layers.Add()
    x = convolution(image)
    model = keras.Model(image, addition([x, relu(x)]))
    found = consumers(model)
    assert {id(reader) for reader in found[id(convolution)]} == {id(relu), id(addition)}
    assert found[id(relu)] == [addition]
    assert id(addition) not in found
