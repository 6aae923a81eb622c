"""Facts that hold for every network, and the published numbers of parameters."""

import functools
import inspect
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from dfa_tf import models
from dfa_tf.errors import UserError
from tests.conftest import made_examples
from tests.models.networks import SMALL, small

SIZES = {  # of the maps of each group, for 32x32 images
    "WRN_10_1": [32, 16, 8],
    "ResNet_8": [32, 16, 8],
    "ResNet_8x4": [32, 16, 8],
    "ResNet_18_cifar": [32, 16, 8, 4],
    "ResNet_50_imagenet": [8, 4, 2, 1],
    "VGG_8": [32, 16, 8, 4],
    "MobileNetV2_x0_5": [16, 8, 4, 2],
    "ShuffleNetV2_x0_5": [32, 16, 8, 4, 4],
}
EXAMPLES = made_examples(8, seed=5, shape=(32, 32, 3), classes=10)
every_network = pytest.mark.parametrize("name", SMALL)
LARGE = ("ResNet_18_cifar", "ResNet_50_imagenet", "ShuffleNetV2_x0_5", "MobileNetV2_x0_5")
every_network_large_ones_slow = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in LARGE else n for n in SMALL]
)


@functools.cache
def _outputs(name):
    return small(name)(EXAMPLES.images, training=False)


def _maps(outputs):
    return {"logits": outputs["logits"]} | {
        f"{group}_{j}": feature
        for group, features in outputs["features"].items()
        for j, feature in enumerate(features)
    }


def _assert_close(outputs, expected, tolerance):
    for name, value in _maps(expected).items():
        scale = np.abs(value).max()
        np.testing.assert_allclose(
            tf.cast(_maps(outputs)[name], tf.float32), value, atol=tolerance * scale, err_msg=name
        )


def test_every_builder_is_tested():
    assert {build.__name__ for build, _ in SMALL.values()} == set(models.NETWORKS)
    assert {build.__name__ for build, *_ in PUBLISHED} == set(models.NETWORKS)
    assert all(build(num_classes=10, **a).name == name for name, (build, a) in SMALL.items())


# Trainable parameters. Sources: DFA, Tables 1 and 4; Tian et al. (ICLR 2020), in millions .28 .47 .86
# 1.7 1.2 7.4, .81, 3.9 9.5; torchvision's ResNets, exactly.
PUBLISHED = [
    (models.wide_resnet, {"depth": 16, "width": 2}, 100, 703_284),
    (models.shufflenet_v2, {"width": 2.0}, 10, 5_366_566),
    (models.shufflenet_v2, {"width": 1.0}, 10, 1_268_646),
    (models.shufflenet_v2, {"width": 0.5}, 10, 356_018),
    (models.cifar_resnet, {"depth": 20}, 100, 278_324),
    (models.cifar_resnet, {"depth": 32}, 100, 472_756),
    (models.cifar_resnet, {"depth": 56}, 100, 861_620),
    (models.cifar_resnet, {"depth": 110}, 100, 1_736_564),
    (models.cifar_resnet, {"depth": 8, "width": 4}, 100, 1_233_540),
    (models.cifar_resnet, {"depth": 32, "width": 4}, 100, 7_433_860),
    (models.vgg, {"depth": 8}, 100, 3_965_028),
    (models.vgg, {"depth": 13}, 100, 9_462_180),
    (models.mobilenet_v2, {}, 100, 812_836),
    (models.resnet, {"depth": 18, "stem": "imagenet"}, 1000, 11_689_512),
    (models.resnet, {"depth": 34, "stem": "imagenet"}, 1000, 21_797_672),
    (models.resnet, {"depth": 50, "stem": "imagenet"}, 1000, 25_557_032),
    # A 3x3 stem has 64 * 3 * (49 - 9) parameters less, 900 classes 900 * (512 + 1) less.
    (models.resnet, {"depth": 18}, 100, 11_689_512 - 7_680 - 900 * 513),
]


@pytest.mark.parametrize(("build", "arguments", "classes", "count"), PUBLISHED)
def test_parameter_counts_are_the_published_ones(build, arguments, classes, count):
    network = build(num_classes=classes, **arguments)
    assert sum(math.prod(v.shape) for v in network.trainable_variables) == count


@every_network
def test_features_of_a_group_have_one_shape_and_the_expected_size(name):
    outputs = _outputs(name)
    assert outputs["logits"].shape == (8, 10)
    for group, features in outputs["features"].items():
        expected = (8, *small(name).group(group).feature_shape)
        assert {tuple(feature.shape) for feature in features} == {expected}
    shapes = [small(name).group(g).feature_shape for g in small(name).group_names]
    assert [height for height, _, _ in shapes] == SIZES[name]
    assert all(height == width for height, width, _ in shapes)


