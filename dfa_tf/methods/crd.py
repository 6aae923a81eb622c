"""CRD: contrastive representation distillation (Tian, Krishnan and Isola, ICLR 2020)."""

import dataclasses

import keras
import tensorflow as tf

from dfa_tf.methods.method import Distillation, Method
from dfa_tf.methods.replicas import global_batch, local_row_offset
from dfa_tf.methods.vectors import unit
from dfa_tf.seeds import derived_seed
from dfa_tf.validation import Count, NonNegative, Positive


@dataclasses.dataclass(frozen=True)
class CRD(Method):
    """CE + weight * NCE of both directions.

    Both embeddings are mapped linearly to `dimension` numbers of norm 1. The negatives are the
    images of other classes in the global batch. The paper draws 16,384 from a memory of the
    training set; the batch needs no memory.

    Args:
        weight: Weight.
        temperature: tau.
        dimension: Size of the mapped embeddings.
    """

    weight: NonNegative = 0.8
    temperature: Positive = 0.07
    dimension: Count = 128

    name = "crd"

    def build(self, teacher, student, seed, precision):
        """Builds the method."""
        maps = [
            _linear_map(network.embedding_size, self.dimension, name, derived_seed(seed, name))
            for network, name in ((teacher, "teacher_map"), (student, "student_map"))
        ]

        def terms(teacher, student, labels):
            teacher_map, student_map = maps
            mapped_teacher = unit(teacher_map(teacher.embedding))
            mapped_student = unit(student_map(student.embedding))
            return {"crd": crd_loss(mapped_teacher, mapped_student, labels, self.temperature)}

        return Distillation(terms, {"crd": self.weight}, connectors=maps)


def crd_loss(
    teacher: tf.Tensor, student: tf.Tensor, labels: tf.Tensor, temperature: float
) -> tf.Tensor:
    """Returns the noise-contrastive loss of mapped embeddings.

    For the student's embedding of image i and the teacher's of N images j of other classes, it is

        -log h(i, i) - sum over j of log(1 - h(i, j)),  h = e / (e + N Z),  e = exp(s_i t_j / tau)

    plus the same with the networks exchanged. Z is the mean of e over all pairs of different
    classes in the batch; it has no gradient. The authors' code computes it once, from the first
    batch.

    Args:
        teacher: Tensor `[B, D]` of norm 1.
        student: Tensor `[B, D]` of norm 1.
        labels: Tensor `[B]`.
        temperature: tau.

    Returns:
        Float32 tensor `[B]`.
    """
    all_labels = global_batch(labels)
    different_class = all_labels[:, None] != all_labels[None]
    negatives = tf.cast(labels[:, None] != all_labels[None], tf.float32)
    rows = local_row_offset(labels) + tf.range(tf.shape(labels)[0])
    positives = tf.one_hot(rows, tf.shape(all_labels)[0])
    losses = []
    for anchors, others in ((student, teacher), (teacher, student)):
        others = global_batch(others)
        scores = tf.matmul(anchors, others, transpose_b=True) / temperature
        all_scores = tf.matmul(global_batch(anchors), others, transpose_b=True) / temperature
        pairs = tf.maximum(tf.reduce_sum(tf.cast(different_class, tf.float32)), 1.0)
        log_sum = tf.reduce_logsumexp(tf.where(different_class, all_scores, -1e9))
        log_z = tf.stop_gradient(log_sum) - tf.math.log(pairs)
        count = tf.reduce_sum(negatives, -1, keepdims=True)
        log_odds = scores - log_z - tf.math.log(tf.maximum(count, 1.0))  # log of h / (1 - h)
        terms = positives * tf.nn.softplus(-log_odds) + negatives * tf.nn.softplus(log_odds)
        losses.append(tf.reduce_sum(terms, -1))
    return tf.add_n(losses)


def _linear_map(size, dimension, name, seed):
    inputs = keras.Input((size,))
    initializer = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform", seed=seed)
    outputs = keras.layers.Dense(dimension, kernel_initializer=initializer, name="linear")(inputs)
    return keras.Model(inputs, outputs, name=name)
