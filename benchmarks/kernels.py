"""Element-wise work on feature maps: TensorFlow's operations compared with the fused kernels.

python benchmarks/kernels.py
"""

import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf

from dfa_tf import kernels

SHAPE = (128, 32, 32, 64)  # the maps of WRN_28_4's first group
ROUNDS, REPEATS = 7, 5


def plain_clip(x):
    return tf.maximum(x, tf.cast(-1, x.dtype))


def plain_aggregate(alpha, features):
    weights = tf.unstack(tf.cast(alpha, features[0].dtype))
    return tf.add_n([a * t for a, t in zip(weights, features, strict=True)])


def plain_clipped_average(x, y, z, u):
    return tf.add_n([tf.cast(0.25, x.dtype) * plain_clip(t) for t in (x, y, z, u)])


def plain_normalized_l2(s, a):
    s, a = tf.cast(s, tf.float32), tf.cast(a, tf.float32)
    axes = [1, 2, 3]
    norms = tf.reduce_sum(s * s, axes) * tf.reduce_sum(a * a, axes)
    return 2 - 2 * tf.reduce_sum(s * a, axes) * tf.math.rsqrt(norms)


def plain_partial_l2(s, t):
    t = plain_clip(t)
    difference = tf.where(t > 0, s - t, tf.nn.relu(s - t))
    return tf.reduce_sum(tf.square(tf.cast(difference, tf.float32)), [1, 2, 3])


def fused_aggregate(alpha, features):
    return kernels.aggregate(features, alpha)


def fused_clipped_average(x, y, z, u):
    return kernels.aggregate((x, y, z, u), tf.fill([4], 0.25), clipped=True)


def map_gradient(function):
    """Returns the function whose value is the gradient with respect to the first argument."""

    def gradient(x, *others):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x, *others)
        return tape.gradient(y, x)

    return gradient


def alpha_gradient(aggregate):
    """Returns the function of features whose value is the gradient with respect to alpha."""

    def gradient(*features):
        alpha = tf.fill([len(features)], 0.25)
        with tf.GradientTape() as tape:
            tape.watch(alpha)
            y = aggregate(alpha, features)
        return tape.gradient(y, alpha, features[0])

    return gradient


# Each case: name, number of maps, TensorFlow's operations, the fused kernel.
CASES = [
    ("aggregate, clipped (Eqn 2)", 4, plain_clipped_average, fused_clipped_average),
    ("its gradient for alpha", 4, alpha_gradient(plain_aggregate), alpha_gradient(fused_aggregate)),
    ("clip", 1, plain_clip, kernels.clip),
    (
        "ST loss (Eqn 11) and gradient",
        2,
        map_gradient(plain_normalized_l2),
        map_gradient(kernels.normalized_l2),
    ),
    (
        "partial L2 and gradient",
        2,
        map_gradient(plain_partial_l2),
        map_gradient(kernels.partial_l2),
    ),
    ("ReLU and gradient", 1, map_gradient(tf.nn.relu), map_gradient(kernels.relu)),
]


def timer(function, maps):
    """Returns a function that runs `function(*maps)` and returns its milliseconds."""

    @tf.function(autograph=False)
    def loop(*maps):
        def body(k, checksum):
            with tf.control_dependencies([checksum]):
                y = function(*(tf.identity(m) for m in maps))
            return k + 1, checksum + tf.cast(tf.reshape(y, [-1])[0], tf.float32)

        start = tf.constant(0), tf.constant(0.0)
        return tf.while_loop(lambda k, _: k < REPEATS, body, start, parallel_iterations=1)[1]

    def milliseconds():
        started = time.perf_counter()
        loop(*maps).numpy()
        return 1000 * (time.perf_counter() - started) / REPEATS

    milliseconds()  # traces the loop
    return milliseconds


def main():
    print(f"maps {SHAPE}, milliseconds, median of {ROUNDS} rounds in turn")
    for dtype in (tf.bfloat16, tf.float32):
        maps = [tf.cast(tf.random.normal(SHAPE, seed=k), dtype) for k in range(4)]
        for name, count, plain, fused in CASES:
            timers = [timer(function, maps[:count]) for function in (plain, fused)]
            times = [[milliseconds() for milliseconds in timers] for _ in range(ROUNDS)]
            plain_ms, fused_ms = (statistics.median(column) for column in zip(*times, strict=True))
            ratio = statistics.median(p / f for p, f in times)
            print(
                f"{dtype.name:9} {name:32} {plain_ms:7.1f} one by one {fused_ms:7.1f} fused "
                f"{ratio:6.1f} x"
            )


if __name__ == "__main__":
    main()
