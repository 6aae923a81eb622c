"""RKD: how examples lie to each other, by distances and angles [Park et al., CVPR 2019]."""

import dataclasses

import tensorflow as tf

from dfa_tf.methods.method import Distillation, gathered, norm, unit


@dataclasses.dataclass(frozen=True)
class RKD:
    """CE + distance * RKD-D + angle * RKD-A, of the embeddings that are classified.

    Distances are those of all pairs, angles those of all triples of the global batch, also where
    replicas share it (see `gathered`). As in their code, losses are averaged over pairs and
    triples, where the paper sums.
    """

    distance: float = 25.0
    angle: float = 50.0

    name = "rkd"
    needs = ()

    def build(self, teacher, student, seed, precision):
        def terms(teacher, student, labels):
            return {
                "rkd_distance": rkd_distance(teacher.embedding, student.embedding),
                "rkd_angle": rkd_angle(teacher.embedding, student.embedding),
            }

        return Distillation(terms, {"rkd_distance": self.distance, "rkd_angle": self.angle})


def rkd_distance(teacher, student):
    """Huber distance of |e_i - e_j| / mu, mu their mean over the batch's pairs, averaged over j.

    Embeddings [B, D] of any D each. Returns [B], by i.
    """
    relative = []
    for own in (teacher, student):
        everyone = gathered(own)
        count = tf.cast(tf.shape(everyone)[0], tf.float32)
        all_distances = norm(_differences(everyone, everyone))
        mean = tf.reduce_sum(all_distances) / tf.maximum(count * (count - 1), 1.0)
        relative.append(norm(_differences(own, everyone)) / tf.maximum(mean, 1e-12))
    return tf.reduce_mean(huber(*relative), -1)


def rkd_angle(teacher, student):
    """Huber distance of the cosine at j in the triangle i j k, averaged over i and k: [B], by j."""
    cosines = []
    for own in (teacher, student):
        sides = unit(_differences(own, gathered(own)))
        cosines.append(tf.matmul(sides, sides, transpose_b=True))
    return tf.reduce_mean(huber(*cosines), [1, 2])


def huber(x, y):
    """(x - y)^2 / 2 up to a difference of 1, |x - y| - 1/2 from there on."""
    difference = tf.abs(x - y)
    return tf.where(difference < 1, tf.square(difference) / 2, difference - 0.5)


def _differences(own, everyone):
    """[b, B, D]: from each of `own` [b, D] to each of `everyone` [B, D]."""
    return everyone[None] - own[:, None]
