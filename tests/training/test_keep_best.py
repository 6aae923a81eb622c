"""The network of the best evaluation: the highest accuracy, and the first one on ties."""

import pytest

from dfa_tf.errors import UserError
from dfa_tf.training.keep_best import BestNetwork, best_evaluation, check_keep
from tests.conftest import made_examples, same, small_network


@pytest.mark.parametrize(
    ("accuracies", "place"), [([0.5], 0), ([0.5, 0.7, 0.7, 0.6], 1), ([0.5, 0.6, 0.7], 2)]
)
def test_first_network_of_the_highest_accuracy_is_kept(accuracies, place):
    networks = [small_network(depth=10, seed=seed) for seed in range(len(accuracies))]
    best, curve = BestNetwork(small_network(depth=10, seed=9), None), []
    for step, (network, accuracy) in enumerate(zip(networks, accuracies, strict=True)):
        curve.append([step, accuracy, 1.0])
        best.update(curve, network)
    assert best_evaluation(curve)[0] == place
    assert same(best.network.get_weights(), networks[place].get_weights())
    assert best.test_result() is None


@pytest.mark.parametrize(
    ("keep", "has_validation"), [("first", False), (None, False), ("best", False), ("last", True)]
)
def test_wrong_choice_is_named_in_one_line(keep, has_validation):
    validation = made_examples(8) if has_validation else None
    with pytest.raises(UserError, match=r"distill\.keep") as caught:
        check_keep("distill.keep", keep, validation)
    assert "\n" not in str(caught.value)
