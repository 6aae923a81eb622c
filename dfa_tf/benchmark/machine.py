"""The peak performance of the machine, and the peak memory of a step."""

import statistics
import time
from collections.abc import Callable

import tensorflow as tf

from dfa_tf import system
from dfa_tf.stages.metrics import device_name

MATMUL = 4096  # rows and columns
CONVOLUTION = (64, 16, 16, 512)  # batch, height, width, input and output channels; 3x3 kernel
REPEATS = 8


def describe() -> dict[str, str | int]:
    """Returns the device, TensorFlow's numbers of threads, and its version."""
    threading = tf.config.threading
    return {
        "device": device_name(),
        "inter_op_threads": threading.get_inter_op_parallelism_threads(),
        "intra_op_threads": threading.get_intra_op_parallelism_threads(),
        "tensorflow": tf.__version__,
    }


def peak_gflops(dtype: str) -> dict[str, float]:
    """Measures a large matrix product and a large convolution, in GFLOP/s.

    The faster of the two is the peak: a step that consisted of that kernel alone would reach it.

    Args:
        dtype: "float32" or "bfloat16".

    Returns:
        {"matmul": GFLOP/s, "convolution": GFLOP/s}.
    """
    a, b = (tf.cast(tf.random.normal([MATMUL, MATMUL]), dtype) for _ in range(2))
    maps = tf.cast(tf.random.normal(CONVOLUTION), dtype)
    kernel = tf.cast(tf.random.normal([3, 3, CONVOLUTION[3], CONVOLUTION[3]]), dtype)
    batch, height, width, channels = CONVOLUTION
    return {
        "matmul": 2 * MATMUL**3 / _median_seconds(tf.matmul, a, b) / 1e9,
        "convolution": 2
        * (batch * height * width * 9 * channels**2)
        / _median_seconds(lambda x, k: tf.nn.conv2d(x, k, 1, "SAME"), maps, kernel)
        / 1e9,
    }


def peak_memory_during(run: Callable[[], object]) -> int | None:
    """Returns the peak memory while `run()` runs, in bytes.

    It is that of the first GPU, otherwise of this process; None if the system does not report it.
    """
    if tf.config.list_physical_devices("GPU"):
        tf.config.experimental.reset_memory_stats("GPU:0")
        run()
        return tf.config.experimental.get_memory_info("GPU:0")["peak"]
    system.reset_peak_memory()
    run()
    return system.peak_memory_since_reset()


def _median_seconds(function, *arguments):
    compiled = tf.function(function)
    times = []
    for _ in range(REPEATS + 2):
        started = time.perf_counter()
        tf.reduce_sum(tf.cast(compiled(*arguments)[..., :1], tf.float32)).numpy()
        times.append(time.perf_counter() - started)
    return statistics.median(times[2:])  # the first two include tracing
