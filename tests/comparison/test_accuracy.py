"""Accuracy tables: means and deviations worked by hand, and which runs share a row."""

import dataclasses
import json

from dfa_tf.comparison import paper
from dfa_tf.comparison.accuracy import mean_and_deviation
from dfa_tf.comparison.report import Report
from dfa_tf.comparison.runs import find_runs
from tests.comparison.workdirs import write_bindings, write_workdir

PAPER = paper.Reference("A to B", "cifar100", {"KD": 73.35})


def _rows(report):
    """Returns {title of the row: {column: text}} of a report with one table."""
    (table,) = report.tables
    heading, *rows = table.cells(report.reference)
    return {row[0]: dict(zip(heading, row, strict=True)) for row in rows}


def test_mean_and_deviation_by_hand():
    """50, 52 and 54 % are 52 +- 2 (n - 1)."""
    assert mean_and_deviation([0.50, 0.52, 0.54]) == "52.00 +- 2.00"
    assert mean_and_deviation([0.5]) == "50.00"
    assert mean_and_deviation([]) == ""


def test_seeds_of_a_method_share_a_row(tmp_path):
    for seed, accuracy in enumerate((0.50, 0.52, 0.54)):
        write_workdir(tmp_path / f"kd{seed}", accuracy, seed=seed)
    write_workdir(tmp_path / "plain", 0.4, method="plain", aggregation="none", teacher=None)
    rows = _rows(Report(find_runs([tmp_path]), reference=PAPER))
    assert rows["KD"]["n"] == "3"
    assert rows["KD"]["last epoch, %"] == "52.00 +- 2.00"
    assert rows["KD"]["best epoch, %"] == "53.00 +- 2.00"
    assert rows["KD"]["paper, A to B, %"] == "73.35"
    assert rows["Student"]["last epoch, %"] == "40.00"
    assert (rows["KD"]["parameters"], rows["KD"]["images/s"]) == ("1,234", "200")


def test_seconds_include_search_and_pretraining(tmp_path):
    """30 of the training, 12 of a pretraining, 100 of the search."""
    write_workdir(
        tmp_path / "dfa",
        0.5,
        method="dfa",
        aggregation="search",
        pretraining=[{"method": "x", "seconds": 12.0}],
    )
    (tmp_path / "dfa" / "search").mkdir()
    (tmp_path / "dfa" / "search" / "metrics.json").write_text('{"seconds": 100.0}')
    assert _rows(Report(find_runs([tmp_path])))["DFA"]["seconds"] == "142"


def test_runs_with_other_data_or_length_have_their_own_tables(tmp_path):
    write_workdir(tmp_path / "a", 0.5)
    write_workdir(tmp_path / "b", 0.6, steps=200)
    write_workdir(tmp_path / "c", 0.7, train_examples=50_000)
    write_workdir(tmp_path / "d", 0.8, dataset="other")
    write_workdir(tmp_path / "e", 0.9, student="other")
    assert len(Report(find_runs([tmp_path])).tables) == 5


def test_rows_of_an_experiment_may_differ_in_length(tmp_path):
    write_workdir(tmp_path / "a", 0.5, epochs=2)
    write_workdir(tmp_path / "b", 0.6, steps=200, epochs=4)
    titles = {"a": "short", "b": "long"}
    runs = find_runs([tmp_path])
    report = Report([dataclasses.replace(run, row_title=titles[run.path.name]) for run in runs])
    rows = _rows(report)
    assert (rows["short"]["epochs"], rows["long"]["epochs"]) == ("2", "4")
    assert "100 to 200 steps" in report.tables[0].title


