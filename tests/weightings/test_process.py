"""A schedule of weights: its values at each step, its threshold, and the paths it leaves out."""

import numpy as np
import pytest
import tensorflow as tf

from dfa_tf.errors import UserError
from dfa_tf.process import Process
from dfa_tf.weightings import ProcessWeighting
from dfa_tf.weightings.process import ScheduledWeights

PROCESS = Process(["a", "b"], [0, 1, 2], [[1.0, 0.2], [1.0, 0.6], [1.0, 1.0]], steps=3)
LOSSES = {"b": tf.constant([10.0]), "a": tf.constant([1.0])}


def _totals(weighting, steps=3):
    weights = weighting.build(["b", "a"], steps)
    return [float(weights(LOSSES, tf.constant(step))[0][0]) for step in range(steps)]


def test_each_step_has_its_weights_by_name():
    assert _totals(ProcessWeighting(PROCESS)) == pytest.approx([3, 7, 11])


def test_weights_below_the_threshold_are_zero():
    assert _totals(ProcessWeighting(PROCESS, threshold=0.5)) == pytest.approx([1, 7, 11])


def test_final_uses_the_last_weights_throughout():
    assert _totals(ProcessWeighting(PROCESS, final=True)) == pytest.approx([11, 11, 11])


@pytest.mark.parametrize(
    ("final", "threshold", "is_error"),
    [(False, 1.0, False), (False, 1.01, True), (True, 1.01, True), (True, 0.9, False)],
)
def test_threshold_above_all_weights_is_named(final, threshold, is_error):
    weighting = ProcessWeighting(PROCESS, final=final, threshold=threshold)
    if not is_error:
        assert max(_totals(weighting)) > 0
        return
    with pytest.raises(UserError, match=r"process\.threshold"):
        weighting.check({"a": 1.0, "b": 1.0})


def test_peak_between_the_steps_of_a_short_run_is_an_error():
    """Two steps follow the first and the last of three weights, and both are below the threshold."""
    weighting = ProcessWeighting(Process(["a"], [0, 1, 2], [[0.2], [0.9], [0.2]], 3), threshold=0.5)
    weighting.check({"a": 1.0})
    with pytest.raises(UserError, match=r"process\.threshold"):
        weighting.build(["a"], 2)


def test_without_a_process_there_is_an_error():
    with pytest.raises(UserError, match="process"):
        ProcessWeighting().check({"a": 1.0})


def test_paths_of_weight_zero_are_left_out_of_whole_epochs():
    weights = ScheduledWeights(
        {
            "early": np.array([1, 1, 0, 0, 0, 0], np.float32),
            "late": np.array([0, 0, 0, 1, 1, 1], np.float32),
        }
    )
    assert weights.segments([2, 4, 6]) == [(2, {"early"}), (6, {"late"})]
