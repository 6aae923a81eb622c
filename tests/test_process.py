"""A process: its interpolation to other lengths, and its file."""

import json

import numpy as np
import pytest

from dfa_tf.errors import UserError
from dfa_tf.process import Process, is_recorded

FIVE = Process(["a", "b"], [0, 1, 2, 3, 4], [[0, 4], [1, 3], [2, 2], [3, 1], [4, 0]], steps=5)


def test_a_run_of_the_same_length_has_the_recorded_weights():
    np.testing.assert_array_equal(FIVE.stretched(5), FIVE.weights)


def test_twice_the_steps_have_the_recorded_weights_at_every_other_step():
    """T = 2 S - 1: the new steps lie in the middle of two recorded ones."""
    weights = FIVE.stretched(9)
    np.testing.assert_array_equal(weights[::2], FIVE.weights)
    np.testing.assert_array_equal(weights[1::2, 0], [0.5, 1.5, 2.5, 3.5])


def test_a_shorter_run_ends_with_the_same_weights():
    np.testing.assert_array_equal(FIVE.stretched(3), [[0, 4], [2, 2], [4, 0]])


def test_a_single_step_has_the_first_weights():
    np.testing.assert_array_equal(FIVE.stretched(1), [[0, 4]])


def test_a_single_recorded_step_is_constant():
    process = Process(["a"], [0], [[0.7]], steps=1)
    np.testing.assert_allclose(process.stretched(4), np.full((4, 1), 0.7))


def test_weights_are_constant_before_the_first_and_after_the_last_record():
    """Records of a log lie in the middle of its steps."""
    process = Process(["a"], [1, 3], [[1.0], [2.0]], steps=6)
    np.testing.assert_allclose(process.stretched(6)[:, 0], [1, 1, 1.5, 2, 2, 2])


@pytest.mark.parametrize(("steps", "recorded"), [(1, 1), (9, 9), (1000, 1000), (12500, 963)])
def test_first_and_last_step_are_recorded_and_about_a_thousand_in_all(steps, recorded):
    """Of 12,500 steps, as of DistPro's search, every 13th: 962 of them, and the last."""
    found = [step for step in range(steps) if is_recorded(step, steps)]
    assert (found[0], found[-1], len(found)) == (0, steps - 1, recorded)


def test_file_restores_the_process(tmp_path):
    FIVE.save(tmp_path / "process.json")
    assert Process.load(tmp_path / "process.json") == FIVE


@pytest.mark.parametrize(
    "changes",
    [
        {"weights": [[0, 4], [1, 3]]},
        {"weights": [[0, -1]] * 5},
        {"weights": [[0, float("nan")]] * 5},
        {"weights": [["0", "1"]] * 5},
        {"weights": [[0, 1e300]] * 5},  # infinite in float32
        {"at": ["0", "1", "2", "3", "4"]},
        {"weights": [[0, float("inf")]] * 5},
        {"weights": "many"},
        {"at": [0, 1, 1, 3, 4]},
        {"at": [0, 1, 2, 3, 9]},
        {"at": []},
        {"at": [0, 1, 2, float("nan"), 4]},
        {"steps": float("nan")},
        {"steps": "5"},
        {"paths": ["a", "a"]},
        {"paths": "ab"},
        {"alpha": [[0, 1]]},
        {"paths": []},
        {"format": 2},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_malformed_file_is_an_error_that_names_it(tmp_path, changes):
    path = tmp_path / "process.json"
    FIVE.save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(UserError) as error:
        Process.load(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 1}'])
def test_cut_file_is_an_error_that_names_it(tmp_path, text):
    path = tmp_path / "process.json"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        Process.load(path)
    assert str(path) in str(error.value)


def test_missing_file_is_an_error_that_names_it(tmp_path):
    with pytest.raises(UserError) as error:
        Process.load(tmp_path / "none.json")
    assert "none.json" in str(error.value)


def test_other_paths_are_an_error_that_names_both_lists():
    with pytest.raises(UserError) as error:
        FIVE.check_paths(["a", "kd"], "file.json")
    for text in ("file.json", "a, kd", "a, b"):
        assert text in str(error.value)
    FIVE.check_paths(["b", "a"], "file.json")  # in any order
