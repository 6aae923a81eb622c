"""One export of all kinds, shared by the tests that read its files."""

import dataclasses
import pathlib

import pytest

from dfa_tf.data import Examples
from dfa_tf.models.network import Network
from dfa_tf.stages.export import export
from tests.conftest import made_examples, small_network


@dataclasses.dataclass
class Exported:
    """A finished export, the network it was made from, and the test images."""

    workdir: pathlib.Path
    network: Network
    test: Examples
    report: dict
    class_names: tuple = ("ant", "bee", "cow", "dog")

    @property
    def folder(self):
        return self.workdir / "export"


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("exported")
    network = small_network(depth=10, seed=3)
    network.save(workdir / "student.keras")
    done = Exported(workdir, network, made_examples(37, seed=9), report={})
    done.report = export(
        network=network,
        test=done.test,
        train=made_examples(60, seed=3),
        class_names=done.class_names,
        workdir=workdir,
    )
    return done
