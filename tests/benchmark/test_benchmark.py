"""bin/benchmark: a row for each step in each precision, and the content of a row."""

import contextlib
import io
import json

import pytest

from dfa_tf.benchmark import machine, report, timing
from dfa_tf.benchmark.cases import Case
from dfa_tf.commands import main
from dfa_tf.data import noise_like

GROUPS = ("group1", "group2", "group3")


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """JSON and printed table of a short benchmark: one step in a sample, small kernels."""
    folder = tmp_path_factory.mktemp("benchmark")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "SECONDS_PER_SAMPLE", 0.0)
        patch.setattr(report, "ROUNDS", 2)
        patch.setattr(machine, "MATMUL", 64)
        patch.setattr(machine, "CONVOLUTION", (1, 8, 8, 16))
        patch.chdir(folder)
        arguments = [
            "benchmark",
            "--strategy=default",
            "--json=rows.json",
            "--gin_bindings=teacher/wide_resnet.depth=16",
            "--gin_bindings=search.batch_size=16",
        ]
        with contextlib.redirect_stdout(io.StringIO()) as stdout:
            assert main.run("benchmark", arguments) == 0
    return json.loads((folder / "rows.json").read_text()), stdout.getvalue()


@pytest.fixture(scope="module")
def benchmark(outputs):
    """The JSON of the short benchmark."""
    return outputs[0]


@pytest.mark.slow  # compiles all steps in both precisions
def test_each_step_has_a_row_in_each_precision(benchmark):
    expected = [(step, group) for step in ("beta", "w", "search") for group in GROUPS]
    expected += [("search", "all")]  # the joint search
    steps = "teacher_forward", "student_forward", "student_train", "kd_views", "kd", "distill"
    expected += [(step, None) for step in steps]
    for precision in ("float32", "mixed_bfloat16"):
        rows = [row for row in benchmark["rows"] if row["precision"] == precision]
        assert sorted([(row["step"], row["group"]) for row in rows], key=str) == sorted(
            expected, key=str
        )
    assert benchmark["rows"][-1]["step"] == "input"


@pytest.mark.slow  # compiles all steps in both precisions
def test_row_is_consistent(benchmark):
    for row in benchmark["rows"]:
        assert 0 < row["ms"]["min"] <= row["ms"]["median"] <= row["ms"]["max"]
        assert row["batch"] == (32 if row["step"] == "search" else 16)
        assert (row["gflops"] is None) == (row["step"] == "input")


@pytest.mark.slow  # compiles all steps in both precisions
def test_report_has_the_peak_of_both_dtypes(benchmark):
    assert set(benchmark["peak"]) >= {"float32_gflops", "bfloat16_gflops"}


def test_row_by_hand():
    """64 images and 3 GFLOP in 4 ms: 16,000 images/s and 750 GFLOP/s, half of a peak of 1,500."""
    case = Case("kd", "float32", None, images=64, flops=3 * 10**9, run=lambda steps: 0.0)
    row = report._row(case, timing.Milliseconds(3.0, 4.0, 9.0), None, peak=1500.0)
    assert (row.images_per_second, row.gflops, row.fraction_of_peak) == (16_000, 750, 0.5)


@pytest.mark.slow  # compiles all steps in both precisions
def test_joint_search_has_a_ratio_for_each_round(benchmark):
    ratios = benchmark["joint_over_groups"]
    assert {precision: len(each) for precision, each in ratios.items()} == {
        "float32": 2,
        "mixed_bfloat16": 2,
    }
    for precision, each in ratios.items():
        rows = [
            r for r in benchmark["rows"] if (r["step"], r["precision"]) == ("search", precision)
        ]
        fastest = {row["group"]: row["ms"]["min"] for row in rows}
        slowest = {row["group"]: row["ms"]["max"] for row in rows}
        low = fastest["all"] / sum(slowest[group] for group in GROUPS)
        high = slowest["all"] / sum(fastest[group] for group in GROUPS)
        assert all(low - 1e-3 <= ratio <= high + 1e-3 for ratio in each)


@pytest.mark.slow  # compiles all steps in both precisions
def test_report_has_the_ratio_of_cached_logits_to_plain_training(outputs):
    content, stdout = outputs
    assert set(content["views_over_plain"]) == {"float32", "mixed_bfloat16"}
    for ratios in content["views_over_plain"].values():
        assert len(ratios) == 2  # rounds
        assert min(ratios) > 0
    assert "cached logits" in stdout


@pytest.mark.slow  # compiles all steps in both precisions
def test_command_prints_the_table(outputs):
    content, stdout = outputs
    assert all(row["step"] in stdout for row in content["rows"])


def test_cells_of_a_row_are_in_the_order_of_the_heading():
    ms = timing.Milliseconds(1.0, 2.0, 3.0)
    row = report.BenchmarkRow("beta", "float32", 16, "group1", ms, 8000.0, 12.3, 0.25, None)
    result = report.BenchmarkReport({}, {}, "T", "S", 7, 0.0, [row])
    heading, cells = result.cells()
    assert dict(zip(heading, cells, strict=True)) == {
        "step": "beta",
        "group": "group1",
        "precision": "float32",
        "ms (min to max)": "2.0 (1.0 to 3.0)",
        "images/s": "8,000",
        "GFLOP/s": "12",
        "of peak": "25%",
        "peak memory": "",
    }


def test_noise_has_the_shape_of_the_data_set_and_needs_no_files(tmp_path):
    noise = noise_like("cifar100", data_dir=tmp_path)
    assert (noise.image_shape, noise.num_classes) == ((32, 32, 3), 100)
    assert noise_like("digits").image_shape == (8, 8, 1)
