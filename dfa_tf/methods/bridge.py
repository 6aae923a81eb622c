"""The bridge loss of the aggregation search: DFA, Eqns 2, 6 and 10-12."""

import tensorflow as tf

from dfa_tf.methods.losses import cross_entropy

FLOOR = -1.0


def weights(beta):
    """alpha, the weights of one group's features, from its architecture parameters (Eqn 6).

    beta: [N]. Returns [N], positive, of sum 1.
    """
    return tf.nn.softmax(beta)


def aggregate(features, alpha):
    """A, the weighted sum of one group's teacher features (Eqn 2).

    features: N tensors [B, H, W, C]. alpha: [N] float32, of sum 1. Returns [B, H, W, C] in the
    features' dtype; the gradient for alpha is summed up in float32, whatever that dtype.
    """

    @tf.custom_gradient
    def weighted_sum(alpha, *features):
        scales = tf.unstack(tf.cast(alpha, features[0].dtype), len(features))

        def gradient(upstream):
            for_alpha = [
                tf.reduce_sum(tf.cast(upstream * feature, tf.float32)) for feature in features
            ]
            return tf.stack(for_alpha), *(scale * upstream for scale in scales)

        aggregation = tf.add_n([s * f for s, f in zip(scales, features, strict=True)])
        return aggregation, gradient

    return weighted_sum(tf.convert_to_tensor(alpha), *features)


def clip(feature):
    """Preserves the values that are no smaller than -1 (§3.4). Any shape and float dtype."""
    return tf.maximum(feature, tf.cast(FLOOR, feature.dtype))


def ts_loss(logits, labels):
    """Teacher-to-student loss: cross entropy of what the student's tail makes of A (Eqn 10).

    logits: [B, classes], from the TS connector's output sent through the student's groups after
    group i. labels: [B]. Returns [B].
    """
    return cross_entropy(logits, labels)


def st_loss(student, aggregation):
    """Student-to-teacher loss: squared distance of the two maps, each of norm 1 (Eqn 11).

    student: [B, H, W, C], the ST connector's output. aggregation: [B, H, W, C], A.
    Returns [B] float32, within 0..4. As |s/|s| - a/|a||^2 = 2 - 2 <s, a> / (|s| |a|), no
    normalized map is ever made.
    """
    s, a = tf.cast(student, tf.float32), tf.cast(aggregation, tf.float32)
    axes = [1, 2, 3]
    inner = tf.reduce_sum(s * a, axes)
    norms = tf.reduce_sum(s * s, axes) * tf.reduce_sum(a * a, axes)
    return 2.0 - 2.0 * inner * tf.math.rsqrt(tf.maximum(norms, 1e-12))


def bridge_loss(st, ts, gamma_st=1e-3, gamma_ts=1.0):
    """Bridge loss of one group (Eqn 12); st, ts: of one shape, which is returned."""
    return gamma_st * st + gamma_ts * ts
