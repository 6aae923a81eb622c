"""Search, distillation and export with Keras models from elsewhere."""

import json
import re

import keras
import pytest

from dfa_tf.alpha import Alpha
from dfa_tf.commands import main
from tests.data.drawn import draw

CONFIG = """
teacher = @teacher/keras_file
teacher/keras_file.path = "teacher.keras"
teacher/keras_file.scale = 0.00784313725
teacher/keras_file.offset = -1.0
student = @student/keras_file
student/keras_file.path = "student.keras"
dataset.name = "folder:drawn"
search.batch_size = 4
search.epochs = 0.5
distill.batch_size = 4
distill.epochs = 0.5
export.calibration_images = 4
export.max_loss = 1.0  # the networks are untrained
"""


@pytest.mark.slow
def test_keras_applications_are_searched_distilled_and_exported(tmp_path, monkeypatch, capsys):
    """From MobileNetV2 to MobileNetV3Small: five groups of maps of the same sizes."""
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "drawn", ("ant", "bee"), {"train": 8, "valid": 8, "test": 4}, size=(32, 32))
    settings = {"weights": None, "input_shape": (32, 32, 3), "classes": 2}
    keras.applications.MobileNetV2(alpha=0.35, **settings).save("teacher.keras")
    keras.applications.MobileNetV3Small(**settings).save("student.keras")
    (tmp_path / "own.gin").write_text(CONFIG)
    given = ["--gin_file=own.gin", "--strategy=default", f"--data_dir={tmp_path / 'tfds'}"]
    assert main.run("export", ["export", *given]) == 0, capsys.readouterr().err
    workdir = tmp_path / "runs" / "own"
    alpha = Alpha.load(workdir / "search/alpha.json")
    assert [len(group.alpha) for group in alpha.groups] == [1, 2, 3, 3, 3]
    assert json.loads((workdir / "distill/metrics.json").read_text())["method"] == "dfa"
    report = json.loads((workdir / "export/export.json").read_text())
    assert report["files"][0]["max_abs_error"] < 1e-3
    assert len(report["files"]) == 5
    assert (workdir / "export/labels.txt").read_text() == "ant\nbee\n"
    weights = report["files"][0]["bytes"]
    assert weights < 1.2 * (workdir / "distill/student.keras").stat().st_size


def test_describe_prints_the_groups_and_writes_nothing(tmp_path, capsys):
    workdir = tmp_path / "described"
    argv = ["search", "--gin_file=gin/digits.gin", f"--workdir={workdir}", "--describe"]
    assert main.run("search", argv) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^teacher: WRN_28_2, .* 1,470,938 parameters", printed, re.MULTILINE)
    assert re.search(r"^group2 +4x4x64 +4 +group2_block2_norm1 ", printed, re.MULTILINE)
    assert re.search(r"^group3 +2x2x64 +1 +norm$", printed, re.MULTILINE)
    assert not workdir.exists()


def test_describe_ends_with_the_errors_of_the_config(tmp_path, capsys):
    argv = ["distill", f"--workdir={tmp_path / 'x'}", "--describe"]
    assert main.run("distill", [*argv, "--gin_bindings=distill.epochs=1e-4"]) == 2
    assert "epochs" in capsys.readouterr().err
