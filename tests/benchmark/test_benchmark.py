"""The benchmark: a row for each step, and what each row says."""

import json

import pytest

from dfa_tf.benchmark import machine, report, timing
from dfa_tf.commands import main
from dfa_tf.data import noise_like


@pytest.fixture
def quick(monkeypatch):
    """One short sample of everything, and small kernels for the peak."""
    monkeypatch.setattr(timing, "SECONDS_PER_SAMPLE", 0.0)
    monkeypatch.setattr(report, "ROUNDS", 2)
    monkeypatch.setattr(machine, "MATMUL", 64)
    monkeypatch.setattr(machine, "CONVOLUTION", (1, 8, 8, 16))


def test_command_writes_a_row_for_each_step_in_each_precision(quick, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = [
        "benchmark",
        "--strategy=default",
        "--json=rows.json",
        "--gin_bindings=teacher/wide_resnet.depth=16",
        "--gin_bindings=search.batch_size=16",
    ]
    assert main.run("benchmark", arguments) == 0, capsys.readouterr().err
    found = json.loads((tmp_path / "rows.json").read_text())
    assert set(found["peak"]) >= {"float32_gflops", "bfloat16_gflops"}
    steps = [(row["step"], row["group"]) for row in found["rows"] if row["precision"] == "float32"]
    groups = ("group1", "group2", "group3")
    assert sorted(steps, key=str) == sorted(
        [(step, group) for step in ("beta", "w", "search") for group in groups]
        + [(s, None) for s in ("teacher_forward", "student_forward", "student_train", "distill")],
        key=str,
    )
    for row in found["rows"]:
        assert 0 < row["ms"]["min"] <= row["ms"]["median"] <= row["ms"]["max"]
        assert row["batch"] == (32 if row["step"] == "search" else 16)
        per_second = 1000 * row["batch"] / row["ms"]["median"]
        assert row["images_per_second"] == pytest.approx(per_second, rel=0.01)
        assert (row["gflops"] is None) == (row["step"] == "input")
    assert found["rows"][-1]["step"] == "input"
    assert found["input_share_of_distill"] < 1
    assert "teacher_forward" in capsys.readouterr().out


def test_noise_has_the_shape_of_the_set_and_needs_none_of_it(tmp_path):
    noise = noise_like("cifar100", data_dir=tmp_path)
    assert (noise.image_shape, noise.num_classes) == ((32, 32, 3), 100)
    assert noise_like("digits").image_shape == (8, 8, 1)
