"""The limits that an exported file must keep."""

import numpy as np
import pytest

from dfa_tf.deployment.saved_model import inference_model, write_saved_model
from dfa_tf.deployment.verify import Comparison, ExportError, Reference
from dfa_tf.errors import ReportedError, UserError
from tests.conftest import made_examples
from tests.deployment.networks import tiny_network

EXACT = {"max_abs_error": 0.0, "agreement": 1.0}


@pytest.fixture(scope="module")
def reference():
    return Reference(inference_model(tiny_network(), "float32"), made_examples(40))


def test_comparison_with_a_file_of_another_network(tmp_path):
    """The two disagree about some images."""
    networks, test = [tiny_network(seed) for seed in range(2)], made_examples(40)
    one, other = (n(test.images, training=False)["logits"].numpy() for n in networks)
    same_class = one.argmax(1) == other.argmax(1)
    assert not same_class.all()
    models = [inference_model(network, "float32") for network in networks]
    write_saved_model(models[1], tmp_path / "other")
    found = Reference(models[0], test).compare(tmp_path / "other")
    assert found.max_abs_error == pytest.approx(np.abs(one - other).max(), rel=1e-4)
    assert found.agreement == np.mean(same_class)
    assert found.accuracy == np.mean(other.argmax(1) == test.labels)


@pytest.mark.parametrize("kind", ["float32", "float16", "dynamic", "int8", "uint8"])
def test_exact_file_is_accepted(reference, kind):
    comparison = Comparison(reference.accuracy, **EXACT)
    reference.check("a.tflite", kind, comparison, max_loss=0.0)
    worse = Comparison(reference.accuracy - 1 / 40, **EXACT)  # one of the 40 images
    with pytest.raises(ExportError, match=r"a\.tflite"):
        reference.check("a.tflite", kind, worse, max_loss=0.0)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("float32", {"max_abs_error": 0.1}),
        ("float32", {"max_abs_error": float("nan")}),
        ("float32", {"agreement": 0.98}),
        ("float16", {"agreement": 0.98}),
        ("float16", {"loss": 0.02}),
        ("int8", {"loss": 0.02}),
        ("int8", {"loss": float("nan")}),
    ],
)
def test_file_beyond_a_limit_is_refused_by_name(reference, kind, change):
    results = {"loss": 0.0} | EXACT | change
    accuracy = reference.accuracy - results.pop("loss")
    with pytest.raises(ExportError, match=r"folder/a\.tflite"):
        reference.check("folder/a.tflite", kind, Comparison(accuracy, **results), max_loss=0.01)


def test_only_float_files_must_agree_with_the_network_image_by_image(reference):
    comparison = Comparison(reference.accuracy, max_abs_error=5.0, agreement=0.5)
    for kind in ("dynamic", "int8", "uint8"):
        reference.check("a.tflite", kind, comparison, max_loss=0.01)
    for kind in ("float32", "float16"):
        with pytest.raises(ExportError, match=r"a\.tflite"):
            reference.check("a.tflite", kind, comparison, max_loss=0.01)


def test_lost_accuracy_names_the_setting_that_allows_more(reference):
    comparison = Comparison(reference.accuracy - 0.5, **EXACT)
    with pytest.raises(ExportError, match=r"export\.max_loss"):
        reference.check("a.tflite", "int8", comparison, max_loss=0.01)


def test_export_error_is_reported_without_a_traceback_but_is_not_the_users():
    assert issubclass(ExportError, ReportedError)
    assert not issubclass(ExportError, UserError)
