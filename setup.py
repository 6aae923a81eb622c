"""The packages of the distribution. Its metadata is in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    # The shipped configs are in gin/ and are installed as a package of data files.
    packages=[*find_packages(include=["dfa_tf", "dfa_tf.*"]), "dfa_tf.gin_files"],
    package_dir={"dfa_tf.gin_files": "gin"},
    package_data={"dfa_tf": ["py.typed"], "dfa_tf.gin_files": ["*.gin", "*/*.gin"]},
)
