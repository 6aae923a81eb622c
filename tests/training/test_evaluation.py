"""Evaluation counts every example once and measures the saved network."""

import numpy as np
import pytest

from dfa_tf.training.evaluation import Evaluator, evaluation_batch_size
from tests.conftest import made_examples, same, small_network


def test_result_does_not_depend_on_the_batch_size():
    network, examples = small_network(), made_examples(50)
    tallies = [Evaluator(network, examples, size)(network) for size in (7, 50, 500)]
    for tally in tallies[1:]:
        assert tally.confusion.tolist() == tallies[0].confusion.tolist()
        assert tally.metrics() == pytest.approx(tallies[0].metrics(), rel=1e-5)


def test_metrics_are_those_of_the_logits():
    network, examples = small_network(), made_examples(50)
    logits = network(examples.images, training=False)["logits"].numpy()
    true = logits[np.arange(50), examples.labels]
    metrics = Evaluator(network, examples)(network).metrics()
    assert metrics["accuracy"] == np.mean(logits.argmax(-1) == examples.labels)
    assert metrics["loss"] == pytest.approx(np.mean(np.log(np.exp(logits).sum(-1)) - true))
    assert "top_5_accuracy" not in metrics  # of four classes


def test_without_examples_there_are_no_metrics():
    network = small_network()
    assert Evaluator(network, None)(network) is None


def test_bfloat16_network_is_evaluated_in_float32():
    network, examples = small_network(), made_examples(50)
    trained = network.copy("mixed_bfloat16")
    evaluator = Evaluator(trained, examples)
    assert evaluator(trained).metrics() == Evaluator(network, examples)(network).metrics()
    saved = evaluator.network(trained)
    assert saved.precision == "float32"
    assert same(saved.get_weights(), network.get_weights())


@pytest.mark.parametrize(("side", "count"), [(8, 500), (64, 500), (128, 125), (224, 40), (4000, 1)])
def test_batches_of_large_images_have_as_many_pixels_as_500_of_64(side, count):
    assert evaluation_batch_size((side, side, 3)) == count
