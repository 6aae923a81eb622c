"""Element-wise arithmetic on feature maps in one pass over memory, compiled by XLA.

TensorFlow runs an expression one operation at a time, and each operation reads and writes full
maps. On a CPU this is most of their cost, and bfloat16 operations are slower than float32 ones.
docs/performance.md has the measurements.
"""

import functools
import math

import tensorflow as tf

SLICES = 8


def fused(function):
    """Compiles a function of tensors into one pass over memory.

    The function must be element-wise arithmetic, best in float32, or copies and sums of a few slices;
    for other reductions see `slice_sums`. Non-tensor arguments are compile-time constants.
    """
    compiled = tf.function(function, jit_compile=True, autograph=False)

    @functools.wraps(function)
    def call(*arguments):
        # Variables are read here because the compiled function would confuse replicated variables
        # of the same shape.
        arguments = tf.nest.map_structure(_read, arguments)
        # Static shapes, which the call hides, let TensorFlow fuse the operations that follow.
        return tf.nest.map_structure(lambda x: tf.ensure_shape(x, x.shape), compiled(*arguments))

    return call


def _read(x):
    is_variable = tf.is_tensor(x) and not isinstance(x, tf.Tensor)
    return tf.convert_to_tensor(x) if is_variable else x


def slice_sums(term, *maps):
    """Sums `term(*maps)` over slices of each example's elements; for use within `fused`.

    XLA reduces an axis slowly on a CPU, but adds a few slices at the speed of memory.

    Args:
        term: Element-wise function of float32 tensors.
        *maps: Tensors `[B, ...]` of one shape.

    Returns:
        Float32 tensor `[B, elements / SLICES]`. Its sum over the last axis is the example's sum.
    """
    elements = math.prod(maps[0].shape[1:])
    slices = math.gcd(SLICES, elements)
    rows = [tf.reshape(m, [-1, slices, elements // slices]) for m in maps]
    return tf.add_n(
        [term(*(tf.cast(row[:, k], tf.float32) for row in rows)) for k in range(slices)]
    )
