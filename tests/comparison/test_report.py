"""bin/report: hand-worked means and spreads, and nothing hidden."""

import csv
import dataclasses
import io
import json

import pytest

from dfa_tf.alpha import Alpha, GroupAlpha
from dfa_tf.comparison import paper, runs
from dfa_tf.comparison.report import Report, spread

PAPER = paper.Reference("A to B", "cifar100", {"KD": 73.35})


def _workdir(folder, accuracy=None, *, method="kd", aggregation=None, seed=0, **changes):
    """A workdir as a distillation leaves it; without an accuracy, one that is not finished."""
    stage = folder / "distill"
    (stage / "checkpoints").mkdir(parents=True)
    if accuracy is None:
        (stage / "config.gin").write_text("")
        (stage / "checkpoints" / "step-40.index").write_text("")
        return folder
    metrics = {
        "seed": seed,
        "steps": 100,
        "epochs": 2,
        "train_examples": 640,
        "last": {"accuracy": accuracy, "loss": 1.0},
        "best": {"accuracy": accuracy + 0.01, "step": 50},
        "curve": [[50, accuracy + 0.01, 1.0], [100, accuracy, 1.0]],
        "seconds": 30.0,
        "images_per_second": 200.0,
        "parameters": 1234,
        "dataset": "cifar100",
        "teacher": "WRN_28_2",
        "student": "WRN_16_1",
        "method": method,
        "aggregation": aggregation,
        "pretraining": [],
    }
    (stage / "metrics.json").write_text(json.dumps(metrics | changes))
    (stage / "student.keras").write_text("")
    (stage / "config.gin").write_text("")
    return folder


def _rows(report):
    (methods,) = report.settings().values()
    heading, *rows = report.rows(methods)
    return {row[0]: dict(zip(heading, row, strict=True)) for row in rows}


def test_mean_and_deviation_by_hand():
    """50, 52 and 54 % are 52 +- 2 (n - 1)."""
    assert spread([0.50, 0.52, 0.54]) == "52.00 +- 2.00"
    assert spread([0.5]) == "50.00"
    assert spread([]) == ""


def test_seeds_of_a_method_are_one_row(tmp_path):
    for seed, accuracy in enumerate((0.50, 0.52, 0.54)):
        _workdir(tmp_path / f"kd{seed}", accuracy, seed=seed)
    _workdir(tmp_path / "plain", 0.4, method="plain", aggregation="none", teacher=None)
    rows = _rows(Report(runs.found([tmp_path]), reference=PAPER))
    assert rows["KD"]["n"] == "3"
    assert rows["KD"]["last epoch, %"] == "52.00 +- 2.00"
    assert rows["KD"]["best epoch, %"] == "53.00 +- 2.00"
    assert rows["KD"]["paper, A to B, %"] == "73.35"
    assert rows["Student"]["last epoch, %"] == "40.00"
    assert (rows["KD"]["parameters"], rows["KD"]["images/s"]) == ("1,234", "200")


def test_seconds_are_of_all_that_the_method_needs(tmp_path):
    """30 of the training, 12 of a pretraining, 100 of the search."""
    _workdir(
        tmp_path / "dfa",
        0.5,
        method="dfa",
        aggregation="search",
        pretraining=[{"method": "x", "seconds": 12.0}],
    )
    (tmp_path / "dfa" / "search").mkdir()
    (tmp_path / "dfa" / "search" / "metrics.json").write_text('{"seconds": 100.0}')
    assert _rows(Report(runs.found([tmp_path])))["DFA"]["seconds"] == "142"


def test_runs_of_other_data_or_length_are_tables_of_their_own(tmp_path):
    _workdir(tmp_path / "a", 0.5)
    _workdir(tmp_path / "b", 0.6, steps=200)
    _workdir(tmp_path / "c", 0.7, train_examples=50_000)
    assert len(Report(runs.found([tmp_path])).settings()) == 3


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
def test_methods_are_called_as_in_the_literature(method, aggregation, title):
    assert runs.titled(method, aggregation) == title


