"""The state of a workdir's distillation, and the titles of methods."""

import json

import pytest

from dfa_tf.alpha import Alpha, GroupAlpha
from dfa_tf.comparison.accuracy import accuracy_tables
from dfa_tf.comparison.runs import (
    FINISHED,
    MISSING,
    UNFINISHED,
    find_runs,
    read_run,
)
from dfa_tf.comparison.titles import method_title
from dfa_tf.process import Process
from tests.comparison.workdirs import write_bindings, write_workdir


@pytest.mark.parametrize(
    ("method", "aggregation", "title"),
    [
        ("plain", "none", "Student"),
        ("dfa", "search", "DFA"),
        ("dfa", "average", "Average"),
        ("dfa", "/elsewhere/alpha.json", "DFA of /elsewhere/alpha.json"),
        ("dfa+kd", "search", "DFA + KD"),
        ("mine", None, "mine"),
    ],
)
def test_methods_have_the_titles_of_the_literature(method, aggregation, title):
    assert method_title(method, aggregation) == title


def test_run_has_the_metrics_of_its_files(tmp_path):
    run = read_run(write_workdir(tmp_path / "run", 0.5, seed=3))
    assert run.state == FINISHED
    assert (run.student.seed, run.student.parameters) == (3, 1234)
    assert (run.student.last_accuracy, run.student.best_accuracy) == (0.5, 0.51)
    assert run.teacher is None
    assert run.search is None


def test_damaged_metrics_are_noted(tmp_path):
    (write_workdir(tmp_path / "run") / "distill" / "metrics.json").write_text('{"a":')
    run = read_run(tmp_path / "run")
    assert run.state == UNFINISHED
    assert "metrics.json" in run.note


@pytest.mark.parametrize("entry", ["method", "last", "student", "pretraining"])
def test_entry_that_metrics_lack_is_noted(tmp_path, entry):
    file = write_workdir(tmp_path / "run", 0.5) / "distill" / "metrics.json"
    content = json.loads(file.read_text())
    del content[entry]
    file.write_text(json.dumps(content))
    run = read_run(tmp_path / "run")
    assert run.state == UNFINISHED
    assert "metrics.json" in run.note
    assert repr(entry) in run.note


def test_workdir_without_a_distillation_is_missing(tmp_path):
    (tmp_path / "early" / "teacher").mkdir(parents=True)
    (tmp_path / "early" / "teacher" / "config.gin").write_text("")
    (run,) = find_runs([tmp_path])
    assert (run.state, run.path) == (MISSING, tmp_path / "early")
    assert "no distillation" in run.note


def test_note_of_an_unfinished_run_has_its_phase_and_step(tmp_path):
    pretraining = tmp_path / "run" / "distill" / "pretraining_ab" / "checkpoints"
    pretraining.mkdir(parents=True)
    assert "checkpoint" in read_run(tmp_path / "run").note
    (pretraining / "step-90.index").write_text("")
    note = read_run(tmp_path / "run").note
    assert "step 90" in note
    assert "pretraining for ab" in note
    (tmp_path / "run" / "distill" / "checkpoints").mkdir()
    (tmp_path / "run" / "distill" / "checkpoints" / "step-5.index").write_text("")
    note = read_run(tmp_path / "run").note
    assert "step 5" in note
    assert "pretraining" not in note


def test_workdir_found_twice_is_read_once(tmp_path):
    write_workdir(tmp_path / "run", 0.5)
    assert len(find_runs([tmp_path, tmp_path / "run"])) == 1


def _row_titles(folder):
    return [row.title for row in accuracy_tables(find_runs([folder]))[0].rows]


@pytest.mark.parametrize(
    ("stage", "metrics"),
    [
        ("search", {"method": "dfa", "aggregation": "search"}),
        ("process", {"method": "pathways", "weighting": "process"}),
        ("teacher", {"method": "kd", "teachers": ["WRN_28_2 0123"]}),
    ],
)
def test_runs_whose_earlier_stages_differ_are_no_seeds_of_one_row(tmp_path, stage, metrics):
    for seed, epochs in enumerate((40, 40, 20)):
        folder = write_workdir(tmp_path / str(seed), 0.5, seed=seed, **metrics)
        write_bindings(folder, distill__epochs=2)
        (folder / stage).mkdir()
        (folder / stage / "config.gin").write_text(
            f"# flag --seed = {seed}\n{stage}.epochs = {epochs}"
        )
    titles = _row_titles(tmp_path)
    assert len(titles) == 2
    for title, epochs in zip(sorted(titles), (20, 40), strict=True):
        assert f"{stage}.epochs = {epochs}" in title


def test_seeds_that_follow_processes_of_their_own_are_one_row(tmp_path):
    for seed in range(3):
        followed = tmp_path / f"followed{seed}.json"
        steps = 100 if seed < 2 else 50
        Process(["kd"], [0], [[1.0]], steps, student="WRN_16_1", seed=seed).save(followed)
        folder = write_workdir(tmp_path / str(seed), 0.5, seed=seed, weighting="process")
        write_bindings(folder, process__file=repr(str(followed)))
    titles = _row_titles(tmp_path)
    assert len(titles) == 2  # a process of another length is another row
    assert not any("json" in title for title in titles)


def test_seeds_that_use_searches_of_their_own_are_one_row(tmp_path):
    for seed in range(3):
        path = f"/elsewhere/{seed}/alpha.json"
        folder = write_workdir(tmp_path / str(seed), 0.5, seed=seed, method="dfa", aggregation=path)
        write_bindings(folder, distill__aggregation=repr(path))
        groups = [GroupAlpha("group1", [], [], [0.5, 0.5])]
        steps = 10 if seed < 2 else 20
        Alpha("", "", "S", seed, steps, groups).save(folder / "distill/alpha.json")
    titles = _row_titles(tmp_path)
    assert len(titles) == 2  # a search of another length is another row
    assert all(title.startswith("DFA of another search") for title in titles)
