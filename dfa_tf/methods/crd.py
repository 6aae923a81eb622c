"""CRD: the same image from both networks against different ones [Tian et al., ICLR 2020]."""

import dataclasses

import keras
import tensorflow as tf

from dfa_tf.methods.method import Distillation, check_positive, gathered, own_rows, unit
from dfa_tf.seeds import derived_seed


@dataclasses.dataclass(frozen=True)
class CRD:
    """Contrastive representation distillation: CE + weight * NCE of both directions.

    Both embeddings are mapped linearly to `dimension` numbers of norm 1. Negatives are the images
    of other classes in the global batch, also where replicas share it (see `gathered`). The paper
    draws 16,384 from a memory of the whole training set; a memory would tie an example's loss to
    its place in the set, and the batch needs none.
    temperature: tau.
    """

    weight: float = 0.8
    temperature: float = 0.07
    dimension: int = 128

    name = "crd"
    needs = ()

    def __post_init__(self):
        check_positive(self, "temperature")

    def build(self, teacher, student, seed, precision):
        maps = [
            _linear(
                network.group(network.group_names[-1]).feature_shape[-1],
                self.dimension,
                side,
                derived_seed(seed, side),
            )
            for network, side in ((teacher, "teacher_map"), (student, "student_map"))
        ]

        def terms(teacher, student, labels):
            ours = [m(o.embedding) for m, o in zip(maps, (teacher, student), strict=True)]
            return {"crd": crd_loss(*map(unit, ours), labels, self.temperature)}

        return Distillation(terms, {"crd": self.weight}, connectors=maps)


def crd_loss(teacher, student, labels, temperature):
    """Noise-contrastive loss of mapped embeddings [B, D], labels [B]: [B].

    For image i as the student sees it and N images j of other classes as the teacher does,
        -log h(i, i) - sum over j of log(1 - h(i, j)),  h = e / (e + N Z),  e = exp(s_i t_j / tau),
    and the same with the networks exchanged. Z, the mean of e over all pairs of other classes in the
    batch, makes e a probability ratio. The authors' code takes it once, from the first batch, where
    positives count for nothing among so many negatives; no gradient flows through it in either.
    """
    everyone = gathered(labels)
    apart = everyone[:, None] != everyone[None]
    negative = tf.cast(labels[:, None] != everyone[None], tf.float32)
    place = own_rows(labels) + tf.range(tf.shape(labels)[0])
    itself = tf.one_hot(place, tf.shape(everyone)[0])
    losses = []
    for anchors, others in ((student, teacher), (teacher, student)):
        others = gathered(others)
        scores = tf.matmul(anchors, others, transpose_b=True) / temperature
        of_all = tf.matmul(gathered(anchors), others, transpose_b=True) / temperature
        pairs = tf.maximum(tf.reduce_sum(tf.cast(apart, tf.float32)), 1.0)
        log_sum = tf.reduce_logsumexp(tf.where(apart, of_all, -1e9))
        log_z = tf.stop_gradient(log_sum) - tf.math.log(pairs)
        count = tf.reduce_sum(negative, -1, keepdims=True)
        odds = scores - log_z - tf.math.log(tf.maximum(count, 1.0))  # log of h / (1 - h)
        terms = itself * tf.nn.softplus(-odds) + negative * tf.nn.softplus(odds)
        losses.append(tf.reduce_sum(terms, -1))
    return tf.add_n(losses)


def _linear(width, dimension, name, seed):
    inputs = keras.Input((width,))
    initializer = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform", seed=seed)
    outputs = keras.layers.Dense(dimension, kernel_initializer=initializer, name="linear")(inputs)
    return keras.Model(inputs, outputs, name=name)
