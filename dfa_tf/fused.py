"""Element-wise arithmetic on maps as one pass over memory, which XLA compiles.

TensorFlow runs an expression one operation after another, and each reads and writes whole maps.
On a CPU that is most of their cost, and its bfloat16 operations are slower than the float32 ones
besides. docs/performance.md has the measurements.
"""

import functools
import math

import tensorflow as tf

SLICES = 8


def fused(function):
    """Decorates a function of tensors that is arithmetic element by element, in float32 best.

    What is no tensor among its arguments is a constant of the compiled function. Not for
    reductions: see `slice_sums`.
    """
    compiled = tf.function(function, jit_compile=True, autograph=False)

    @functools.wraps(function)
    def call(*arguments):
        # Variables are read here: the compiled function would take one replicated variable for
        # another of its shape.
        arguments = tf.nest.map_structure(_read, arguments)
        # The shapes, which a call would hide from TensorFlow's own fusions of what follows.
        return tf.nest.map_structure(lambda x: tf.ensure_shape(x, x.shape), compiled(*arguments))

    return call


def _read(x):
    is_variable = tf.is_tensor(x) and not isinstance(x, tf.Tensor)
    return tf.convert_to_tensor(x) if is_variable else x


def slice_sums(term, *maps):
    """Sums of term(*maps) over a part of each example's elements; for use within `fused`.

    term: of float32 tensors, element by element. maps: [B, ...] each, of one shape. Returns
    [B, elements / SLICES] float32, whose sum over the last axis is the example's: XLA reduces an
    axis slowly on a CPU, but adds up a few slices at the speed of memory.
    """
    elements = math.prod(maps[0].shape[1:])
    slices = math.gcd(SLICES, elements)
    rows = [tf.reshape(m, [-1, slices, elements // slices]) for m in maps]
    return tf.add_n(
        [term(*(tf.cast(row[:, k], tf.float32) for row in rows)) for k in range(slices)]
    )
