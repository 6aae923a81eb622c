"""The table and the curves at the end of a distillation, from files alone."""

import json

import pytest

from dfa_tf.commands.summary import networks_before, summary, training_curves
from tests.comparison.workdirs import write_workdir


def _write_network(folder, accuracy, **changes):
    """Writes the metrics of a teacher or of a generation. Returns them."""
    metrics = {
        "last": {"accuracy": accuracy, "loss": 1.0},
        "best": {"accuracy": accuracy + 0.02, "step": 5},
        "curve": [[5, accuracy + 0.02, 1.0], [10, accuracy, 1.0]],
        "parameters": 4321,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_text(json.dumps(metrics | changes))
    return metrics | changes


def _student(workdir):
    return json.loads((workdir / "distill/metrics.json").read_text())


@pytest.fixture
def two_teachers(tmp_path):
    """A workdir with two teachers, and the teachers' metrics."""
    write_workdir(tmp_path, 0.5, method="feed", teachers=["one", "two"])
    folders = [tmp_path / name for name in ("teacher", "teacher_2")]
    return tmp_path, [_write_network(f, 0.6 + k / 10) for k, f in enumerate(folders)]


@pytest.fixture
def fourth_generation(tmp_path):
    """A workdir with a teacher, two generations and the student, and the first three's metrics."""
    write_workdir(tmp_path, 0.5, method="feed", teachers=["one"], generation=4)
    names = "teacher", "generation_2/distill", "generation_3/distill"
    return tmp_path, [_write_network(tmp_path / n, 0.6 + k / 10) for k, n in enumerate(names)]


def test_networks_before_a_student_are_its_teachers(two_teachers):
    workdir, (first, second) = two_teachers
    assert networks_before(workdir, _student(workdir)) == [
        ("teacher", first, workdir / "teacher/model.keras"),
        ("teacher_2", second, workdir / "teacher_2/model.keras"),
    ]
    assert [name for name, *_ in networks_before(workdir, {"teachers": ["one"]})] == ["teacher"]
    assert [name for name, *_ in networks_before(workdir, {})] == ["teacher"]  # of an older run


def test_networks_before_a_later_generation_are_the_teacher_and_the_generations(fourth_generation):
    workdir, (teacher, second, third) = fourth_generation
    assert networks_before(workdir, _student(workdir)) == [
        ("teacher", teacher, workdir / "teacher/model.keras"),
        ("generation 2", second, workdir / "generation_2/distill/student.keras"),
        ("generation 3", third, workdir / "generation_3/distill/student.keras"),
    ]


def test_teacher_without_metrics_is_left_out(two_teachers):
    """A teacher from a file was not trained in the workdir."""
    workdir, (_, second) = two_teachers
    (workdir / "teacher/metrics.json").unlink()
    ((name, metrics, _),) = networks_before(workdir, _student(workdir))
    assert (name, metrics) == ("teacher_2", second)


def test_table_has_a_row_for_each_network(fourth_generation):
    workdir, _ = fourth_generation
    _, _, *rows = summary(workdir).splitlines()
    titles = "teacher", "generation 2", "generation 3", "student WRN_16_1, FEED, generation 4"
    files = (
        "teacher/model.keras",
        "generation_2/distill/student.keras",
        "generation_3/distill/student.keras",
        "distill/student.keras",
    )
    cells = [
        ("0.6000", "0.6200", "4,321"),
        ("0.7000", "0.7200", "4,321"),
        ("0.8000", "0.8200", "4,321"),
        ("0.5000", "0.5100", "1,234"),
    ]
    for row, title, numbers, file in zip(rows, titles, cells, files, strict=True):
        assert row.startswith(f"{title} ")
        assert tuple(row.removeprefix(title).split()) == (*numbers, str(workdir / file))


def test_curves_are_those_of_all_teachers_and_the_student(two_teachers):
    workdir, (first, second) = two_teachers
    assert training_curves(workdir) == {
        "WRN_16_1: FEED of 2": {
            "teacher": [first["curve"]],
            "teacher_2": [second["curve"]],
            "student, FEED of 2": [_student(workdir)["curve"]],
        }
    }


def test_curves_leave_out_networks_that_were_not_evaluated_on_the_test_images(two_teachers):
    workdir, _ = two_teachers
    _write_network(workdir / "teacher", 0.6, evaluated_on="validation")
    _write_network(workdir / "teacher_2", 0.7, curve=[])
    (curves,) = training_curves(workdir).values()
    assert list(curves) == ["student, FEED of 2"]


def test_single_teacher_and_its_student_have_no_curves(tmp_path):
    write_workdir(tmp_path, 0.5)
    _write_network(tmp_path / "teacher", 0.6)
    assert training_curves(tmp_path) == {}
