"""alpha: its start, the fixed aggregations, and its file."""

import dataclasses
import json

import numpy as np
import pytest

from dfa_tf.alpha import Alpha, GroupAlpha, fixed, initial_beta, permuted
from dfa_tf.errors import UserError
from tests.conftest import small_network


@pytest.mark.parametrize("count", [2, 3, 4, 8])
def test_last_starts_at_99_percent_for_any_number_of_features(count):
    odds = np.exp(initial_beta("last", count))
    alpha = odds / odds.sum()
    assert alpha[-1] == pytest.approx(0.99)
    assert alpha[:-1] == pytest.approx([0.01 / (count - 1)] * (count - 1))


def test_uniform_and_random_starts():
    assert initial_beta("uniform", 3).tolist() == [0, 0, 0]
    draws = initial_beta("random", 5000, seed=1)
    assert (draws.mean(), draws.std()) == pytest.approx((0, 1), abs=0.05)
    assert initial_beta("random", 4, seed=1).tolist() == draws[:4].tolist()


def test_unknown_fixed_alpha_is_an_error():
    with pytest.raises(UserError, match=r"alpha.*'first'"):
        fixed("first", small_network())


def test_fixed_aggregations_of_table_5():
    teacher = small_network(depth=22)
    np.testing.assert_array_equal(fixed("last", teacher)["group2"], [0, 0, 1])
    np.testing.assert_allclose(fixed("average", teacher)["group1"], [1 / 3] * 3, rtol=1e-6)
    first, again, other = (fixed("random", teacher, seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    for group in first.groups:
        assert sum(group.alpha) == pytest.approx(1)
    assert first["group1"].tolist() != first["group2"].tolist()


@pytest.fixture
def alpha():
    def group(g):
        names = [f"group{g}_block1", f"group{g}_block2"]
        history = [[0, [0.01, 0.99]], [5, [0.25, 0.75]]]
        return GroupAlpha(
            f"group{g}", names, [0.0, 1.1], [0.25, 0.75], history, [1e-3, -1e-3], [0.0, 1e-3]
        )

    return Alpha("digits", "WRN_16_1", "WRN_10_1", 3, 15, [group(g) for g in (1, 2, 3)])


def test_file_follows_the_contract_and_is_read_back_equal(alpha, tmp_path):
    path = tmp_path / "alpha.json"
    alpha.save(path)
    content = json.loads(path.read_text())
    assert set(content) == {"format", "dataset", "teacher", "student", "seed", "steps", "groups"}
    assert content["format"] == 1
    assert set(content["groups"][0]) == {
        "name", "features", "beta", "alpha", "history", "mean_loss_gradient", "mean_decay",
    }  # fmt: skip
    assert Alpha.load(path) == alpha


def test_alpha_fits_a_teacher_with_as_many_features(alpha):
    alpha.check_fits(small_network(depth=16))
    with pytest.raises(UserError, match=r"3 .*group1.*WRN_22_1.* 2"):
        alpha.check_fits(small_network(depth=22))
    alpha.groups.pop()
    with pytest.raises(UserError, match=r"group1, group2, group3.* group1, group2"):
        alpha.check_fits(small_network(depth=16))


def _break(content, how):
    if how == "cut":
        return json.dumps(content)[:-20]
    if how == "no groups":
        content.pop("groups")
    if how == "other format":
        content["format"] = 7
    if how == "a list":
        content = [content]
    if how == "groups are numbers":
        content["groups"] = [1, 2, 3]
    if how == "name is a list":
        content["groups"][0]["name"] = ["group1"]
    if how == "negative":
        content["groups"][0]["alpha"] = [1.5, -0.5]
    if how == "sum":
        content["groups"][1]["alpha"] = [0.5, 0.6]
    if how == "words":
        content["groups"][1]["alpha"] = ["much", "little"]
    if how == "group without alpha":
        content["groups"][2].pop("alpha")
    return json.dumps(content)


@pytest.mark.parametrize(
    ("how", "key"),
    [
        ("cut", "JSON"),
        ("no groups", "'groups'"),
        ("other format", "format.* 7"),
        ("a list", "layout"),
        ("groups are numbers", "layout"),
        ("name is a list", "layout"),
        ("negative", "group1"),
        ("sum", "group2"),
        ("words", "group2"),
        ("group without alpha", "'alpha'"),
    ],
)
def test_malformed_file_is_named(alpha, tmp_path, how, key):
    path = tmp_path / "alpha.json"
    alpha.save(path)
    path.write_text(_break(json.loads(path.read_text()), how))
    with pytest.raises(UserError, match=rf"alpha\.json.*{key}") as caught:
        Alpha.load(path)
    assert "\n" not in str(caught.value)


def test_booleans_are_no_weights(tmp_path):
    path = tmp_path / "alpha.json"
    path.write_text('{"format": 1, "groups": [{"name": "group1", "alpha": [true, false]}]}')
    with pytest.raises(UserError, match="group1"):
        Alpha.load(path)


def test_digest_is_that_of_the_file_and_depends_on_weights_and_origin(alpha, tmp_path):
    alpha.save(tmp_path / "alpha.json")
    assert Alpha.load(tmp_path / "alpha.json").digest == alpha.digest
    assert permuted(alpha).digest != alpha.digest
    assert dataclasses.replace(alpha, seed=alpha.seed + 1).digest != alpha.digest


@pytest.mark.parametrize("how", ["cut", "no groups", "a list", "sum"])
def test_malformed_result_of_the_own_search_is_restarted_with_fresh(alpha, tmp_path, how):
    path = tmp_path / "alpha.json"
    alpha.save(path)
    path.write_text(_break(json.loads(path.read_text()), how))
    with pytest.raises(UserError, match="--fresh"):
        Alpha.load(path, source="search")


def test_file_written_by_hand_needs_names_and_weights_alone(tmp_path):
    path = tmp_path / "alpha.json"
    path.write_text('{"format": 1, "groups": [{"name": "group1", "alpha": [0.2, 0.8]}]}')
    np.testing.assert_allclose(Alpha.load(path)["group1"], [0.2, 0.8])


def test_permutation_keeps_the_weights_and_moves_each_of_them(alpha):
    alpha.groups[0].alpha = [0.1, 0.2, 0.3, 0.4]
    alpha.groups[0].beta = [1.0, 2.0, 3.0, 4.0]
    orders = {tuple(permuted(alpha, seed).groups[0].alpha) for seed in range(200)}
    assert len(orders) == 9  # the derangements of four
    for order in orders:
        assert sorted(order) == [0.1, 0.2, 0.3, 0.4]
        assert all(a != b for a, b in zip(order, alpha.groups[0].alpha, strict=True))
    assert permuted(alpha, 3) == permuted(alpha, 3)
    assert permuted(alpha, 0).groups[1].alpha == [0.75, 0.25]


def test_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"gone\.json"):
        Alpha.load(tmp_path / "gone.json")


def test_last_weight_is_the_mean_over_groups_with_several_features():
    """.3 and .9 of the groups with two features: .6. A group of one feature has no choice."""
    groups = [GroupAlpha(f"g{a}", [], [], a) for a in ([0.7, 0.3], [1.0], [0.1, 0.9])]
    assert Alpha("", "", "", 0, 0, groups).last_weight == pytest.approx(0.6)
    assert Alpha("", "", "", 0, 0, groups[1:2]).last_weight == 1.0


def test_random_alpha_is_the_softmax_of_normal_draws():
    """Then log(alpha_1 / alpha_2) is the difference of two draws of N(0, 1): its variance is 2."""
    teacher = small_network(depth=16)
    alphas = [fixed("random", teacher, seed)["group1"] for seed in range(500)]
    logs = [np.log(first / second) for first, second in alphas]
    assert np.mean(logs) == pytest.approx(0, abs=0.2)
    assert np.var(logs) == pytest.approx(2, rel=0.25)
