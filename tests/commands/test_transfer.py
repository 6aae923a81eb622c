"""bin/distill on a folder of images, and with alpha from the search of another config (DFA-T)."""

import json
import shutil

import pytest

from dfa_tf.alpha import Alpha
from dfa_tf.commands import main
from dfa_tf.data.cinic10 import CLASSES
from tests.commands.test_commands import SHORT
from tests.data.drawn import draw

SAME = 'include "gin/digits.gin"\n'
SMALL = SAME + "teacher/wide_resnet.depth = 16\nteacher/wide_resnet.width = 1\n"
SMALL += "train_teacher.epochs = 0.2\nsearch.epochs = 0.3\n"


def _distill(*arguments):
    return main.run("distill", ["distill", "--strategy=default", *arguments])


def _shortened(source, data_dir):
    """gin/cinic10_pair3.gin with two steps for each stage, on a few images in place of CINIC-10."""
    bindings = [f'dataset.name="folder:{source}"', "runtime.log_every=1"]
    for stage in ("train_teacher", "search", "distill"):
        bindings += [f"{stage}.batch_size=8", f"{stage}.epochs=0.4"]
    bound = [f"--gin_bindings={binding}" for binding in bindings]
    return ["--gin_file=gin/cinic10_pair3.gin", f"--data_dir={data_dir}", *bound]


@pytest.mark.slow
def test_cinic10_config_runs_from_teacher_to_export(tmp_path, monkeypatch):
    """On an archive; test_cinic10.py shows that a folder has the same examples."""
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "drawn", CLASSES, {"train": 4, "valid": 4, "test": 2}, size=(32, 32))
    source = shutil.make_archive(str(tmp_path / "packed"), "gztar", tmp_path / "drawn")
    assert _distill(*_shortened(source, tmp_path / "tfds")) == 0
    workdir = tmp_path / "runs" / "cinic10_pair3"
    alpha = Alpha.load(workdir / "search/alpha.json")
    assert [len(group.alpha) for group in alpha.groups] == [1, 4, 8, 4, 1]
    assert alpha.steps == 3 * 2  # groups with one feature are skipped
    metrics = json.loads((workdir / "distill/metrics.json").read_text())
    assert (metrics["student"], metrics["test_examples"]) == ("ShuffleNetV2_x0_5", 20)
    assert metrics["train_examples"] == 40  # only its training part
    assert (workdir / "export/student_float32.tflite").exists()


@pytest.mark.slow
def test_alpha_of_another_configs_search_is_used(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere.gin").write_text(SMALL + "dataset.train_fraction = 0.5\n")
    (tmp_path / "own.gin").write_text(SAME + 'distill.aggregation = "elsewhere.gin"\n')
    given = ["--gin_file=own.gin", *SHORT[1:], "--noexport"]
    assert _distill(*given) == 0, capsys.readouterr().err
    runs = tmp_path / "runs"
    assert not (runs / "own" / "search").exists()
    alpha = Alpha.load(runs / "own_search/search/alpha.json")
    recorded = (runs / "own/distill/config.gin").read_text()
    assert "distill.aggregation = 'elsewhere.gin'" in recorded
    assert "dataset.train_fraction = 0.5" not in recorded
    inputs = json.dumps([[float(f"{a:.6g}") for a in group.alpha] for group in alpha.groups])
    assert inputs in recorded
    capsys.readouterr()
    assert _distill(*given, f"--workdir={runs / 'own'}") == 0
    err = capsys.readouterr().err
    assert "search: already done" in err
    assert "distill: already done" in err


def test_alpha_for_groups_of_another_size_is_an_error_before_training(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere.gin").write_text(SMALL + "teacher/wide_resnet.depth = 22\n")
    (tmp_path / "own.gin").write_text(SAME + 'distill.aggregation = "elsewhere.gin"\n')
    assert _distill("--gin_file=own.gin", *SHORT[1:]) == 2
    err = capsys.readouterr().err
    assert "distill.aggregation" in err
    assert "3, 3, 3 and 2, 2, 2" in err
    assert not (tmp_path / "runs").exists()
