"""Element-wise work on maps: TensorFlow's operations one by one beside the package's one pass.

python benchmarks/kernels.py
"""

import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf

from dfa_tf.methods import bridge
from dfa_tf.methods.feature_distillation import partial_l2
from dfa_tf.models.layers import ReLU

SHAPE = (128, 32, 32, 64)  # the maps of WRN_28_4's first group
ROUNDS, REPEATS = 7, 5


def plain_aggregate(x, y, z, u):
    floor = tf.cast(-1, x.dtype)
    return tf.add_n([tf.cast(0.25, x.dtype) * tf.maximum(t, floor) for t in (x, y, z, u)])


def plain_partial_l2(s, t):
    t = tf.maximum(t, tf.cast(-1, t.dtype))
    counted = tf.where(t > 0, s - t, tf.nn.relu(s - t))
    return tf.reduce_sum(tf.square(tf.cast(counted, tf.float32)), [1, 2, 3])


def plain_st_loss(s, a):
    s, a = tf.cast(s, tf.float32), tf.cast(a, tf.float32)
    axes = [1, 2, 3]
    norms = tf.reduce_sum(s * s, axes) * tf.reduce_sum(a * a, axes)
    return 2 - 2 * tf.reduce_sum(s * a, axes) * tf.math.rsqrt(norms)


def gradient(function):
    """Of the sum of what `function` gives, for its first argument."""

    def for_first(x, *others):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x, *others)
        return tape.gradient(y, x)

    return for_first


def for_alpha(aggregate):
    def for_alpha(*features):
        alpha = tf.fill([len(features)], 0.25)
        with tf.GradientTape() as tape:
            tape.watch(alpha)
            y = aggregate(alpha, features)
        return tape.gradient(y, alpha, features[0])

    return for_alpha


def plain_weighted(alpha, features):
    scales = tf.unstack(tf.cast(alpha, features[0].dtype))
    return tf.add_n([s * f for s, f in zip(scales, features, strict=True)])


def relu(x):
    return ReLU(dtype=x.dtype.name)(x)


ALPHA = tf.fill([4], 0.25)
# name, maps it takes, operation by operation, in one pass
CASES = [
    ("aggregate, clipped (Eqn 2)", 4, plain_aggregate, lambda *f: bridge.aggregate(f, ALPHA, True)),
    ("its gradient for alpha", 4, for_alpha(plain_weighted),
     for_alpha(lambda alpha, f: bridge.aggregate(f, alpha))),
    ("clip", 1, lambda x: tf.maximum(x, tf.cast(-1, x.dtype)), bridge.clip),
    ("ST loss (Eqn 11) and gradient", 2, gradient(plain_st_loss), gradient(bridge.st_loss)),
    ("partial L2 and gradient", 2, gradient(plain_partial_l2), gradient(partial_l2)),
    ("ReLU and gradient", 1, gradient(tf.nn.relu), gradient(relu)),
]  # fmt: skip


def timed(function, maps):
    """A function of nothing that gives the milliseconds of one run of `function`."""

    @tf.function(autograph=False)
    def loop(*maps):
        def body(k, seen):
            with tf.control_dependencies([seen]):
                y = function(*(tf.identity(m) for m in maps))
            return k + 1, seen + tf.cast(tf.reshape(y, [-1])[0], tf.float32)

        start = tf.constant(0), tf.constant(0.0)
        return tf.while_loop(lambda k, _: k < REPEATS, body, start, parallel_iterations=1)[1]

    def run():
        began = time.perf_counter()
        loop(*maps).numpy()
        return 1000 * (time.perf_counter() - began) / REPEATS

    run()
    return run


def main():
    print(f"maps {SHAPE}, milliseconds, median of {ROUNDS} rounds in turn")
    for dtype in (tf.bfloat16, tf.float32):
        maps = [tf.cast(tf.random.normal(SHAPE, seed=k), dtype) for k in range(4)]
        for name, count, plain, fused in CASES:
            runs = [timed(function, maps[:count]) for function in (plain, fused)]
            times = [[run() for run in runs] for _ in range(ROUNDS)]
            one, other = (statistics.median(column) for column in zip(*times, strict=True))
            ratio = statistics.median(a / b for a, b in times)
            print(
                f"{dtype.name:9} {name:32} {one:7.1f} one by one {other:7.1f} fused {ratio:6.1f} x"
            )


if __name__ == "__main__":
    main()
