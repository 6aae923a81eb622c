"""Gin configs. Nothing else in the package imports gin."""

from dfa_tf.config.config import NETWORKS, Bindings, Config
from dfa_tf.config.gin_files import find_gin_file, shipped_folder

__all__ = ["NETWORKS", "Bindings", "Config", "find_gin_file", "shipped_folder"]
