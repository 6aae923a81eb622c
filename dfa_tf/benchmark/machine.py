"""What the machine can do at most, and how much memory a piece of work takes."""

import statistics
import time

import tensorflow as tf

from dfa_tf.stages.metrics import device_name

MATMUL = 4096  # rows and columns
CONVOLUTION = (64, 16, 16, 512)  # batch, height, width, channels in and out; 3x3
REPEATS = 8


def describe():
    """{"device", "cores", "threads", ...}: what was measured on."""
    threading = tf.config.threading
    return {
        "device": device_name(),
        "inter_op_threads": threading.get_inter_op_parallelism_threads(),
        "intra_op_threads": threading.get_intra_op_parallelism_threads(),
        "tensorflow": tf.__version__,
    }


def peak_gflops(dtype):
    """{"matmul", "convolution"}: GFLOP/s of the two largest kernels of TensorFlow, in `dtype`.

    The best of a few medians: what a step could reach if it were one such kernel.
    """
    a, b = (tf.cast(tf.random.normal([MATMUL, MATMUL]), dtype) for _ in range(2))
    maps = tf.cast(tf.random.normal(CONVOLUTION), dtype)
    kernel = tf.cast(tf.random.normal([3, 3, CONVOLUTION[3], CONVOLUTION[3]]), dtype)
    batch, height, width, channels = CONVOLUTION
    return {
        "matmul": 2 * MATMUL**3 / _seconds(tf.matmul, a, b) / 1e9,
        "convolution": 2
        * (batch * height * width * 9 * channels**2)
        / _seconds(lambda x, k: tf.nn.conv2d(x, k, 1, "SAME"), maps, kernel)
        / 1e9,
    }


def _seconds(function, *arguments):
    compiled = tf.function(function)
    times = []
    for _ in range(REPEATS + 2):
        began = time.perf_counter()
        tf.reduce_sum(tf.cast(compiled(*arguments)[..., :1], tf.float32)).numpy()
        times.append(time.perf_counter() - began)
    return statistics.median(times[2:])


class PeakMemory:
    """The most memory that was held since this began: of the first GPU, else of this process."""

    def __init__(self):
        self._gpu = bool(tf.config.list_physical_devices("GPU"))
        if self._gpu:
            tf.config.experimental.reset_memory_stats("GPU:0")
        else:
            try:
                with open("/proc/self/clear_refs", "w") as file:
                    file.write("5")  # the peak starts anew from what is held now
            except OSError:
                pass

    def bytes(self):
        """None where this system does not tell."""
        if self._gpu:
            return tf.config.experimental.get_memory_info("GPU:0")["peak"]
        try:
            with open("/proc/self/status") as file:
                lines = dict(line.split(":", 1) for line in file if ":" in line)
            return int(lines["VmHWM"].split()[0]) * 1024
        except (OSError, KeyError):
            return None
