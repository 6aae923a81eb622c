"""Which maps are the features of a group, for the families of keras.applications.

The numbers of blocks are those of the papers. MobileNet: Howard et al. (2017), Table 1. MobileNetV2:
Sandler et al. (2018), Table 2. MobileNetV3: Howard et al. (2019), Table 2. DenseNet: Huang et al. (2017), Table 1. ResNetV2: He et al. (2016).
"""

import keras
import numpy as np
import pytest

from dfa_tf.models import keras_application, load
from dfa_tf.models.keras_groups import PadChannels


def _network(name, size=64):
    return keras_application(
        name=name, weights=None, num_classes=3, image_shape=(size, size, 3), seed=1
    )


def _features(network):
    groups = map(network.group, network.group_names)
    return [(group.feature_shape[-1], len(group.features)) for group in groups]


@pytest.mark.parametrize(
    ("name", "expected"),  # (channels, features) of each group
    [
        ("MobileNet", [(64, 1), (128, 2), (256, 2), (512, 6), (1024, 2)]),
        ("MobileNetV2", [(16, 1), (24, 2), (32, 3), (96, 3), (160, 3)]),
        ("MobileNetV3Small", [(16, 1), (16, 1), (24, 2), (48, 2), (96, 3)]),
        pytest.param(
            "DenseNet121",
            [(64, 1), (256, 6), (512, 12), (1024, 24), (1024, 16)],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "ResNet50V2",
            [(64, 1), (256, 2), (512, 3), (1024, 5), (2048, 3)],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_features_are_the_ends_of_blocks(name, expected):
    assert _features(_network(name)) == expected


def _dense_block(growth, layers):
    """A model with one dense block of `layers` layers on 4 channels, and a transition."""
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, padding="same")(inputs)
    x = keras.layers.MaxPooling2D()(x)
    for _ in range(layers):
        y = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
        x = keras.layers.Concatenate()([x, keras.layers.Conv2D(growth, 3, padding="same")(y)])
    y = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    y = keras.layers.GlobalAveragePooling2D()(y)
    return keras.Model(inputs, keras.layers.Dense(2)(y))


def test_maps_of_a_dense_block_are_the_first_channels_of_its_last_map(tmp_path):
    _dense_block(growth=3, layers=4).save(tmp_path / "dense.keras")
    network = load(tmp_path / "dense.keras")
    assert _features(network) == [(4, 1), (16, 4)]
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype(np.float32)
    features = network(images)["features"]["group2"]
    for feature, channels in zip(features, (7, 10, 13, 16), strict=True):
        np.testing.assert_array_equal(feature[..., :channels], features[-1][..., :channels])
        assert not np.any(feature[..., channels:])
    logits = network(images)["logits"]
    np.testing.assert_allclose(network.tail("group2", features[-1]), logits, rtol=1e-5)
    network.save(tmp_path / "network.keras")
    np.testing.assert_array_equal(load(tmp_path / "network.keras")(images)["logits"], logits)


def test_padding_appends_channels_of_zeros():
    x = np.ones((1, 2, 2, 1), np.float32)
    padded = PadChannels(2)(x)
    np.testing.assert_array_equal(padded, np.broadcast_to([1.0, 0.0, 0.0], (1, 2, 2, 3)))


@pytest.mark.slow
def test_teacher_and_student_for_photos_have_matching_groups():
    """A search needs as many groups of the same sizes, and several features to choose from."""
    teacher, student = (_network(name, 96) for name in ("EfficientNetV2B0", "MobileNetV3Small"))
    sizes = [
        [network.group(name).feature_shape[:2] for name in network.group_names]
        for network in (teacher, student)
    ]
    assert sizes[0] == sizes[1]
    assert sum(len(teacher.group(name).features) > 1 for name in teacher.group_names) >= 3
