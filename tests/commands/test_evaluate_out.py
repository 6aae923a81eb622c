"""bin/evaluate --out is checked before anything is evaluated."""

import types

import pytest

from dfa_tf.commands import evaluate
from dfa_tf.errors import UserError


def _run(out, *paths):
    """Runs the command without a data set: it must fail before it needs one."""
    setup = types.SimpleNamespace(flags=types.SimpleNamespace(out=str(out)), workdir=None)
    evaluate.run(setup, [str(path) for path in paths])


def test_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=r"file: .*--out"):
        _run(tmp_path / "file", tmp_path / "a" / "student.keras")
    assert (tmp_path / "file").read_text() == "mine"


def test_models_whose_files_would_replace_each_other_are_refused(tmp_path):
    paths = [tmp_path / run / "distill" / "student.keras" for run in ("a", "b")]
    with pytest.raises(UserError, match=r"--out: .*distill_student"):
        _run(tmp_path / "out", *paths)
    assert not (tmp_path / "out").exists()
