"""The README: its length, the files that it names, and its Python example."""

import re

import numpy as np
import pytest

from dfa_tf import models
from dfa_tf.methods import METHODS
from tests.conftest import ROOT, same

README = (ROOT / "README.md").read_text()
USAGE = (ROOT / "docs" / "usage.md").read_text()
LONGEST = 6500  # characters


def test_readme_is_short():
    assert len(README) <= LONGEST


def test_commands_and_configs_of_the_readme_exist():
    commands, configs = re.findall(r"(?<!/)bin/\w+", README), re.findall(r"gin/[\w/]+\.gin", README)
    assert commands
    assert configs
    for path in (*commands, *configs):
        assert (ROOT / path).is_file(), path


def test_readme_lists_all_networks_and_methods():
    for name in (*models.NETWORKS, *METHODS):
        assert f"`{name}`" in README, name


@pytest.mark.slow
def test_python_examples_of_readme_and_usage_run(tmp_path, monkeypatch):
    """The examples of docs/usage.md continue that of the README."""
    (first,) = _python(README)
    names = {}
    monkeypatch.chdir(tmp_path)
    for code in (first, *_python(USAGE)):
        exec(code.replace("epochs=5", "epochs=1"), names)
    saved = models.load(tmp_path / "runs/mine/distill/student.keras")
    assert same(saved.get_weights(), names["student"].get_weights())
    assert [group.name for group in names["alpha"].groups] == ["group1", "group2", "group3"]
    assert all(group.alpha[-1] < 0.985 for group in names["alpha"].groups)  # from 0.99
    assert names["out"]["features"]["group2"][-1].shape == (8, 4, 4, 32)
    np.testing.assert_allclose(names["logits"], names["out"]["logits"], atol=1e-4)


def _python(text):
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)