def _bound(folder, **bindings):
    lines = ["# What distill was run with.", "# flag --seed = 3", 'keras_file.path = "/a/b"']
    lines += [f"{name.replace('__', '.')} = {value}" for name, value in bindings.items()]
    (folder / "distill" / "config.gin").write_text("\n".join(lines))


def test_runs_of_other_bindings_are_no_seeds_of_each_other(tmp_path):
    for name, tau in (("a", 4.0), ("b", 4.0), ("c", 8.0)):
        _bound(_workdir(tmp_path / name, 0.5, seed=ord(name)), kd__temperature=tau, kd__alpha=0.9)
    report = Report(runs.found([tmp_path, tmp_path / "a"]), reference=PAPER)
    rows = _rows(report)
    assert set(rows) == {"KD (kd.temperature = 4.0)", "KD (kd.temperature = 8.0)"}
    assert rows["KD (kd.temperature = 4.0)"]["n"] == "2"  # a is counted once
    assert rows["KD (kd.temperature = 8.0)"]["paper, A to B, %"] == "73.35"
    assert not report.notes


def test_seed_that_is_there_twice_is_told(tmp_path):
    for name in "ab":
        _bound(_workdir(tmp_path / name, 0.5, seed=1))
    report = Report(runs.found([tmp_path]))
    assert _rows(report)["KD"]["n"] == "1"
    (note,) = report.notes
    assert "one seed several times" in note


def test_damaged_metrics_are_told(tmp_path):
    (_workdir(tmp_path / "run") / "distill" / "metrics.json").write_text('{"a":')
    assert runs.read(tmp_path / "run").note == "its metrics.json cannot be read"


def test_workdir_that_has_only_a_teacher_is_named(tmp_path):
    (tmp_path / "early" / "teacher").mkdir(parents=True)
    (tmp_path / "early" / "teacher" / "config.gin").write_text("")
    (line,) = Report(runs.found([tmp_path])).unfinished
    assert line == f"missing, no distillation in it: {tmp_path / 'early'}"


def test_papers_numbers_stand_beside_the_papers_data_only(tmp_path):
    _workdir(tmp_path / "digits", 0.5, dataset="digits")
    assert "paper, A to B, %" not in _rows(Report(runs.found([tmp_path]), reference=PAPER))["KD"]


def test_unfinished_run_tells_the_phase_it_is_in(tmp_path):
    first = tmp_path / "run" / "distill" / "pretraining_ab" / "checkpoints"
    first.mkdir(parents=True)
    (first / "step-90.index").write_text("")
    assert runs.read(tmp_path / "run").note == "saved at step 90 of its pretraining by ab"
    (tmp_path / "run" / "distill" / "checkpoints").mkdir()
    (tmp_path / "run" / "distill" / "checkpoints" / "step-5.index").write_text("")
    assert runs.read(tmp_path / "run").note == "saved at step 5"


def test_unfinished_and_missing_runs_are_named(tmp_path):
    _workdir(tmp_path / "half")
    _workdir(tmp_path / "done", 0.5)
    report = Report(runs.found([tmp_path / "half", tmp_path / "done", tmp_path / "gone"]))
    assert report.unfinished == [
        f"unfinished, saved at step 40: {tmp_path / 'half'}",
        f"missing, no such folder: {tmp_path / 'gone'}",
    ]
    for text in (report.text(), report.markdown()):
        assert all(line in text for line in report.unfinished)


