"""Fused kernels for formulas and layers. The plain form of a formula is in the module that uses it:

    @accelerated(kernels.normalized_l2)
    def normalized_l2(x, y):
        return tf.reduce_sum(tf.square(unit(flatten(x)) - unit(flatten(y))), -1)

A call of `normalized_l2` runs the kernel, and `normalized_l2.formula` is the plain form. The tests
compare values and gradients of the two, in both precisions.

Kernels return maps in the dtype of their inputs. Sums and products are computed in float32.
"""

import functools

import tensorflow as tf

from dfa_tf.fused import fused, slice_sums

FLOOR = -1.0  # DFA, §3.4: values no smaller than -1 are preserved
TINY = 1e-12  # squared norms below this are treated as zero, so that gradients stay finite


def accelerated(kernel):
    """Returns a decorator that replaces a plain formula by `kernel`.

    Args:
        kernel: A function of this module with the formula's arguments.

    Returns:
        A decorator. The attribute `formula` of the decorated function is the plain form.
    """

    def decorate(formula):
        @functools.wraps(formula)
        def call(*args, **kwargs):
            return kernel(*args, **kwargs)

        call.formula = formula  # type: ignore[attr-defined]
        return call

    return decorate


# --- DFA, Eqn 2: the weighted sum of a group's features, which may be clipped at -1 --------------


def aggregate(features, alpha, clipped=False):
    """Computes `dfa_tf.methods.aggregation.aggregate`."""

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
    """Computes `dfa_tf.methods.aggregation.clip`."""
    return tf.maximum(feature, tf.cast(FLOOR, feature.dtype))


# --- DFA, Eqn 11: the squared distance of two maps, each divided by its norm ----------------------


def normalized_l2(x, y):
    """Computes `dfa_tf.bilevel.dfa_search.normalized_l2`."""

    # |x/|x| - y/|y||^2 = 2 - 2 <x, y> / (|x| |y|), so the normalized maps are not needed. If a
    # squared norm is below TINY, its map is divided by the root of TINY instead.
    @tf.custom_gradient
    def distance(x, y):
        xy, xx, yy = (tf.reduce_sum(sums, 1) for sums in _inner_products(x, y))
        x2, y2 = tf.maximum(xx, TINY), tf.maximum(yy, TINY)
        scale = tf.math.rsqrt(x2 * y2)  # 1 / (|x| |y|)

        def gradient(upstream):
            across = -2.0 * upstream * scale
            along = 2.0 * upstream * xy * scale**3
            along_x = tf.where(xx > TINY, along * y2, 2.0 * upstream / TINY)
            along_y = tf.where(yy > TINY, along * x2, 2.0 * upstream / TINY)
            return _combined(across, y, along_x, x), _combined(across, x, along_y, y)

        return xx / x2 + yy / y2 - 2.0 * xy * scale, gradient

    return distance(x, y)


@fused
def _inner_products(x, y):
    return [slice_sums(lambda a, b: a * b, *pair) for pair in ((x, y), (x, x), (y, y))]


@fused
def _combined(p, x, q, y):
    """Returns p x + q y, where p and q hold one number for each example."""
    p, q = (tf.reshape(factor, [-1, 1, 1, 1]) for factor in (p, q))
    return tf.cast(p * tf.cast(x, tf.float32) + q * tf.cast(y, tf.float32), x.dtype)


# --- The partial L2 of Heo et al., used as L2 in DFA's Eqn 3 --------------------------------------


def partial_l2(student, target, margin=FLOOR):
    """Computes `dfa_tf.methods.feature_distillation.partial_l2`."""

    @tf.custom_gradient
    def distance(student, target):
        def gradient(upstream):
            return _partial_gradient(2.0 * upstream, student, target, margin), None

        return tf.reduce_sum(_partial_squares(student, target, margin), 1), gradient

    return distance(student, tf.cast(target, student.dtype))


def _partial_difference(student, target, margin):
    target = tf.maximum(tf.cast(target, tf.float32), margin)
    difference = tf.cast(student, tf.float32) - target
    return tf.where(target > 0, difference, tf.nn.relu(difference))


@fused
def _partial_squares(student, target, margin):
    return slice_sums(lambda s, t: tf.square(_partial_difference(s, t, margin)), student, target)


@fused
def _partial_gradient(factors, student, target, margin):
    factors = tf.reshape(factors, [-1, 1, 1, 1])
    return tf.cast(factors * _partial_difference(student, target, margin), student.dtype)


# --- Layers ---------------------------------------------------------------------------------------


def relu(x):
    """Computes a ReLU, with a fused gradient in bfloat16."""
    if x.dtype != tf.bfloat16:
        return tf.nn.relu(x)

    @tf.custom_gradient
    def rectified(x):
        y = tf.nn.relu(x)
        return y, lambda upstream: _where_positive(upstream, y)

    return rectified(x)


@tf.custom_gradient
def _where_positive(upstream, y):
    # Linear in `upstream`, and constant in y wherever there is a derivative.
    return _relu_gradient(upstream, y), lambda u: (_where_positive(u, y), None)


@fused
def _relu_gradient(upstream, y):
    return tf.where(y > 0, upstream, tf.zeros_like(upstream))


def repeated(x, rows, columns):
    """Repeats each element of maps `[B, H, W, C]`, `rows` times along H and `columns` along W.

    TensorFlow's operations for this are slow in the second derivative, in bfloat16 above all.
    """

    @tf.custom_gradient
    def repeat(x):
        return _repeat(x, rows, columns), lambda upstream: add_up(upstream)

    @tf.custom_gradient
    def add_up(y):
        return _sum_of_repeats(y, rows, columns), lambda upstream: repeat(upstream)

    return repeat(x)


@fused
def _repeat(x, rows, columns):
    height, width, channels = x.shape[1:]
    cells = tf.reshape(x, [-1, height, 1, width, 1, channels])
    cells = tf.broadcast_to(cells, [tf.shape(x)[0], height, rows, width, columns, channels])
    return tf.reshape(cells, [-1, height * rows, width * columns, channels])


@fused
def _sum_of_repeats(y, rows, columns):
    height, width, channels = y.shape[1:]
    cells = tf.reshape(y, [-1, height // rows, rows, width // columns, columns, channels])
    parts = [cells[:, :, i, :, j] for i in range(rows) for j in range(columns)]
    return tf.cast(tf.add_n([tf.cast(part, tf.float32) for part in parts]), y.dtype)


@fused
def affine(x, scale, offset, rectify):
    """Computes x * scale + offset for a map `[B, H, W, C]`, then a ReLU if `rectify` is set."""
    y = tf.cast(x, tf.float32) * scale + offset
    return tf.cast(tf.nn.relu(y) if rectify else y, x.dtype)
