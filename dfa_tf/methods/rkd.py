"""RKD: relational knowledge distillation (Park et al., CVPR 2019)."""

import dataclasses

import tensorflow as tf

from dfa_tf.kernels import TINY
from dfa_tf.methods.method import Distillation, Method
from dfa_tf.methods.replicas import global_batch
from dfa_tf.methods.vectors import norm, unit
from dfa_tf.validation import NonNegative


@dataclasses.dataclass(frozen=True)
class RKD(Method):
    """CE + distance * RKD-D + angle * RKD-A, on the embeddings that the classifier receives.

    RKD-D compares the distances of all pairs of images in the global batch, RKD-A the angles of all
    triples. They are means over pairs and triples, as in the authors' code. The paper has sums.

    Args:
        distance: Weight of RKD-D.
        angle: Weight of RKD-A.
    """

    distance: NonNegative = 25.0
    angle: NonNegative = 50.0

    name = "rkd"

    def build(self, teacher, student, seed, precision):
        """Builds the method."""

        def terms(teacher, student, labels):
            return {
                "rkd_distance": rkd_distance(teacher.embedding, student.embedding),
                "rkd_angle": rkd_angle(teacher.embedding, student.embedding),
            }

        return Distillation(terms, {"rkd_distance": self.distance, "rkd_angle": self.angle})


def rkd_distance(teacher: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
    """Returns RKD-D: the Huber loss between the networks' |e_i - e_j| / mu, averaged over j.

    mu is the mean distance over the pairs of the batch.

    Args:
        teacher: Embeddings `[B, D]`.
        student: Embeddings `[B, D]`, where D may differ from the teacher's.

    Returns:
        Float32 tensor `[B]`, one value for each i.
    """
    relative = []
    for embeddings in (teacher, student):
        all_embeddings = global_batch(embeddings)
        count = tf.cast(tf.shape(all_embeddings)[0], tf.float32)
        all_distances = norm(_differences(all_embeddings, all_embeddings))
        mean = tf.reduce_sum(all_distances) / tf.maximum(count * (count - 1), 1.0)
        relative.append(norm(_differences(embeddings, all_embeddings)) / tf.maximum(mean, TINY))
    return tf.reduce_mean(huber(*relative), -1)


def rkd_angle(teacher: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
    """Returns RKD-A: the Huber loss between the networks' cosines of the angle i j k.

    Args:
        teacher: Embeddings `[B, D]`.
        student: Embeddings `[B, D]`, where D may differ from the teacher's.

    Returns:
        Float32 tensor `[B]`, one value for each vertex j, averaged over i and k.
    """
    cosines = []
    for embeddings in (teacher, student):
        sides = unit(_differences(embeddings, global_batch(embeddings)))
        cosines.append(tf.matmul(sides, sides, transpose_b=True))
    return tf.reduce_mean(huber(*cosines), [1, 2])


def huber(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Returns the element-wise Huber loss: (x - y)^2 / 2 if |x - y| < 1, else |x - y| - 1/2."""
    difference = tf.abs(x - y)
    return tf.where(difference < 1, tf.square(difference) / 2, difference - 0.5)


def _differences(x, y):
    """Returns [b, B, D]: each row of y [B, D] minus each row of x [b, D]."""
    return y[None] - x[:, None]