def test_report_is_written_as_markdown_csv_and_a_figure(tmp_path):
    for seed in range(2):
        _workdir(tmp_path / "runs" / f"kd{seed}", 0.5 + 0.02 * seed, seed=seed)
    _workdir(tmp_path / "runs" / "half")
    Report(runs.found([tmp_path / "runs"])).write(tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    figures = {
        f"{name}.{kind}" for name in ("accuracy", "accuracy_bars") for kind in ("png", "pdf")
    }
    assert names == {"report.md", "report.csv", *figures}
    assert "| KD | 2 | 51.00 +- 1.41 |" in (tmp_path / "out" / "report.md").read_text()
    lines = list(csv.DictReader(io.StringIO((tmp_path / "out" / "report.csv").read_text())))
    told = {line["workdir"].rsplit("/", 1)[1]: line for line in lines}
    assert told["kd1"]["last_accuracy"] == "0.52"
    assert (told["kd1"]["seed"], told["kd1"]["state"]) == ("1", "finished")
    assert (told["half"]["state"], told["half"]["last_accuracy"]) == ("unfinished", "")


def test_papers_numbers_of_a_pair():
    """Table 2's last row is pair (3); Table 5 names its columns by the student."""
    numbers = paper.REFERENCES["pair3"].percent
    assert (numbers["Student"], numbers["DFA"], numbers["Margin"]) == (73.42, 75.85, 75.51)
    assert (numbers["Random"], numbers["Last"], numbers["Average"]) == (74.25, 75.51, 74.11)
    assert paper.REFERENCES["pair1"].percent["FitNets"] == 78.17
    table4 = paper.REFERENCES["cinic10_pair2"].percent
    assert (table4["Teacher"], table4["Student"], table4["DFA-T"]) == (86.14, 77.34, 79.45)


def _searched(folder, last, seed=0):
    """A workdir whose search ended with this weight of the last of two features."""
    _workdir(folder, 0.5, method="dfa", aggregation="search", seed=seed)
    group = GroupAlpha(
        "group1",
        ["group1_block1", "group1_block2"],
        [0.0, 0.0],
        [1 - last, last],
        [[0, [0.01, 0.99]], [10, [1 - last, last]]],
        [0.002, -0.002],
        [-0.001, 0.003],
    )
    (folder / "search").mkdir()
    Alpha("cifar100", "T", "S", seed, 10, [group]).save(folder / "search/alpha.json")
    (folder / "search/metrics.json").write_text('{"seconds": 1.0, "steps": 10, "epochs": 2}')


def test_alpha_of_the_seeds_is_told_with_the_two_forces_that_move_it(tmp_path):
    """.8 and .9 are .850 +- .071; gradients in thousandths."""
    for seed, last in enumerate((0.8, 0.9)):
        _searched(tmp_path / str(seed), last, seed)
    report = Report(runs.found([tmp_path]))
    assert report.searches.steps_per_epoch == 5
    heading, first, second = report.searches.rows()
    assert first[:4] == ("DFA", "2", "group1", "block1")
    told = dict(zip(heading, second, strict=True))
    assert told["alpha"] == "0.850 +- 0.071"
    assert told["loss gradient, 1e-3"] == "-2.000 +- 0.000"
    assert told["decay, 1e-3"] == "3.000 +- 0.000"
    assert "| DFA | 2 | group1 | block2 | 0.850 +- 0.071 |" in report.markdown()
    report.write(tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"alpha_heatmap.png", "alpha_trajectories.pdf"} <= names


def test_rows_of_an_experiment_are_not_told_apart_by_their_bindings(tmp_path):
    for seed, weight in ((0, 1e-3), (1, 1e-4)):
        folder = _workdir(tmp_path / str(seed), 0.5, seed=seed)
        _bound(folder, **{"distill__aggregation": f'"/alpha_{weight}.json"'})
    named = [dataclasses.replace(run, row="DFA-T") for run in runs.found([tmp_path])]
    assert _rows(Report(named))["DFA-T"]["n"] == "2"


def test_experiment_of_searches_tells_those_that_lack(tmp_path):
    _searched(tmp_path / "done", 0.8)
    both = [runs.read(tmp_path / name) for name in ("done", "gone")]
    named = [dataclasses.replace(run, row="decay alone") for run in both]
    report = Report(named, of_searches=True)
    assert "decay alone  1  group1  block2" in report.text()
    assert f"no finished search in {tmp_path / 'gone'}" in report.text()
    report.write(tmp_path / "out")
    assert not (tmp_path / "out" / "report.csv").exists()
