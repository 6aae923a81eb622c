"""The metrics.json of a stage: its results, duration, memory, versions and device."""

import dataclasses
import platform
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dfa_tf import files, system
from dfa_tf.errors import UserError
from dfa_tf.models.network import Network
from dfa_tf.stages.folder import StageFolder
from dfa_tf.version import __version__


def write_metrics(
    folder: StageFolder, seed: int, network: Network, result: Any, **entries: Any
) -> None:
    """Writes the metrics.json of a stage.

    Args:
        folder: The stage's folder.
        seed: Seed of the run.
        network: The network whose trainable parameters are counted.
        result: A dataclass of entries, such as `TrainingResult`.
        **entries: Further entries.
    """
    metrics = {
        "stage": folder.stage,
        "seed": seed,
        **_entries(result),
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
        **entries,
    }
    files.write_json(folder.path / "metrics.json", metrics)


def check_artifact(folder: StageFolder, found: str) -> None:
    """Checks that a stage's result is the one that its metrics.json describes.

    Args:
        folder: The stage's folder.
        found: What identifies the result: the `fingerprint` of a network, or a digest.

    Raises:
        UserError: If it was replaced by another one.
    """
    recorded = files.read_json(folder.path / "metrics.json").get("artifact")
    if recorded and recorded != found:
        raise UserError(
            f"{folder.artifact}: expected the result that this stage saved, {recorded}, got "
            f"{found}; restore the file, or choose another --workdir"
        )


def _entries(result):
    """Returns the fields of a result, without those that are written elsewhere."""
    fields = {f.name for f in dataclasses.fields(result) if f.metadata.get("metrics", True)}
    return {name: v for name, v in dataclasses.asdict(result).items() if name in fields}


def parameter_count(network: Network) -> int:
    """Returns the number of trainable parameters, as papers count them."""
    return sum(int(np.prod(variable.shape)) for variable in network.trainable_variables)


def _peak_memory():
    """Returns the peak memory in bytes of the first GPU, or of this process without a GPU."""
    if tf.config.list_physical_devices("GPU"):
        return tf.config.experimental.get_memory_info("GPU:0")["peak"]
    return system.peak_memory()


def device_name() -> str:
    """Returns the number and name of the GPUs, or without GPUs those of the CPU threads."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        name = tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU")
        return f"{len(gpus)} x {name}"
    return system.cpu_name()
