"""Cross entropy and accuracy of each example, and the objective of plain training."""

from collections.abc import Callable

import tensorflow as tf

from dfa_tf.models.network import Network


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Returns the cross entropy `[B]` of logits `[B, classes]` and labels `[B]` (DFA, Eqn 5)."""
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, tf.cast(logits, tf.float32))


def is_correct(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Returns whether logits `[B, classes]` predict the labels `[B]`: bool `[B]`."""
    return tf.argmax(logits, -1, output_type=labels.dtype) == labels


def plain_objective(network: Network) -> Callable:
    """Returns the objective of plain training: cross entropy alone (DFA, Eqn 5).

    Args:
        network: The network to train.

    Returns:
        A function of (images, labels, step, training), as `training.fit.Problem` expects.
    """

    def objective(images, labels, step=0, training=True):
        logits = network(images, training=training)["logits"]
        return cross_entropy(logits, labels), logits, {}

    return objective
