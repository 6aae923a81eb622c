"""What a command works with: its config, data set, devices and workdir."""

import functools
import pathlib
import sys

import tensorflow as tf
from absl import flags as absl_flags

from dfa_tf import system
from dfa_tf.commands.options import DEFAULT_CONFIG, default_workdir
from dfa_tf.config import Config
from dfa_tf.data.dataset import Dataset
from dfa_tf.errors import UserError
from dfa_tf.models.network import Network
from dfa_tf.seeds import derived_seed
from dfa_tf.training.devices import build_strategy, is_chief
from dfa_tf.training.recipe import FLOAT16

STAGES_WITH_PRECISION = ("train_teacher", "search", "search_process", "distill")


class Setup:
    """The setup of a command.

    Args:
        flags: The command's flags (see `options.define`).
        strategy: The strategy to run under; by default the one that --strategy names.

    Attributes:
        config: The parsed config.
        gin_files: Paths of its gin files.
        workdir: Folder of the results.
    """

    def __init__(
        self, flags: absl_flags.FlagValues, strategy: tf.distribute.Strategy | None = None
    ):
        self.flags = flags
        self.gin_files = flags.gin_file or [DEFAULT_CONFIG]
        self.config = Config(self.gin_files, flags.gin_bindings or [])
        self.strategy = strategy or build_strategy(flags.strategy)
        self.is_chief = is_chief(self.strategy)
        self.workdir: pathlib.Path = default_workdir(flags)
        self._warn_of_slow_precision()

    @functools.cached_property
    def dataset(self) -> Dataset:
        """The config's data set. It is read when it is first needed."""
        dataset = self.config.call("dataset", data_dir=self.flags.data_dir)
        for note in dataset.notes:
            self.say(f"dataset: {note}")
        return dataset

    def network(self, role: str, purpose: str = "", number: int = 1) -> tuple[Network, str | None]:
        """Builds a network of the config for the data set.

        Args:
            role: "teacher" or "student".
            purpose: What its initial weights are for; each purpose has its own seed.
            number: Which of several teachers.

        Returns:
            The network, and the path of its file if it is a trained one.

        Raises:
            UserError: If the network cannot be built.
        """
        seed = self.seed(purpose) if purpose else 0
        try:
            return self.config.network(role, self.dataset.task, seed, number)
        except tf.errors.ResourceExhaustedError as error:
            raise UserError(
                f"{role}: expected a network that fits in memory; reduce its width or depth"
            ) from error

    def seed(self, purpose: str) -> int:
        """Returns the seed of one purpose, which follows from --seed."""
        return derived_seed(self.flags.seed, purpose)

    def say(self, line: str) -> None:
        """Prints a line to standard error, once for all workers."""
        if self.is_chief:
            print(line, file=sys.stderr)

    def _warn_of_slow_precision(self):
        precisions = {self.config.value(stage, "precision") for stage in STAGES_WITH_PRECISION}
        on_gpu = bool(tf.config.list_physical_devices("GPU"))
        if "mixed_bfloat16" in precisions and not on_gpu and not system.cpu_has_bfloat16():
            self.say(
                "this CPU emulates bfloat16; --gin_bindings='precision=\"float32\"' is faster here"
            )
        if FLOAT16 in precisions and not on_gpu:
            self.say(
                "mixed_float16 is for GPUs; --gin_bindings='precision=\"float32\"' is faster here"
            )
