"""Fake quantization: its levels, its gradients, and that a fine-tuned export is told and checked."""

import numpy as np
import pytest
import tensorflow as tf

from dfa_tf import models
from dfa_tf.deployment.quantization_aware import (
    RoundedMap,
    quantized_objective,
    rounded_kernel,
    with_rounded_maps,
)
from dfa_tf.stages import export as exporting
from tests.conftest import made_examples, same, small_network


@pytest.mark.parametrize(
    ("kind", "shape", "axis"),
    [("Conv2D", (3, 3, 4, 6), 3), ("Dense", (20, 5), 1), ("DepthwiseConv2D", (3, 3, 7, 1), 2)],
)
def test_kernel_is_rounded_to_255_levels_of_each_channel(kind, shape, axis):
    """round(w / s) s with s = max |w| / 127 over the channel."""
    kernel = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    others = tuple(k for k in range(len(shape)) if k != axis)
    step = np.abs(kernel).max(others, keepdims=True) / 127
    found = rounded_kernel(tf.constant(kernel), kind)
    np.testing.assert_allclose(found, np.round(kernel / step) * step, atol=1e-5)


def test_map_is_rounded_to_256_levels_that_include_0():
    x = np.random.default_rng(1).uniform(-1, 3, (4, 5)).astype(np.float32)
    found = RoundedMap()(x).numpy()
    step = (x.max() - x.min()) / 255
    assert np.abs(found - x).max() <= 0.51 * step
    np.testing.assert_allclose(found / step, np.round(found / step), atol=1e-3)
    assert RoundedMap()(np.abs(x)).numpy().min() >= 0


def test_gradients_pass_the_rounding_as_they_are():
    x = tf.constant([[-1.0, -0.3, 0.2, 0.9, 1.0]])  # the ends may be cut off, the rest may not
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_sum(RoundedMap()(x) * [[1.0, 2.0, 3.0, 4.0, 5.0]])
    np.testing.assert_allclose(tape.gradient(y, x)[0, 1:4], [2, 3, 4])


@pytest.mark.parametrize("build", [small_network, lambda: models.shufflenet_v2(0.5, 4)])
def test_rounded_network_answers_nearly_as_the_network(build):
    network = build()
    images = made_examples(8, shape=network.image_shape).images.astype(np.float32)
    exact = network(images, training=False)["logits"].numpy()
    rounded = with_rounded_maps(network)(images, training=False).numpy()
    assert not np.array_equal(rounded, exact)
    assert np.abs(rounded - exact).max() < 0.2 * np.abs(exact).max() + 1e-3


def test_rounding_leaves_weights_and_statistics_alone_and_gives_every_kernel_a_gradient():
    network, teacher = small_network(seed=1), small_network(seed=2)
    made = made_examples(8)
    before = network.get_weights()
    objective = quantized_objective(network, teacher.folded())
    with tf.GradientTape() as tape:
        loss, logits, _ = objective(tf.constant(made.images), tf.constant(made.labels))
    assert (loss.shape, logits.shape) == ((8,), (8, 4))
    assert same(before, network.get_weights())
    kernels = [v.value for v in network.trainable_variables if v.path.endswith("kernel")]
    assert all(np.abs(g).max() > 0 for g in tape.gradient(loss, kernels))


def _export(workdir, **more):
    network, teacher = small_network(depth=10, seed=3), small_network(seed=2)
    return exporting.export(
        network=network,
        teacher=teacher,
        test=made_examples(40, seed=9),
        train=made_examples(80, seed=3),
        workdir=workdir,
        ladder=("float32", "int8"),
        max_loss=1.0,
        batch_size=8,
        **more,
    )


def test_int8_that_loses_too_much_is_fine_tuned_and_nothing_else(tmp_path, capsys, monkeypatch):
    """Said to lose in any case; what is fine-tuned is taken where it does better."""
    compared = exporting._Export._compared
    seen = []

    def worse_at_first(self, path):
        result = compared(self, path)
        seen.append(path.name)
        if path.name == "student_int8.tflite":
            result["accuracy"] = -1.0
        return result

    monkeypatch.setattr(exporting._Export, "_compared", worse_at_first)
    report = _export(tmp_path)
    exact, integer = report["files"]
    assert "student_int8.tflite loses" in capsys.readouterr().err
    assert "again.tflite" in seen
    assert integer["fine_tuned"]
    assert "fine_tuned" not in exact
    assert exact["agreement"] == 1.0  # of the student as it was
    assert not (tmp_path / "export" / "fine_tuning").exists()


def test_fine_tuning_of_another_student_is_not_gone_on_with(tmp_path, monkeypatch):
    """One that a kill cut short, in the folder of the next."""
    seen = []

    def fit(*, within, network, **_):
        seen.append(within)
        return network, {}

    monkeypatch.setattr(exporting, "fit", fit)
    for seed in (3, 4):
        exporting.export(
            network=small_network(depth=10, seed=seed),
            teacher=small_network(seed=2),
            test=made_examples(40, seed=9),
            train=made_examples(80, seed=3),
            workdir=tmp_path,
            ladder=("int8",),
            max_loss=1.0,
            fine_tune_above=-1.0,
        )
    assert len(set(seen)) == 2


def test_int8_that_loses_little_is_not_fine_tuned(tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "fit", None)  # would fail if it were called
    report = _export(tmp_path, fine_tune_above=1.0)
    assert "fine_tuned" not in report["files"][1]
