"""DIST: correlations of the predictions (Huang et al., NeurIPS 2022)."""

import dataclasses

import tensorflow as tf

from dfa_tf.methods.method import Distillation, Method
from dfa_tf.methods.replicas import global_batch
from dfa_tf.methods.vectors import unit
from dfa_tf.validation import NonNegative, Positive


@dataclasses.dataclass(frozen=True)
class DIST(Method):
    """CE + beta L_inter + gamma L_intra.

    Both terms are tau^2 (1 - Pearson's correlation) of the networks' probabilities softmax(z / tau):
    L_inter correlates the classes of an example, L_intra the examples of a class. The factor tau^2
    is that of the authors' code.

    Args:
        temperature: Temperature tau: 4 on CIFAR-100, 1 on ImageNet.
        beta: Weight of L_inter.
        gamma: Weight of L_intra.
    """

    temperature: Positive = 4.0
    beta: NonNegative = 2.0
    gamma: NonNegative = 2.0

    name = "dist"
    logits_only = True

    def build(self, teacher, student, seed, precision):
        """Builds the method."""

        def terms(teacher, student, labels):
            p, q = (tf.nn.softmax(z.logits / self.temperature) for z in (teacher, student))
            return {
                "dist_inter": self.temperature**2 * inter_class(p, q),
                "dist_intra": self.temperature**2 * intra_class(p, q),
            }

        return Distillation(terms, {"dist_inter": self.beta, "dist_intra": self.gamma})


def inter_class(p: tf.Tensor, q: tf.Tensor) -> tf.Tensor:
    """Returns 1 - the correlation over the classes, `[B]`, of probabilities `[B, classes]`."""
    return 1 - correlation(p, q, axis=1)


def intra_class(p: tf.Tensor, q: tf.Tensor) -> tf.Tensor:
    """Returns 1 - the correlation over the global batch, averaged over the classes.

    Args:
        p: The teacher's probabilities `[B / replicas, classes]`.
        q: The student's.

    Returns:
        Tensor `[B / replicas]`, the same value for each example.
    """
    correlations = correlation(global_batch(p), global_batch(q), axis=0)
    return tf.repeat(1 - tf.reduce_mean(correlations), tf.shape(p)[0])


def correlation(x: tf.Tensor, y: tf.Tensor, axis: int) -> tf.Tensor:
    """Returns Pearson's correlation of x and y `[rows, columns]` along an axis.

    It is 0 where x or y is constant.
    """
    x, y = (unit(z - tf.reduce_mean(z, axis, keepdims=True), axis) for z in (x, y))
    return tf.reduce_sum(x * y, axis)