def test_cost_in_passes_and_agreement_with_the_teachers(tmp_path):
    """Five teachers over 4 epochs see each image 20 times; 0.6 and 0.8 are 70 +- 14.14 %."""
    for seed, agreement in enumerate((0.6, 0.8)):
        more = {"method": "feed", "teachers": list("abcde"), "epochs": 4, "agreement": agreement}
        write_workdir(tmp_path / str(seed), 0.5, seed=seed, **more)
    write_workdir(tmp_path / "plain", 0.5, method="plain", teacher=None, epochs=4)
    rows = _rows(Report(find_runs([tmp_path])))
    assert rows["FEED of 5"]["teacher passes"] == "20"
    assert rows["FEED of 5"]["agreement, %"] == "70.00 +- 14.14"
    assert (rows["Student"]["teacher passes"], rows["Student"]["agreement, %"]) == ("0", "")


def test_runs_with_cached_logits_have_a_row_and_a_cost_of_their_own(tmp_path):
    """Two teachers see each image in 4 of 20 epochs: 8 passes."""
    common = {"teachers": ["a", "b"], "epochs": 20}
    write_workdir(tmp_path / "0", 0.5, **common)
    write_workdir(tmp_path / "1", 0.5, **common, teacher_views=4)
    rows = _rows(Report(find_runs([tmp_path])))
    assert rows["KD of 2"]["teacher passes"] == "40"
    assert rows["KD of 2, 4 views"]["teacher passes"] == "8"


def test_top_5_and_calibration_error_of_students_and_teachers(tmp_path):
    """0.8 and 0.9 are 85 +- 7.07 %. A run of an earlier version has neither metric."""
    for seed, top_5 in enumerate((0.8, 0.9)):
        last = {"accuracy": 0.5, "top_5_accuracy": top_5, "calibration_error": 0.1}
        folder = write_workdir(tmp_path / str(seed), 0.5, seed=seed, last=last)
        teacher = {"steps": 9, "last": last | {"accuracy": 0.6}, "best": None, "parameters": 7}
        (folder / "teacher").mkdir()
        (folder / "teacher/metrics.json").write_text(json.dumps(teacher))
    write_workdir(tmp_path / "plain", 0.4, method="plain", teacher=None)
    rows = _rows(Report(find_runs([tmp_path])))
    assert rows["KD"]["top-5, %"] == "85.00 +- 7.07"
    assert rows["KD"]["calibration error, %"] == "10.00 +- 0.00"
    assert rows["Student"]["top-5, %"] == ""
    assert rows["Teacher WRN_28_2"]["calibration error, %"] == "10.00"  # both have accuracy 0.6


def test_teachers_share_a_row_and_a_later_generation_has_no_teacher_row(tmp_path):
    for seed, accuracy in enumerate((0.6, 0.7, 0.7)):
        generation = 2 if seed < 2 else 3  # its teacher is the student of generation 2
        folder = write_workdir(tmp_path / str(seed), 0.5, seed=seed, generation=generation)
        teacher = {"steps": 9, "last": {"accuracy": accuracy}, "best": None, "parameters": 7}
        (folder / "teacher").mkdir()
        (folder / "teacher/metrics.json").write_text(json.dumps(teacher))
    rows = _rows(Report(find_runs([tmp_path])))
    teachers = {title: row for title, row in rows.items() if title.startswith("Teacher")}
    assert list(teachers) == ["Teacher WRN_28_2"]
    assert teachers["Teacher WRN_28_2"]["n"] == "2"
    assert teachers["Teacher WRN_28_2"]["last epoch, %"] == "65.00 +- 7.07"


def test_validation_accuracies_are_not_reported_as_test_accuracies(tmp_path):
    folder = write_workdir(tmp_path / "a", 0.5, evaluated_on="validation")
    teacher = {"steps": 9, "last": {"accuracy": 0.6}, "best": {"accuracy": 0.7}, "parameters": 7}
    (folder / "teacher").mkdir()
    path = folder / "teacher/metrics.json"
    path.write_text(json.dumps(teacher | {"evaluated_on": "validation"}))
    report = Report(find_runs([tmp_path]))
    rows = _rows(report)
    assert rows["KD, best on validation"]["kept epoch, %"] == "50.00"
    assert rows["Teacher WRN_28_2"]["kept epoch, %"] == "60.00"
    assert not {"last epoch, %", "best epoch, %"} & set(rows["KD, best on validation"])
    assert report.tables[0].curves == {"KD, best on validation": [[]]}


