"""metrics.json: what a stage reached, what it took, and where."""

import platform
import resource
import sys

import keras
import numpy as np
import tensorflow as tf

from dfa_tf import files
from dfa_tf.version import __version__


def write_metrics(folder, seed, network, facts, **more):
    """Writes the metrics.json of a stage.

    facts: from `fit`, or the like. network: whose trainable parameters are counted.
    more: further entries.
    """
    metrics = {
        "stage": folder.stage,
        "seed": seed,
        **facts,
        "parameters": parameter_count(network),
        "peak_memory_bytes": _peak_memory(),
        "versions": {
            "dfa_tf": __version__,
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "numpy": np.__version__,
        },
        "device": device_name(),
        **more,
    }
    files.write_json(folder.path / "metrics.json", metrics)
    return metrics


def parameter_count(network):
    """Trainable parameters, as papers count them."""
    return sum(int(np.prod(variable.shape)) for variable in network.trainable_variables)


def _peak_memory():
    """Bytes: of the first GPU, else of this process so far."""
    if tf.config.list_physical_devices("GPU"):
        return tf.config.experimental.get_memory_info("GPU:0")["peak"]
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def device_name():
    """How many of what: the GPUs, else the processor's threads and its name."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        name = tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU")
        return f"{len(gpus)} x {name}"
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            lines = [
                line.split(":", 1)[1].strip()
                for line in file
                if ":" in line and line.startswith("model name")
            ]
        return f"{len(lines)} x {lines[0]}"
    except (OSError, IndexError):
        return model
