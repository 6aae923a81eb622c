"""The export stage: what is refused, reused, written again and removed."""

import shutil

import pytest

from dfa_tf.deployment import verify, writer
from dfa_tf.deployment.verify import ExportError
from dfa_tf.errors import UserError
from dfa_tf.stages import export as stage
from dfa_tf.stages.export import ExportOptions, check, export
from dfa_tf.training.runtime import Runtime
from tests.conftest import made_examples
from tests.deployment.networks import tiny_network

NAMES = ("ant", "bee", "cow", "dog")


@pytest.fixture(scope="module")
def held_out():
    return made_examples(37, seed=9)


@pytest.fixture
def unmeasured(monkeypatch):
    """Leaves out the measurements, which take most of the time of a small export."""
    monkeypatch.setattr(writer, "measure", lambda path: {})


@pytest.fixture(scope="module")
def finished(tmp_path_factory, held_out):
    """(workdir, arguments, report) of an export of one float32 file."""
    workdir = tmp_path_factory.mktemp("finished")
    arguments = {
        "network": tiny_network(),
        "test": held_out,
        "train": held_out,
        "options": ExportOptions(kinds=("float32",)),
    }
    return workdir, arguments, export(**arguments, workdir=workdir)


def test_file_that_differs_from_the_network_is_not_written(tmp_path, held_out, monkeypatch):
    monkeypatch.setattr(verify, "MAX_ERROR", -1.0)
    with pytest.raises(ExportError, match="saved_model"):
        export(
            network=tiny_network(),
            test=held_out,
            workdir=tmp_path,
            options=ExportOptions(kinds=("float32",)),
        )
    assert not list((tmp_path / "export").iterdir())


def test_finished_export_is_reused_until_the_student_changes(finished, monkeypatch, tmp_path):
    workdir, arguments, report = finished
    shutil.copytree(workdir / "export", tmp_path / "export")
    monkeypatch.setattr(stage, "ExportWriter", None)  # a call would raise TypeError
    assert export(**arguments, workdir=tmp_path) == report
    other = arguments | {"network": tiny_network(seed=1)}
    with pytest.raises(TypeError):
        export(**other, workdir=tmp_path)
    # The former student's files are gone, so that none is taken for this one's.
    assert not list((tmp_path / "export").iterdir())


def test_folder_with_characters_of_patterns_is_exported(tmp_path, held_out):
    network = tiny_network()
    options = ExportOptions(kinds=("float32",))
    workdir = tmp_path / "w[1] q*?{a}"
    written = export(network=network, test=held_out, workdir=workdir, options=options)
    assert (workdir / "export/student_float32.tflite").exists()
    assert written


def test_fresh_export_is_not_reused(finished, monkeypatch, tmp_path):
    workdir, arguments, _ = finished
    shutil.copytree(workdir / "export", tmp_path / "export")
    interrupted = tmp_path / "export" / "fine_tuning_12345678"
    interrupted.mkdir()
    monkeypatch.setattr(stage, "ExportWriter", None)  # a call raises TypeError
    with pytest.raises(TypeError):
        export(**arguments, workdir=tmp_path, runtime=Runtime(fresh=True))
    assert not interrupted.exists()


@pytest.mark.parametrize("damage", ["export.json", "labels.txt", "student_float32.tflite"])
def test_export_with_a_damaged_file_is_not_reused(finished, monkeypatch, tmp_path, damage):
    workdir, arguments, _ = finished
    shutil.copytree(workdir / "export", tmp_path / "export")
    path = tmp_path / "export" / damage
    if damage == "labels.txt":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-100])
    monkeypatch.setattr(stage, "ExportWriter", None)  # a call raises TypeError
    with pytest.raises(TypeError):
        export(**arguments, workdir=tmp_path)


@pytest.mark.usefixtures("unmeasured")
def test_export_of_other_inputs_is_written_again_unless_any_may_be_reused(tmp_path, held_out):
    common = {"network": tiny_network(), "test": held_out, "workdir": tmp_path}
    float32 = ExportOptions(kinds=("float32",))
    uint8_input = ExportOptions(kinds=("float32", "float16"), input_dtype="uint8")
    first = export(**common, options=uint8_input)
    assert export(**common, options=float32, reuse_any=True) == first
    second = export(**common, options=float32, class_names=NAMES)
    assert second["input_dtype"] == "float32"
    assert (tmp_path / "export" / "labels.txt").read_text().split() == list(NAMES)


@pytest.mark.usefixtures("unmeasured")
def test_new_kinds_are_added_to_those_of_an_export_of_the_same_inputs(tmp_path, held_out):
    common = {"network": tiny_network(), "test": held_out, "workdir": tmp_path}
    export(**common, options=ExportOptions(kinds=("float32",)))
    report = export(**common, options=ExportOptions(kinds=("float16",)))
    assert [file["kind"] for file in report["files"]] == ["float32", "float16"]
    for file in report["files"]:
        assert (tmp_path / "export" / file["path"]).exists()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("kinds", ("int4",)),
        ("input_dtype", "int8"),
        ("calibration_images", 0),
        ("calibration_images", 1.5),
        ("max_loss", "a"),
        ("max_loss", True),
        ("max_loss", 1.5),
        ("fine_tune_above", "a"),
        ("fine_tune_epochs", 0),
        ("batch_size", 0),
        ("optimizer", "sgd"),
    ],
)
def test_wrong_option_is_refused_by_name(setting, value):
    with pytest.raises(UserError, match=rf"export\.{setting}"):
        ExportOptions(**{setting: value})


def test_limits_may_be_negative():
    """fine_tune_above=-1 fine-tunes always."""
    assert ExportOptions(fine_tune_above=-1.0, max_loss=-0.5).fine_tune_above == -1


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"class_names": ("a", "b")}, "class_names"),
        ({"train": None}, "train"),
        ({"teacher": "gone.keras"}, r"gone\.keras"),
        ({"teacher": lambda: tiny_network(classes=3)}, "tiny_0"),
        ({"teacher": tiny_network, "options": ExportOptions(fine_tune_epochs=1e-9)}, "epochs"),
    ],
)
def test_wrong_argument_is_refused_before_anything_is_removed(finished, change, named):
    workdir, arguments, _ = finished
    change = {name: value() if callable(value) else value for name, value in change.items()}
    with pytest.raises(UserError, match=named):
        export(**arguments | {"options": ExportOptions()} | change, workdir=workdir)
    assert (workdir / "export" / "export.json").exists()


def test_check_needs_no_trained_network(held_out):
    arguments = {
        "network": tiny_network(),
        "train": held_out,
        "teacher": tiny_network(seed=1),
        "class_names": NAMES,
        "options": ExportOptions(),
        "augmentation": stage.Augmentation(pad=1),
        "replicas": 1,
    }
    check(**arguments)
    with pytest.raises(UserError, match="pad"):
        check(**arguments | {"augmentation": stage.Augmentation(pad=8)})


def test_teacher_is_not_read_without_integer_files(finished):
    workdir, arguments, report = finished
    assert export(**arguments, teacher="gone.keras", workdir=workdir) == report
