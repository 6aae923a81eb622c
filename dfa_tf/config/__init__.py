"""Gin configs. Nothing else in the package imports gin."""

from dfa_tf.config.config import Bindings, Config
from dfa_tf.config.gin_files import find_gin_file, shipped_folder
from dfa_tf.config.registry import ROLES

__all__ = ["ROLES", "Bindings", "Config", "find_gin_file", "shipped_folder"]
