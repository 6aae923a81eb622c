"""The bridge loss of the aggregation search: DFA, Eqns 2, 6 and 10-12."""

import tensorflow as tf

from dfa_tf.fused import fused, slice_sums
from dfa_tf.methods.losses import cross_entropy

FLOOR = -1.0


def weights(beta):
    """alpha, the weights of one group's features, from its architecture parameters (Eqn 6).

    beta: [N]. Returns [N], positive, of sum 1.
    """
    return tf.nn.softmax(beta)


def aggregate(features, alpha, clipped=False):
    """A, the weighted sum of one group's teacher features (Eqn 2).

    features: N tensors [B, H, W, C]. alpha: [N] float32, of sum 1. clipped: sum what `clip` makes
    of the features (§3.4). Returns [B, H, W, C] in the features' dtype; arithmetic and the sums
    of the gradient for alpha are float32, whatever that dtype.
    """

    @tf.custom_gradient
    def weighted_sum(alpha, *features):
        def gradient(upstream):
            for_alpha = [tf.reduce_sum(sums) for sums in _products(upstream, features, clipped)]
            return tf.stack(for_alpha), *_weighted_gradients(upstream, alpha, features, clipped)

        return _weighted_sum(alpha, features, clipped), gradient

    return weighted_sum(tf.convert_to_tensor(alpha, tf.float32), *features)


@fused
def _weighted_sum(alpha, features, clipped):
    weights = tf.unstack(alpha, len(features))
    terms = [
        weight * _float32(feature, clipped)
        for weight, feature in zip(weights, features, strict=True)
    ]
    return tf.cast(tf.add_n(terms), features[0].dtype)


@fused
def _products(upstream, features, clipped):
    return [slice_sums(lambda u, t: u * _float32(t, clipped), upstream, t) for t in features]


@fused
def _weighted_gradients(upstream, alpha, features, clipped):
    weights = tf.unstack(alpha, len(features))
    kept = [t >= tf.cast(FLOOR, t.dtype) if clipped else True for t in features]
    return [
        tf.cast(tf.where(keep, weight * tf.cast(upstream, tf.float32), 0.0), upstream.dtype)
        for weight, keep in zip(weights, kept, strict=True)
    ]


def _float32(feature, clipped):
    feature = tf.cast(feature, tf.float32)
    return tf.maximum(feature, FLOOR) if clipped else feature


@fused
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

    @tf.custom_gradient
    def distance(s, a):
        inner, ss, aa = (tf.reduce_sum(sums, 1) for sums in _inner_products(s, a))
        norms = ss * aa
        scale = tf.math.rsqrt(tf.maximum(norms, TINY))  # 1 / (|s| |a|)

        def gradient(upstream):
            across = -2.0 * upstream * scale
            along = tf.where(norms > TINY, 2.0 * upstream * inner * scale**3, 0.0)
            return _combined(across, a, along * aa, s), _combined(across, s, along * ss, a)

        return 2.0 - 2.0 * inner * scale, gradient

    return distance(student, aggregation)


TINY = 1e-12  # below this an empty map would have an infinite gradient


@fused
def _inner_products(s, a):
    return [slice_sums(lambda x, y: x * y, *pair) for pair in ((s, a), (s, s), (a, a))]


@fused
def _combined(p, x, q, y):
    """p x + q y, where p and q are numbers of each example."""
    p, q = (tf.reshape(factor, [-1, 1, 1, 1]) for factor in (p, q))
    return tf.cast(p * tf.cast(x, tf.float32) + q * tf.cast(y, tf.float32), x.dtype)


def bridge_loss(st, ts, gamma_st=1e-3, gamma_ts=1.0):
    """Bridge loss of one group (Eqn 12); st, ts: of one shape, which is returned."""
    return gamma_st * st + gamma_ts * ts
