"""dfa_tf: DFA, Differentiable Feature Aggregation Search for Knowledge Distillation."""

import pathlib
import re

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).parent
COMMANDS = ("train_teacher", "search", "distill", "export", "evaluate", "benchmark")
COMMANDS += ("report", "reproduce")

setup(
    name="dfa_tf",
    version=re.search(r'__version__ = "(.+)"', (ROOT / "dfa_tf/version.py").read_text())[1],
    description="DFA: searches which mixture of a teacher's features a student should learn from, "
    "and distils with it, in TensorFlow and Keras",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    # The shipped configs lie in gin/ and are installed inside of the package.
    packages=[*find_packages(include=["dfa_tf", "dfa_tf.*"]), "dfa_tf.gin_files"],
    package_dir={"dfa_tf.gin_files": "gin"},
    package_data={"dfa_tf.gin_files": ["*.gin", "*/*.gin"]},
    install_requires=[
        "tensorflow>=2.20",
        "keras>=3.12",
        "tensorflow-datasets>=4.9.10",
        "importlib_resources",  # tensorflow-datasets needs it and does not say so
        "absl-py",
        "gin-config>=0.5",
        "tensorboard",
        "matplotlib",
        "tqdm",
        "scikit-learn",
        "pillow",
        "scipy",
        "ai-edge-litert",
        "requests",
        "wrapt",
    ],
    extras_require={
        "gpu": ["tensorflow[and-cuda]>=2.20"],
        "test": ["dill", "pytest", "pytest-xdist", "ruff"],  # dill: for tfds.testing
        "benchmark": ["torch"],  # only benchmarks/ compares with it
    },
    entry_points={
        "console_scripts": [
            f"dfa-{command.replace('_', '-')} = dfa_tf.commands:{command}" for command in COMMANDS
        ]
    },
)
