"""Evaluation counts every example once and measures the saved network."""

import numpy as np
import tensorflow as tf

from dfa_tf.training.evaluation import Evaluator, evaluation_counts, mean_counts
from tests.conftest import made_examples, same, small_network


def test_counts_by_hand():
    """The first and the last are correct. Losses: ln 2, ln 2, and -ln(9/10)."""
    logits = tf.constant([[0.0, 0.0], [0.0, 0.0], [0.0, np.log(9)]])
    correct, loss = evaluation_counts(logits, tf.constant([0, 1, 1]))
    assert float(correct) == 2
    np.testing.assert_allclose(float(loss), 2 * np.log(2) - np.log(0.9), rtol=1e-6)


def test_smaller_last_batch_is_weighted_by_its_size():
    examples = made_examples(10)
    batches = []

    def count(images, labels):
        batches.append(len(labels))
        return float(len(labels)), 2.0 * len(labels)

    assert mean_counts(examples.in_order(4), count) == {"accuracy": 1.0, "loss": 2.0}
    assert batches == [4, 4, 2]


def test_result_does_not_depend_on_the_batch_size():
    network, examples = small_network(), made_examples(50)
    results = [Evaluator(network, examples, size)(network) for size in (7, 50, 500)]
    for result in results[1:]:
        assert result["accuracy"] == results[0]["accuracy"]
        np.testing.assert_allclose(result["loss"], results[0]["loss"], rtol=1e-5)


def test_bfloat16_network_is_evaluated_in_float32():
    network, examples = small_network(), made_examples(50)
    trained = network.copy("mixed_bfloat16")
    evaluator = Evaluator(trained, examples)
    assert evaluator(trained) == Evaluator(network, examples)(network)
    saved = evaluator.network(trained)
    assert saved.precision == "float32"
    assert same(saved.get_weights(), network.get_weights())
