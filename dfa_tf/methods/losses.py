"""Losses that several methods share, per example."""

import tensorflow as tf


def cross_entropy(logits, labels):
    """Cross entropy with the true class (Eqn 5). logits: [B, classes]. labels: [B]. Returns [B]."""
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, tf.cast(logits, tf.float32))


def plain_objective(network):
    """Cross entropy alone (Eqn 5): how a teacher, or the tables' "Student", is trained."""

    def objective(images, labels):
        logits = network(images, training=True)["logits"]
        return cross_entropy(logits, labels), logits, {}

    return objective
