"""What the README says can be done, can be done."""

import re

import numpy as np
import pytest

from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()


def test_files_it_names_are_there():
    links = re.findall(r"\]\(((?!http)[^)#]+)\)", README)
    assert links
    for link in links:
        assert (ROOT / link).exists(), link
    for command in re.findall(r"`?(bin/\w+)", README):
        assert (ROOT / command).exists(), command
    for config in re.findall(r"--gin_file=([\w/.]+)", README):
        assert (ROOT / config).exists(), config


@pytest.mark.slow
def test_its_python_example_runs(tmp_path, monkeypatch):
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(example.replace("epochs=5", "epochs=1"), names)
    features = names["out"]["features"]["group2"]
    assert features[-1].shape == (8, 4, 4, 32)
    again = names["student"].tail("group2", features[-1])
    np.testing.assert_allclose(again, names["out"]["logits"], atol=1e-4)
