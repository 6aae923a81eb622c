"""A fixed order of the sums in TensorFlow functions.

A weight that several paths share has a gradient that is a sum. Grappler's arithmetic optimizer merges
such sums, and can order their terms differently each time it compiles a function. The results of two
compilations then differ by rounding, and a resumed run would differ from an uninterrupted one.
"""

import contextlib
from collections.abc import Iterator

import tensorflow as tf

OPTION = "arithmetic_optimization"


@contextlib.contextmanager
def fixed_summation_order() -> Iterator[None]:
    """Compiles the functions that the `with` block calls without the arithmetic optimizer.

    TensorFlow reads the option when a function is called, not when it is defined. The option belongs to
    the process: use such blocks in one thread at a time.
    """
    before = tf.config.optimizer.get_experimental_options().get(OPTION, True)
    tf.config.optimizer.set_experimental_options({OPTION: False})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({OPTION: before})
