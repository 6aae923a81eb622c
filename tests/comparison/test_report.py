"""What bin/report prints and writes, and that no run is omitted silently."""

import csv
import dataclasses
import io

import pytest

from dfa_tf.alpha import Alpha, GroupAlpha
from dfa_tf.comparison.processes import Processes
from dfa_tf.comparison.report import Report
from dfa_tf.comparison.runs import find_runs, read_run
from dfa_tf.process import Process
from tests.comparison.workdirs import write_search, write_workdir


def test_unfinished_and_missing_runs_are_noted(tmp_path):
    write_workdir(tmp_path / "half")
    write_workdir(tmp_path / "done", 0.5)
    report = Report(find_runs([tmp_path / name for name in ("half", "done", "gone")]))
    unfinished, missing = report.notes
    assert unfinished.startswith("unfinished")
    assert "step 40" in unfinished
    assert str(tmp_path / "half") in unfinished
    assert missing.startswith("missing")
    assert str(tmp_path / "gone") in missing
    for text in (report.text(), report.markdown()):
        assert unfinished in text
        assert missing in text


def test_report_is_written_as_markdown_csv_and_figures(tmp_path):
    for seed in range(2):
        write_workdir(tmp_path / "runs" / f"kd{seed}", 0.5 + 0.02 * seed, seed=seed)
    write_workdir(tmp_path / "runs" / "half")
    Report(find_runs([tmp_path / "runs"])).write(tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    figures = {
        f"{name}.{suffix}" for name in ("accuracy", "accuracy_ranking") for suffix in ("png", "pdf")
    }
    assert names == {"report.md", "report.csv", "hparams", *figures}
    assert "| KD | 2 | 51.00 +- 1.41 |" in (tmp_path / "out" / "report.md").read_text()


def test_runs_with_several_alphas_are_written_as_a_figure_over_alpha(tmp_path):
    for seed, last_weight in enumerate((0.2, 0.5, 0.8)):
        folder = write_workdir(
            tmp_path / str(seed), 0.5, method="dfa", aggregation="random", seed=seed
        )
        groups = [GroupAlpha("group1", [], [], [1 - last_weight, last_weight])]
        Alpha("", "", "", seed, 0, groups).save(folder / "distill/alpha.json")
    report = Report(find_runs([tmp_path]))
    assert report.tables[0].last_weights == {"Random": [(0.2, 0.5), (0.5, 0.5), (0.8, 0.5)]}
    report.write(tmp_path / "out")
    assert (tmp_path / "out" / "accuracy_by_last_weight.png").exists()


def test_weights_that_changed_are_written_as_a_figure_over_epochs(tmp_path):
    for seed in range(2):
        more = {"method": "at+kd", "weighting": "adaptive", "seed": seed}
        folder = write_workdir(tmp_path / str(seed), 0.5, **more)
        process = Process(["at", "kd"], [0, 99], [[1.0, 1.0], [2.0, 0.5 + seed]], 100)
        process.save(folder / "distill/process.json")
    report = Report(find_runs([tmp_path]))
    (row,) = report.tables[0].rows
    assert row.title == "Adaptive (AT + KD)"
    assert [process.weights[1][1] for process in row.processes] == [0.5, 1.5]
    report.write(tmp_path / "out")
    assert (tmp_path / "out" / "weights.png").exists()


def test_agreement_of_learnt_weights_between_seeds_is_reported(tmp_path):
    """The means over time are 1.5 and .75 with seed 0, and 1.5 and 1.25 with seed 1. Over paths,
    1.5 and 1 have a deviation of .354; over seeds, 0 and .354 have a mean of .177."""
    for seed in range(2):
        more = {"method": "at+kd", "weighting": "adaptive", "seed": seed}
        folder = write_workdir(tmp_path / str(seed), 0.5, **more)
        process = Process(["at", "kd"], [0, 99], [[1.0, 1.0], [2.0, 0.5 + seed]], 100)
        process.save(folder / "distill/process.json")
        process.save(folder / "process/process.json")
    report = Report(find_runs([tmp_path]))
    _, used, searched = report.processes.agreement_cells()
    assert used[:2] == ("Adaptive (AT + KD)", "2")
    assert searched[0] == "Adaptive (AT + KD), search"
    assert used[3:] == searched[3:] == ("0.354", "0.177")
    for text in (report.text(), report.markdown()):
        assert "0.354" in text


@pytest.mark.parametrize(
    ("last_weights", "correlation"),
    [
        ([[2.0, 0.5], [2.0, 0.5]], "1.000"),
        ([[2.0, 0.5], [0.5, 2.0]], "-1.000"),
        # The three pairs have the correlations 1, -1 and -1.
        ([[2.0, 0.5], [2.0, 0.5], [0.5, 2.0]], "-0.333"),
        ([[2.0, 0.5], [1.0, 1.0]], ""),  # constant weights
    ],
)
def test_correlation_of_seeds_is_the_mean_over_their_pairs(last_weights, correlation):
    """The weights go from 1 to the last ones, so that all of one path are above those of another."""
    processes = [Process(["at", "kd"], [0, 99], [[1.0, 1.0], last], 100) for last in last_weights]
    heading, row = Processes({"Adaptive": processes}).agreement_cells()
    assert row[heading.index("correlation of seeds")] == correlation


def test_differences_to_the_baselines_are_reported(tmp_path):
    for seed in range(2):
        plain = {"method": "plain", "aggregation": "none", "seed": seed}
        write_workdir(tmp_path / f"plain{seed}", 0.4, **plain)
        write_workdir(tmp_path / f"kd{seed}", 0.5 + 0.02 * seed, seed=seed)
    report = Report(find_runs([tmp_path]))
    # Differences of 10 and 12 points: 11 +- 12.706 * 1.4142 / sqrt(2).
    expected = "+11.00 +- 12.71"
    assert report.tables[0].difference_cells(["Student"])[1] == ("KD", expected)
    for text in (report.text(), report.markdown()):
        assert expected in text


def test_csv_has_a_line_for_each_run(tmp_path):
    write_workdir(tmp_path / "kd1", 0.52, seed=1)
    write_workdir(tmp_path / "half")
    reader = csv.DictReader(io.StringIO(Report(find_runs([tmp_path])).csv()))
    lines = {line["workdir"].rsplit("/", 1)[1]: line for line in reader}
    assert lines["kd1"]["last_accuracy"] == "0.52"
    assert (lines["kd1"]["seed"], lines["kd1"]["state"]) == ("1", "finished")
    assert (lines["half"]["state"], lines["half"]["last_accuracy"]) == ("unfinished", "")


def test_csv_has_the_metrics_of_the_last_evaluation(tmp_path):
    last = {"accuracy": 0.5, "top_5_accuracy": 0.8, "macro_accuracy": 0.4, "calibration_error": 0.1}
    write_workdir(tmp_path, 0.5, last=last)
    (line,) = csv.DictReader(io.StringIO(Report(find_runs([tmp_path])).csv()))
    assert (line["top_5_accuracy"], line["macro_accuracy"]) == ("0.8", "0.4")
    assert line["calibration_error"] == "0.1"


def test_searches_report_alpha_and_both_terms_of_its_gradient(tmp_path):
    """.8 and .9 are .850 +- .071; gradients in thousandths."""
    for seed, last_weight in enumerate((0.8, 0.9)):
        write_search(tmp_path / str(seed), last_weight, seed)
    report = Report(find_runs([tmp_path]))
    assert report.searches.steps_per_epoch == 5
    heading, first, second = report.searches.cells()
    assert first[:4] == ("DFA", "2", "group1", "block1")
    columns = dict(zip(heading, second, strict=True))
    assert columns["alpha"] == "0.850 +- 0.071"
    assert columns["loss gradient, 1e-3"] == "-2.000 +- 0.000"
    assert columns["decay, 1e-3"] == "3.000 +- 0.000"
    assert "| DFA | 2 | group1 | block2 | 0.850 +- 0.071 |" in report.markdown()


def test_searches_are_written_as_figures(tmp_path):
    write_search(tmp_path / "run", 0.8)
    Report(find_runs([tmp_path])).write(tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"alpha_heatmap.png", "alpha_trajectories.pdf"} <= names


def test_experiment_of_searches_notes_missing_searches(tmp_path):
    write_search(tmp_path / "done", 0.8)
    runs = [read_run(tmp_path / name) for name in ("done", "gone")]
    runs = [dataclasses.replace(run, row_title="decay alone") for run in runs]
    report = Report(runs, searches_only=True)
    assert "decay alone  1  group1  block2" in report.text()
    (note,) = report.notes
    assert str(tmp_path / "gone") in note
    assert str(tmp_path / "done") not in note
    assert note in report.text()
    report.write(tmp_path / "out")
    assert not (tmp_path / "out" / "report.csv").exists()
