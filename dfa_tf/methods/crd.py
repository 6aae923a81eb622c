"""CRD: contrastive representation distillation (Tian, Krishnan and Isola, ICLR 2020)."""

import dataclasses

import keras
import tensorflow as tf

from dfa_tf.methods.method import LABELS, Distillation, Method
from dfa_tf.methods.replicas import global_batch, local_row_offset
from dfa_tf.methods.vectors import unit
from dfa_tf.seeds import derived_seed
from dfa_tf.validation import Count, NonNegative, Positive


@dataclasses.dataclass(frozen=True)
class CRD(Method):
    """CE + weight * noise-contrastive loss in both directions (`crd_loss`).

    Each network's embedding passes through a trained linear map and is divided by its norm. The
    negatives of an image are the images of other classes in the global batch. The paper instead
    draws 16,384 negatives from a memory bank of the training set.

    Args:
        weight: Weight of the contrastive loss.
        temperature: Temperature tau.
        dimension: Size of the mapped embeddings.
    """

    weight: NonNegative = 0.8
    temperature: Positive = 0.07
    dimension: Count = 128

    name = "crd"
    needs = (LABELS,)

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

    Let s_i be the student's embedding of image i, and t_j the teacher's embedding of image j, one
    of N images of other classes. The loss of image i is

        -log h(i, i) - sum over j of log(1 - h(i, j)),  h = e / (e + N Z),  e = exp(s_i t_j / tau)

    plus the same with the networks exchanged. Z is the mean of e over all pairs of different
    classes in the batch. It receives no gradient. The authors' code computes Z once, from the
    first batch.

    Args:
        teacher: The teacher's mapped embeddings `[B, D]`, each of norm 1.
        student: The student's mapped embeddings `[B, D]`, each of norm 1.
        labels: Integer tensor `[B]`.
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
