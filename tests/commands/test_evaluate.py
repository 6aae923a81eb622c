"""bin/evaluate: which models it evaluates, and the checks of --out before that."""

import json
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


@pytest.mark.parametrize(
    ("metrics", "numbers"),
    [
        ({"generation": 4}, [2, 3]),  # generation 10 is left from a longer chain
        ({}, list(range(2, 11))),  # the chain is not finished
        ({"generation": 2}, []),
    ],
)
def test_students_of_the_present_chain_are_evaluated_in_order(
    tmp_path, monkeypatch, metrics, numbers
):
    folders = [tmp_path / f"generation_{k}" / "distill" for k in range(2, 11)]
    for folder in (*folders, tmp_path / "distill"):
        folder.mkdir(parents=True)
        (folder / "student.keras").touch()
    if metrics:
        (tmp_path / "distill" / "metrics.json").write_text(json.dumps(metrics))
    evaluated = []

    def evaluate_path(path, dataset):
        evaluated.append(path)
        return types.SimpleNamespace(metrics={})

    monkeypatch.setattr(evaluate, "evaluate", evaluate_path)
    setup = types.SimpleNamespace(
        flags=types.SimpleNamespace(out=None),
        workdir=tmp_path,
        dataset=types.SimpleNamespace(test=[]),
        config=types.SimpleNamespace(pixel_scale=lambda path: {}),
    )
    evaluate.run(setup, [])
    expected = [tmp_path / f"generation_{k}" / "distill" for k in numbers] + [tmp_path / "distill"]
    assert evaluated == [folder / "student.keras" for folder in expected]
