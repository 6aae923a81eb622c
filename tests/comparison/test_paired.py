"""Paired differences, worked by hand with tabulated quantiles of Student's t."""

import pytest

from dfa_tf.comparison.paired import paired_difference


def test_three_seeds_by_hand():
    """1, 2 and 3: mean 2, s = 1, t = 4.303 for 2 degrees of freedom, 4.303 / sqrt(3) = 2.484."""
    difference = paired_difference({0: 11, 1: 22, 2: 33}, {0: 10, 1: 20, 2: 30})
    assert (difference.seeds, difference.mean) == (3, 2)
    assert difference.half_width == pytest.approx(2.484, abs=1e-3)
    assert difference.text() == "+2.00 +- 2.48"


def test_ten_seeds_by_hand():
    """Five differences of -1 and five of 1: s^2 = 10 / 9, t = 2.262 for 9 degrees of freedom."""
    values = {seed: (-1) ** seed for seed in range(10)}
    difference = paired_difference(values, dict.fromkeys(values, 0))
    assert difference.mean == 0
    assert difference.half_width == pytest.approx(2.262 / 3, abs=1e-3)


def test_only_seeds_that_both_methods_have_count():
    difference = paired_difference({0: 1.0, 1: 5.0}, {1: 3.0, 2: 9.0})
    assert (difference.seeds, difference.mean, difference.half_width) == (1, 2.0, None)
    assert difference.text() == "+2.00"
    assert paired_difference({0: 1.0}, {1: 1.0}) is None


def test_a_constant_offset_has_no_spread():
    """Two methods whose seeds vary alike differ by the same amount in each."""
    difference = paired_difference({0: 0.5, 1: 0.7, 2: 0.6}, {0: 0.4, 1: 0.6, 2: 0.5})
    assert difference.mean == pytest.approx(0.1)
    assert difference.half_width == pytest.approx(0, abs=1e-12)
