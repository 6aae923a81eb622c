"""One small run of all stages, shared by the tests that only look at it."""

import dataclasses

import pytest

from dfa_tf import data
from dfa_tf.stages.distill import distill
from dfa_tf.stages.search import search
from dfa_tf.stages.teacher import train_teacher
from dfa_tf.training.loop import Runtime
from dfa_tf.training.optimizers import SGD, Adam, Cosine
from tests.conftest import made_examples, small_network


@dataclasses.dataclass
class Run:
    """The arguments of each stage on made data; a test changes what it is about."""

    workdir: object
    runtime: Runtime = Runtime(quiet=True, log_every=4, evaluate_every=1e9)

    def __post_init__(self):
        everything = made_examples(120)
        self.train, self.validation = data.stratified_split(everything, 0.3, seed=0)
        self.everything, self.test = everything, made_examples(37, seed=9)
        self.teacher = small_network(depth=22, seed=1)
        self.common = {
            "workdir": self.workdir,
            "batch_size": 12,
            "augmentation": data.Augmentation(pad=1, flip=True),
            "optimizer": SGD(Cosine(0.05)),
            "runtime": self.runtime,
        }

    def train_teacher(self, **changes):
        arguments = self.common | {
            "network": small_network(depth=22, seed=1),
            "train": self.everything,
            "test": self.test,
            "epochs": 1,
        }
        return train_teacher(**arguments | changes)

    def search(self, **changes):
        arguments = self.common | {
            "teacher": self.teacher,
            "student": small_network(depth=10, seed=2),
            "train": self.train,
            "validation": self.validation,
            "epochs": 1,
            "beta_optimizer": Adam(0.1),
            "dataset": "made",
        }
        return search(**arguments | changes)

    def distill(self, **changes):
        arguments = self.common | {
            "teacher": self.teacher,
            "student": small_network(depth=10, seed=3),
            "aggregation": "average",
            "train": self.everything,
            "test": self.test,
            "epochs": 1,
            "dataset": "made",
        }
        return distill(**arguments | changes)


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A Run whose workdir holds all three stages, with what they returned."""
    run = Run(tmp_path_factory.mktemp("finished"))
    run.trained = run.train_teacher()
    run.alpha = run.search()
    run.student = run.distill(alpha=run.alpha, aggregation="search")
    return run
