"""Metrics of predictions, against numbers worked out by hand."""

import numpy as np
import pytest

from dfa_tf.figures import confusion_matrix
from dfa_tf.training.tally import Tally

# (probabilities of three classes, label): confidences 0.83, 0.62, 0.62, 0.93, the second is wrong
PREDICTIONS = [
    ([0.83, 0.10, 0.07], 0),
    ([0.30, 0.62, 0.08], 0),
    ([0.28, 0.62, 0.10], 1),
    ([0.03, 0.04, 0.93], 2),
]


def _tally(predictions, classes=3, batch=4):
    tally = Tally(classes)
    for start in range(0, len(predictions), batch):
        probabilities, labels = zip(*predictions[start : start + batch], strict=True)
        tally.add(np.log(probabilities), np.array(labels))
    return tally


@pytest.mark.parametrize("batch", [1, 3, 4])
def test_confusion_and_metrics_of_four_predictions(batch):
    tally = _tally(PREDICTIONS, batch=batch)
    assert tally.confusion.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]
    assert tally.class_accuracy.tolist() == [0.5, 1, 1]
    # Bins: |1 - 0.83| for one image, |1 - 2 * 0.62| for two, |1 - 0.93| for one.
    assert tally.metrics() == pytest.approx(
        {
            "accuracy": 3 / 4,
            "loss": -(np.log(0.83) + np.log(0.30) + np.log(0.62) + np.log(0.93)) / 4,
            "macro_accuracy": 2.5 / 3,
            "calibration_error": (0.17 + 0.24 + 0.07) / 4,
        }
    )


def test_class_without_images_does_not_count():
    tally = _tally(PREDICTIONS[:3])
    assert np.isnan(tally.class_accuracy[2])
    assert tally.metrics()["macro_accuracy"] == pytest.approx(0.75)


def test_top_5_is_the_share_of_labels_among_the_five_largest():
    falling = np.arange(7, 0, -1) / 28
    tally = _tally([(falling, 4), (falling, 5), (falling, 0), (falling, 6)], classes=7)
    assert tally.metrics()["top_5_accuracy"] == 0.5


def test_certain_and_correct_predictions_are_calibrated():
    tally = Tally(2)
    tally.add(np.array([[900.0, -900.0], [-900.0, 900.0]]), np.array([0, 1]))
    ideal = {"accuracy": 1.0, "loss": 0.0, "macro_accuracy": 1.0, "calibration_error": 0.0}
    assert tally.metrics() == ideal


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.filterwarnings("error")
def test_loss_of_logits_that_are_not_finite_is_nan(value):
    tally = Tally(2)
    tally.add(np.array([[value, 0.0], [0.0, 1.0]]), np.array([0, 1]))
    assert np.isnan(tally.metrics()["loss"])


def test_counts_of_batches_of_any_sizes_add_up():
    """One of four is wrong; the last batch is smaller."""
    batches = [(np.array([0, 1, 1]), np.array([0, 1, 0])), (np.array([1]), np.array([1]))]
    tally = Tally.of(batches, lambda images: np.eye(2)[images], num_classes=2)
    assert tally.metrics()["accuracy"] == 0.75
    assert tally.confusion.tolist() == [[1, 1], [0, 2]]


@pytest.mark.parametrize(("classes", "numbers"), [(3, True), (100, False)])
def test_picture_has_numbers_if_there_is_room(classes, numbers):
    confusion = np.eye(classes, dtype=int) * 7
    axis = confusion_matrix(confusion, [f"class {k}" for k in range(classes)]).axes[0]
    texts = [text.get_text() for text in axis.texts]
    assert texts == (["7" if row == column else "0" for row, column in np.ndindex(3, 3)] * numbers)


def test_classes_of_a_picture_without_names_are_numbered():
    axis = confusion_matrix(np.eye(3, dtype=int)).axes[0]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["0", "1", "2"]
