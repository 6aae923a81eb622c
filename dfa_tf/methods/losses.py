"""Cross entropy and accuracy of each example, and the objective of plain training."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from dfa_tf.models.network import Network


def cross_entropy(
    logits: tf.Tensor, labels: tf.Tensor, class_weights: np.ndarray | None = None
) -> tf.Tensor:
    """Returns the cross entropy of each example (DFA, Eqn 5).

    Args:
        logits: Tensor `[B, classes]`.
        labels: Integer tensor `[B]`, or the probability of each class, float32 `[B, classes]`.
        class_weights: The factor of each class, float32 `[classes]`; None for 1.

    Returns:
        Float32 tensor `[B]`.
    """
    if labels.dtype.is_floating:
        weights = labels if class_weights is None else labels * class_weights
        return -tf.reduce_sum(weights * tf.nn.log_softmax(tf.cast(logits, tf.float32)), -1)
    ce = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, tf.cast(logits, tf.float32))
    return ce if class_weights is None else ce * tf.gather(class_weights, labels)


def is_correct(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Returns whether logits `[B, classes]` predict the labels `[B]`: bool `[B]`."""
    return tf.argmax(logits, -1, output_type=labels.dtype) == labels


def plain_objective(
    network: Network,
    class_weights: np.ndarray | None = None,
    targets: Callable | None = None,
) -> Callable:
    """Returns the objective of plain training: cross entropy alone (DFA, Eqn 5).

    Args:
        network: The network to train.
        class_weights: As in `cross_entropy`.
        targets: See `Targets.build`; None for the labels.

    Returns:
        A function of (images, labels, step, training), as `training.fit.Problem` expects.
    """

    def objective(images, labels, step=0, training=True):
        images, expected = targets(images, labels, step) if targets else (images, labels)
        logits = network(images, training=training)["logits"]
        return cross_entropy(logits, expected, class_weights), logits, {}

    return objective