def test_column_without_an_entry_is_omitted(tmp_path):
    write_workdir(tmp_path / "a", 0.5, agreement=None)
    columns = _rows(Report(find_runs([tmp_path])))["KD"]
    for name in ("top-5, %", "calibration error, %", "agreement, %"):
        assert name not in columns


def test_runs_with_other_bindings_have_their_own_rows(tmp_path):
    for name, tau in (("a", 4.0), ("b", 4.0), ("c", 8.0)):
        folder = write_workdir(tmp_path / name, 0.5, seed=ord(name))
        write_bindings(folder, kd__temperature=tau, kd__alpha=0.9)
    report = Report(find_runs([tmp_path, tmp_path / "a"]), reference=PAPER)
    rows = _rows(report)
    assert set(rows) == {"KD (kd.temperature = 4.0)", "KD (kd.temperature = 8.0)"}
    assert rows["KD (kd.temperature = 4.0)"]["n"] == "2"  # a is counted once
    assert rows["KD (kd.temperature = 8.0)"]["paper, A to B, %"] == "73.35"
    assert not report.notes


def test_run_without_a_recorded_config_has_a_row_that_says_so(tmp_path):
    for name in ("recorded", "unknown"):
        write_workdir(tmp_path / name, 0.5, seed=ord(name[0]))
    write_bindings(tmp_path / "recorded", kd__temperature=4.0, kd__alpha=0.9)
    (tmp_path / "unknown" / "distill" / "config.gin").unlink()
    report = Report(find_runs([tmp_path / "recorded", tmp_path / "unknown"]))
    assert set(_rows(report)) == {"KD", "KD (config.gin = missing)"}


def test_bindings_do_not_split_the_row_of_an_experiment(tmp_path):
    for seed, weight in ((0, 1e-3), (1, 1e-4)):
        folder = write_workdir(tmp_path / str(seed), 0.5, seed=seed)
        write_bindings(folder, **{"distill__aggregation": f'"/alpha_{weight}.json"'})
    runs = [dataclasses.replace(run, row_title="DFA-T") for run in find_runs([tmp_path])]
    assert _rows(Report(runs))["DFA-T"]["n"] == "2"


def test_repeated_seed_counts_once_and_is_noted(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_bindings(write_workdir(tmp_path / name, 0.5, seed=seed))
    report = Report(find_runs([tmp_path]))
    assert _rows(report)["KD"]["n"] == "2"
    (note,) = report.notes
    assert "same seed" in note
    assert [str(tmp_path / name) in note for name in "abc"] == [True, True, False]


def test_paper_column_requires_the_papers_data_set(tmp_path):
    write_workdir(tmp_path / "digits", 0.5, dataset="digits")
    rows = _rows(Report(find_runs([tmp_path]), reference=PAPER))
    assert "paper, A to B, %" not in rows["KD"]


def test_references_are_the_numbers_of_the_paper():
    """Table 2's last row is pair (3); Table 5 names its columns by the student."""
    pair3 = paper.REFERENCES["pair3"].percent
    assert (pair3["Student"], pair3["DFA"], pair3["Margin"]) == (73.42, 75.85, 75.51)
    assert (pair3["Random"], pair3["Last"], pair3["Average"]) == (74.25, 75.51, 74.11)
    assert paper.REFERENCES["pair1"].percent["FitNets"] == 78.17
    table4 = paper.REFERENCES["cinic10_pair2"].percent
    assert (table4["Teacher"], table4["Student"], table4["DFA-T"]) == (86.14, 77.34, 79.45)