@pytest.mark.parametrize(
    ("network", "counts"),
    [
        (models.shufflenet_v2(0.5, 10), [1, 4, 8, 4, 1]),  # DFA, Table 3
        (models.vgg(13, 10), [2, 2, 2, 4]),
        (models.resnet(34, 10), [3, 4, 6, 3]),
        (models.cifar_resnet(20, 10), [3, 3, 3]),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_each_block_has_one_feature(network, counts):
    assert [len(network.group(name).features) for name in network.group_names] == counts


@every_network
@pytest.mark.parametrize("tail_input", ["feature", "stream"])
def test_tail_from_the_networks_own_map_equals_the_forward_pass(name, tail_input):
    network, outputs = small(name), _outputs(name)
    for group in network.group_names:
        own = outputs["features"][group][-1]
        if tail_input == "stream":
            own = keras.Model(network.input, network.group(group).stream)(EXAMPLES.images)
        logits = network.tail(group, own, tail_input=tail_input)
        scale = np.abs(outputs["logits"]).max()
        np.testing.assert_allclose(logits, outputs["logits"], atol=1e-5 * scale, err_msg=group)


@every_network
def test_saved_file_rebuilds_the_network(name, tmp_path):
    small(name).save(tmp_path / "model.keras")
    again = models.load(tmp_path / "model.keras")
    assert again.spec == small(name).spec
    _assert_close(again(EXAMPLES.images, training=False), _outputs(name), 1e-6)


@every_network
def test_folded_network_equals_the_network_at_inference(name):
    folded = small(name).folded()
    assert not any(isinstance(layer, models.BatchNormalization) for layer in folded.layers)
    _assert_close(folded(EXAMPLES.images, training=False), _outputs(name), 1e-4)


@every_network
def test_mixed_precision_outputs_are_close_to_float32(name):
    network = small(name).copy("mixed_bfloat16")
    outputs = network(EXAMPLES.images, training=False)
    assert {v.dtype for v in network.variables} == {"float32"}
    assert outputs["logits"].dtype == tf.float32
    assert {f.dtype for features in outputs["features"].values() for f in features} == {tf.bfloat16}
    _assert_close(outputs, _outputs(name), 0.15)  # up to 50 layers


@every_network_large_ones_slow
def test_two_replicas_equal_one_device(name, two_replicas):
    """In training, where each replica normalizes its half of the batch, and when folded."""
    with two_replicas.scope():
        copy, folded = small(name).copy(), small(name).folded()
    halves = tf.split(tf.cast(EXAMPLES.images, tf.float32), 2)

    @tf.function
    def run(images):
        def replica(images):
            part = images[tf.distribute.get_replica_context().replica_id_in_sync_group]
            return copy(part, training=True)["logits"], folded(part, training=False)["logits"]

        return two_replicas.run(replica, args=(images,))

    trained, at_inference = map(two_replicas.experimental_local_results, run(tf.stack(halves)))
    reference = small(name).copy()
    for half, part in enumerate(halves):
        expected = reference(part, training=True)["logits"]
        scale = np.abs(expected).max()
        np.testing.assert_allclose(trained[half], expected, atol=1e-3 * scale)
        own = _outputs(name)["logits"][4 * half : 4 * half + 4]
        np.testing.assert_allclose(at_inference[half], own, atol=1e-4 * np.abs(own).max())


@every_network_large_ones_slow
def test_tf_lite_file_equals_the_network(name, tmp_path):
    """`export` raises an error if the largest error exceeds 1e-4 of the largest logit."""
    from dfa_tf.stages.export import ExportOptions, export

    network = small(name)
    options = ExportOptions(kinds=("float32",))
    report = export(network=network, test=EXAMPLES, workdir=tmp_path, options=options)
    (file,) = report["files"]
    assert file["agreement"] == 1.0
    assert not any(op.startswith(("Flex", "CUSTOM")) for op in file["ops"])


def test_channel_shuffle_interleaves_two_halves():
    """0 1 2 | 3 4 5 become 0 3 1 4 2 5 at every pixel."""
    maps = np.arange(6, dtype=np.float32) + 10 * np.arange(4).reshape(1, 2, 2, 1)
    shuffled = models.layers.ChannelShuffle()(maps)
    np.testing.assert_array_equal(shuffled[0, 0, 0], [0, 3, 1, 4, 2, 5])
    np.testing.assert_array_equal(shuffled[0, 1, 1], [30, 33, 31, 34, 32, 35])


def test_depthwise_kernels_have_he_initialization_per_channel():
    kernel = models.mobilenet_v2(10, width=2).get_layer("group4_unit2_depthwise").kernel.numpy()
    assert kernel.shape == (3, 3, 1920, 1)
    assert kernel.std() == pytest.approx(math.sqrt(2 / 9), rel=0.02)


def test_mobilenet_features_are_the_blocks_of_a_groups_last_width():
    """24 after 16, 32, 96 after 64, 320 after 160."""
    network = models.mobilenet_v2(10, width=1)
    shapes = [network.group(name).feature_shape for name in network.group_names]
    assert shapes == [(16, 16, 24), (8, 8, 32), (4, 4, 96), (2, 2, 320)]
    assert [len(network.group(name).features) for name in network.group_names] == [2, 3, 3, 1]


def test_bottleneck_has_its_stride_in_the_3x3_convolution():
    network = models.resnet(50, 10)
    assert network.get_layer("group2_block1_conv1").strides == (1, 1)
    assert network.get_layer("group2_block1_conv2").strides == (2, 2)
    assert network.get_layer("group2_block1_shortcut").strides == (2, 2)


@pytest.mark.parametrize(
    ("build", "arguments", "setting"),
    [
        (models.cifar_resnet, {"depth": 18}, r"cifar_resnet\.depth"),
        (models.cifar_resnet, {"depth": 20, "width": 2}, r"cifar_resnet\.width"),
        (models.cifar_resnet, {"depth": 20, "width": 4.0}, r"cifar_resnet\.width"),
        (models.resnet, {"depth": 20}, r"resnet\.depth"),
        (models.resnet, {"depth": [18]}, r"resnet\.depth"),
        (models.resnet, {"depth": 18, "stem": "big"}, r"resnet\.stem"),
        (models.vgg, {"depth": 16}, r"vgg\.depth"),
        (models.vgg, {"depth": [8]}, r"vgg\.depth"),
        (models.shufflenet_v2, {"width": [1]}, r"shufflenet_v2\.width"),
        (models.shufflenet_v2, {"width": 1.5}, r"shufflenet_v2\.width"),
        (models.mobilenet_v2, {"width": 0}, r"mobilenet_v2\.width"),
        (models.mobilenet_v2, {"stem_stride": 4}, r"mobilenet_v2\.stem_stride"),
        (models.mobilenet_v2, {"precision": "float16"}, r"mobilenet_v2\.precision"),
        (models.wide_resnet, {"depth": "16", "width": 1}, r"wide_resnet\.depth"),
        (models.wide_resnet, {"depth": 16, "width": 0}, r"wide_resnet\.width"),
        (models.wide_resnet, {"depth": 16, "width": 1.0}, r"wide_resnet\.width"),
        (models.wide_resnet, {"depth": 16, "width": 1, "features": "x"}, r"wide_resnet\.features"),
    ],
)
def test_invalid_setting_is_named(build, arguments, setting):
    with pytest.raises(UserError, match=setting):
        build(num_classes=10, **arguments)


def test_integers_of_numpy_are_valid_settings():
    network = models.wide_resnet(np.int64(10), np.int32(1), 10)
    assert network.spec == models.wide_resnet(10, 1, 10).spec


@every_network
def test_spec_holds_all_arguments_but_precision_and_folded(name):
    build, arguments = SMALL[name]
    spec = build(num_classes=10, seed=3, precision="mixed_bfloat16", **arguments).spec
    names = {*inspect.signature(build).parameters} - {"precision", "folded"}
    assert spec["builder"] == f"dfa_tf>{build.__name__}"
    assert set(spec["arguments"]) == names
    given = {"num_classes": 10, "seed": 3, "image_shape": [32, 32, 3], **arguments}
    assert {key: spec["arguments"][key] for key in given} == given


@every_network
def test_normalization_of_a_group_outputs_its_last_feature(name):
    network = small(name)
    for group in map(network.group, network.group_names):
        outputs = [
            layer
            for layer in network.layers
            if isinstance(layer, models.BatchNormalization) and layer.output is group.features[-1]
        ]
        assert group.normalization is (outputs[0] if outputs else None)
    has_normalization = [network.group(g).normalization is not None for g in network.group_names]
    assert all(has_normalization) == (name in ("WRN_10_1", "VGG_8"))


def test_families_with_maps_of_equal_sizes_can_be_paired():
    from dfa_tf.methods.connectors import check_same_groups, group_connectors

    for pair in (("WRN_10_1", "ResNet_8x4"), ("ResNet_18_cifar", "VGG_8")):
        teacher, student = map(small, pair)
        assert SIZES[pair[0]] == SIZES[pair[1]]
        assert check_same_groups(teacher, student) is None
        connectors = group_connectors(teacher, student, seed=0, precision="float32")
        for name, connector in zip(teacher.group_names, connectors, strict=True):
            feature = _outputs(pair[1])["features"][name][-1]
            target = _outputs(pair[0])["features"][name][-1]
            assert connector(feature).shape == target.shape


@pytest.mark.parametrize("pair", [("ResNet_8", "VGG_8"), ("VGG_8", "MobileNetV2_x0_5")])
def test_error_lists_the_sizes_of_maps_that_differ(pair):
    from dfa_tf.methods.connectors import check_same_groups

    with pytest.raises(UserError) as error:
        check_same_groups(*map(small, pair))
    for name in pair:
        assert ", ".join(map(str, SIZES[name])) in str(error.value)
