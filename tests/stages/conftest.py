"""One small run of all stages, shared by the tests that only look at its results."""

import dataclasses
import os
import signal

import pytest

from dfa_tf import data
from dfa_tf.alpha import fixed
from dfa_tf.stages.distill import distill
from dfa_tf.stages.folder import Record
from dfa_tf.stages.search import search
from dfa_tf.stages.teacher import train_teacher
from dfa_tf.training.optimizers import SGD, Adam, Cosine
from dfa_tf.training.recipe import Training
from dfa_tf.training.runtime import Runtime
from tests.conftest import made_examples, small_network

RECIPE = [field.name for field in dataclasses.fields(Training)]


@dataclasses.dataclass
class Run:
    """The arguments of each stage on made data. A test changes what it is about."""

    workdir: object
    runtime: Runtime = Runtime(quiet=True, log_every=4, evaluate_every=1e9)

    def __post_init__(self):
        everything = made_examples(120)
        self.train, self.validation = data.stratified_split(everything, 0.3, seed=0)
        self.everything, self.test = everything, made_examples(37, seed=9)
        self.teacher = small_network(depth=22, seed=1)
        self.training = Training(
            epochs=1,
            batch_size=12,
            augmentation=data.Augmentation(pad=1, flip=True),
            optimizer=SGD(Cosine(0.05)),
        )

    def _arguments(self, changes, **arguments):
        """The arguments of a stage. Changes of the recipe are given by their field."""
        recipe = {name: changes.pop(name) for name in RECIPE if name in changes}
        common = {
            "workdir": self.workdir,
            "runtime": self.runtime,
            "training": dataclasses.replace(self.training, **recipe),
        }
        return common | arguments | changes

    def train_teacher(self, **changes):
        arguments = self._arguments(
            changes,
            network=small_network(depth=22, seed=1),
            train=self.everything,
            test=self.test,
        )
        return train_teacher(**arguments)

    def search(self, **changes):
        arguments = self._arguments(
            changes,
            teacher=self.teacher,
            student=small_network(depth=10, seed=2),
            train=self.train,
            validation=self.validation,
            beta_optimizer=Adam(0.1),
            record=Record("made"),
        )
        return search(**arguments)

    def distill(self, **changes):
        """A distillation; without `alpha`, from the average of the teacher's features."""
        arguments = self._arguments(
            changes,
            teacher=self.teacher,
            student=small_network(depth=10, seed=3),
            train=self.everything,
            test=self.test,
            record=Record("made"),
        )
        if arguments["teacher"] is not None and "alpha" not in changes:
            arguments = {"alpha": fixed("average", arguments["teacher"])} | arguments
        return distill(**arguments)


def stop_at(monkeypatch, target, name, count):
    """Sends SIGTERM to this process at the `count`-th call of a function."""
    original, calls = getattr(target, name), []

    def stopping(*args, **kwargs):
        calls.append(1)
        if len(calls) == count:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*args, **kwargs)

    monkeypatch.setattr(target, name, stopping)


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A Run whose workdir holds all three stages, with their results."""
    run = Run(tmp_path_factory.mktemp("finished"))
    run.trained = run.train_teacher()
    run.alpha = run.search()
    run.student = run.distill(alpha=run.alpha)
    return run
