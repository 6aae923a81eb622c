"""examples/python/search_and_distill.py: all stages in one script."""

import runpy
import sys

import pytest

import dfa_tf
from tests.conftest import ROOT

SCRIPT = ROOT / "examples" / "python" / "search_and_distill.py"


@pytest.mark.slow
def test_tutorial_searches_distils_compares_and_exports(tmp_path, monkeypatch, capsys):
    workdir = tmp_path / "tutorial"
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--tiny", f"--workdir={workdir}"])
    names = runpy.run_path(str(SCRIPT), run_name="__main__")
    printed = capsys.readouterr().out
    for name in ("group1", "group2", "group3", "DFA:", "plain training:", "exported"):
        assert name in printed
    assert dfa_tf.Alpha.load(workdir / "search" / "alpha.json") == names["alpha"]
    assert (workdir / "export" / "student_float32.tflite").is_file()


def test_tutorial_is_short():
    assert len(SCRIPT.read_text().splitlines()) < 80
