"""NST: where neurons are selective, as distributions [Huang and Wang, 2017]."""

import dataclasses

import tensorflow as tf

from dfa_tf.methods.method import Distillation, group_pairs, matched, unit


@dataclasses.dataclass(frozen=True)
class NST:
    """Neuron selectivity transfer: CE + weight / 2 * MMD^2 with the kernel (x . y)^2.

    A sample of the distribution is one channel's map, of norm 1; at the ends of all groups, after
    their ReLU.
    """

    weight: float = 50.0

    name = "nst"
    needs = ()

    def build(self, teacher, student, seed, precision):
        pairs = group_pairs(teacher, student)

        def terms(teacher, student, labels):
            return {
                "nst": tf.add_n(
                    [nst_loss(teacher.activation(t), student.activation(s)) for t, s in pairs]
                )
            }

        return Distillation(terms, {"nst": self.weight / 2})


def nst_loss(teacher, student):
    """MMD^2 of the channels of two activations [B, H, W, C], the larger averaged down: [B]."""
    t, s = (_channels(m) for m in matched(teacher, student))
    return _mean_kernel(t, t) + _mean_kernel(s, s) - 2 * _mean_kernel(t, s)


def _channels(activation):
    """The channels' maps, each of norm 1: [B, C, H W] float32."""
    height, width, channels = activation.shape[1:]
    rows = tf.reshape(tf.cast(activation, tf.float32), [-1, height * width, channels])
    return unit(tf.transpose(rows, [0, 2, 1]))


def _mean_kernel(x, y):
    return tf.reduce_mean(tf.square(tf.matmul(x, y, transpose_b=True)), [1, 2])
