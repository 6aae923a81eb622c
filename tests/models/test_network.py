"""Networks: files, copies, precisions, the folded form."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from dfa_tf import models
from dfa_tf.errors import UserError
from tests.conftest import ROOT, made_examples, same, small_network, values


@pytest.mark.slow
def test_keras_loads_the_file_after_import_of_the_package(tmp_path):
    small_network(depth=10).save(tmp_path / "model.keras")
    code = (
        "import dfa_tf, keras\n"
        f"network = keras.saving.load_model({str(tmp_path / 'model.keras')!r})\n"
        "print(network.group_names)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert "('group1', 'group2', 'group3')" in done.stdout


def test_error_names_a_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"gone\.keras"):
        models.load(tmp_path / "gone.keras")


def test_error_names_a_truncated_file(tmp_path):
    path = tmp_path / "model.keras"
    small_network(depth=10).save(path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(UserError, match=r"model\.keras"):
        models.load(path)


def test_error_names_the_file_of_a_model_without_groups(tmp_path):
    path = tmp_path / "other.keras"
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save(path)
    with pytest.raises(UserError, match=r"other\.keras"):
        models.load(path)


def test_copy_has_its_own_variables_with_equal_values():
    network = small_network()
    copy = network.copy()
    assert same(network.get_weights(), copy.get_weights())
    copy.trainable_variables[0].assign(copy.trainable_variables[0] * 0)
    assert not same(network.get_weights(), copy.get_weights())


def test_error_for_an_unknown_group_lists_the_groups():
    with pytest.raises(ValueError, match=r"group1, group2, group3.*group4"):
        small_network().features("group4", np.zeros((1, 8, 8, 3)))


def test_unknown_tail_input_is_named():
    with pytest.raises(UserError, match="tail_input"):
        small_network().tail("group1", np.zeros((1, 8, 8, 16)), tail_input="middle")


@pytest.mark.parametrize("change", ["copy", "folded"])
def test_unknown_precision_is_named(change):
    with pytest.raises(UserError, match="precision"):
        getattr(small_network(), change)("float16")


def test_raw_features_have_no_normalization():
    network = small_network(features="raw")
    assert [network.group(name).normalization for name in network.group_names] == [None] * 3


@pytest.mark.parametrize("features", ["normalized", "raw"])
def test_folded_network_equals_the_network_at_inference(features):
    network = small_network(depth=16, width=2, seed=3, features=features)
    folded = network.folded()
    images = made_examples(8).images
    expected, outputs = network(images, training=False), folded(images, training=False)
    np.testing.assert_allclose(outputs["logits"], expected["logits"], rtol=1e-4, atol=1e-4)
    for group, maps in expected["features"].items():
        for a, b in zip(maps, outputs["features"][group], strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-4)
    assert folded.trainable_variables == []
    assert not any(isinstance(layer, models.BatchNormalization) for layer in folded.layers)


@pytest.mark.parametrize("replicas", ["one_replica", "two_replicas"])
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_folded_network_is_the_same_under_a_strategy(replicas, precision, batch, request):
    """Variables of one shape are not confused with each other."""
    strategy = request.getfixturevalue(replicas)
    network = small_network(depth=16, width=2, seed=3)
    images, _ = batch
    with strategy.scope():
        folded = network.folded(precision)

    @tf.function
    def logits_of(images):
        return strategy.run(lambda x: folded(x, training=False)["logits"], args=(images,))

    exact = network(images, training=False)["logits"]
    tolerance = {"float32": 1e-4, "mixed_bfloat16": 0.05}[precision] * np.abs(exact).max()
    for logits in strategy.experimental_local_results(logits_of(images)):
        np.testing.assert_allclose(logits, exact, atol=tolerance)


def test_folded_kernels_are_stored_in_their_compute_dtype():
    folded = small_network(depth=10).folded("mixed_bfloat16")
    assert folded.get_layer("stem").kernel.dtype == "bfloat16"
    assert folded.get_layer("logits").kernel.dtype == "float32"
    assert folded.get_layer("norm").scale.dtype == "float32"


def test_features_of_a_folded_network_need_no_normalization_and_no_later_group():
    """The stem, four convolutions in each of two groups, and one shortcut."""
    folded = small_network(depth=16, width=1).folded()
    images = tf.TensorSpec([2, 8, 8, 3])
    graph = tf.function(lambda x: folded.features("group2", x)).get_concrete_function(images).graph
    kinds = [op.type for op in graph.get_operations()]
    assert kinds.count("Conv2D") == 1 + 4 + 5
    assert not any("BatchNorm" in kind for kind in kinds)


@pytest.mark.parametrize("features", ["normalized", "raw"])
def test_features_up_to_a_group_are_those_of_a_call_and_no_later_group_runs(features, batch):
    network = small_network(depth=16, width=1, features=features)
    images, _ = batch
    expected = network(images)["features"]
    found = network.features_up_to("group2", images)
    assert list(found) == ["group1", "group2"]
    for group, maps in found.items():
        assert same(values(maps), values(expected[group]))
    function = tf.function(lambda x: network.features_up_to("group2", x))
    kinds = [op.type for op in function.get_concrete_function(images).graph.get_operations()]
    assert kinds.count("Conv2D") == 1 + 4 + 5  # stem; four in each group, and one shortcut
