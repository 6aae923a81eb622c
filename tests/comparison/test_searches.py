"""The similarity of alpha between seeds and between forms of the search."""

from dfa_tf.alpha import Alpha, GroupAlpha
from dfa_tf.comparison.searches import Searches


def _alpha(seed, *weights):
    groups = [GroupAlpha("group1", [], [], list(weights)), GroupAlpha("group2", [], [], [1.0])]
    return Alpha("", "", "", seed, 0, groups)


def test_similarity_is_between_seeds_of_a_row_and_between_rows_of_a_seed():
    """Deviations from 1/3: r = -.1233 / .1267 for (.6 .3 .1) and (.1 .3 .6), and r = .0767 / .0769
    for (.6 .3 .1) and (.5 .3 .2). Distances: half of .5 + .5, and half of .1 + .1."""
    by_groups = [_alpha(0, 0.6, 0.3, 0.1), _alpha(1, 0.1, 0.3, 0.6)]
    joint = [_alpha(0, 0.6, 0.3, 0.1), _alpha(2, 0.5, 0.3, 0.2)]
    _, *rows = Searches({"by groups": by_groups, "joint": joint}).similarity_cells()
    assert rows == [
        ("by groups, two seeds", "group1", "1", "-0.974", "0.500"),
        ("joint, two seeds", "group1", "1", "0.997", "0.100"),
        ("by groups and joint, same seed", "group1", "1", "1.000", "0.000"),
    ]


def test_equal_weights_have_no_correlation():
    searches = Searches({"row": [_alpha(seed, 0.5, 0.5) for seed in (0, 1)]})
    assert searches.similarity_cells()[1][3:] == ("", "0.000")


def test_single_search_has_nothing_to_compare():
    assert Searches({"row": [_alpha(0, 0.5, 0.5)]}).similarity_cells() == []
