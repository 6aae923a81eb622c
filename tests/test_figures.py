"""Figures show the given numbers, with names, units and spreads."""

import numpy as np
import pytest

from dfa_tf import figures
from dfa_tf.alpha import Alpha, GroupAlpha
from dfa_tf.process import Process


def _alpha(last, seed=0):
    """Two groups of two features. The weight of the last one goes from 0.99 to `last`."""
    history = [[0, [0.01, 0.99]], [10, [0.3, 0.7]], [20, [1 - last, last]]]
    groups = [
        GroupAlpha(name, [f"{name}_block1", f"{name}_block2"], [], [1 - last, last], history)
        for name in ("group1", "group2")
    ]
    return Alpha("cifar100", "WRN_28_2", "WRN_16_1", seed, 20, groups)


def test_ranking_shows_mean_standard_deviation_and_seeds_in_order():
    accuracies = {"DFA": [0.6], "KD": [0.50, 0.52, 0.54], "Student": [0.4, 0.42]}
    (axis,) = figures.accuracy_ranking({"one": accuracies}, baseline="Student").axes
    assert [t.get_text() for t in axis.get_yticklabels()] == ["Student", "KD", "DFA"]
    means = [c.lines[0].get_xdata()[0] for c in axis.containers]
    assert means == pytest.approx([41.0, 52.0, 60.0])
    ends = [c.lines[2][0].get_segments()[0][:, 0].tolist() for c in axis.containers]
    assert ends[1:] == [pytest.approx([50.0, 54.0]), pytest.approx([60.0, 60.0])]
    dots = [line.get_xdata().tolist() for line in axis.lines if line.get_marker() == "o"]
    assert dots == [pytest.approx([40, 42]), pytest.approx([50, 52, 54]), pytest.approx([60])]
    (plain,) = [line for line in axis.lines if line.get_linestyle() == "--"]
    assert plain.get_xdata()[0] == pytest.approx(41.0)
    assert axis.get_xlabel() == "test accuracy, %"


def test_curves_show_mean_and_standard_deviation_over_the_seeds():
    curves = [[[10, 0.2, 1.0], [20, 0.5, 1.0]], [[10, 0.4, 1.0], [20, 0.7, 1.0]]]
    (axis,) = figures.accuracy_curves({"one": {"KD": curves, "DFA": [[[10, 0.3, 1.0]]]}}).axes
    np.testing.assert_allclose(axis.lines[0].get_ydata(), [30, 60])
    (band,) = axis.collections  # a single run has none
    at_end = band.get_paths()[0].vertices
    at_end = at_end[at_end[:, 0] == 20, 1]
    deviation = 100 * np.std([0.5, 0.7], ddof=1)
    assert (at_end.min(), at_end.max()) == pytest.approx((60 - deviation, 60 + deviation))
    legend = [text.get_text() for text in axis.get_legend().get_texts()]
    assert legend == ["KD 60.0 (n = 2)", "DFA 30.0"]


def test_accuracy_over_the_last_weight_has_a_point_for_each_run():
    points = {"Last": [(1.0, 0.5), (1.0, 0.54)], "Random": [(0.2, 0.4), (0.6, 0.46)]}
    (axis,) = figures.accuracy_by_last_weight(points, {"Student": [0.3, 0.34]}).axes
    lines = {line.get_label(): line for line in axis.lines}
    np.testing.assert_allclose(lines["Last (n = 2)"].get_ydata(), [50, 54])
    np.testing.assert_allclose(lines["Random (n = 2)"].get_xdata(), [0.2, 0.6])
    (spread,) = axis.containers  # of Last, whose runs have one alpha
    assert spread.lines[0].get_ydata()[0] == pytest.approx(52)
    (plain,) = [line for line in axis.lines if line.get_linestyle() == "--"]
    assert plain.get_ydata()[0] == pytest.approx(32)


def test_heatmap_shows_the_mean_over_seeds_and_final_weights():
    figure = figures.alpha_heatmaps({"a": [_alpha(0.5), _alpha(0.7)], "b": [_alpha(0.9)]})
    panels = [axis for axis in figure.axes if axis.get_xlabel()]
    assert len(panels) == 4
    cells = np.asarray(panels[0].collections[0].get_array())
    np.testing.assert_allclose(cells, [[0.01, 0.3, 0.4], [0.99, 0.7, 0.6]])
    assert [text.get_text() for text in panels[0].texts] == ["0.40", "0.60"]
    assert panels[0].get_ylabel() == "a\nn = 2"
    assert [label.get_text() for label in panels[0].get_yticklabels()] == ["block1", "block2"]
    assert panels[0].get_xlabel() == "step of the group's search"


def test_trajectories_show_mean_and_standard_deviation():
    figure = figures.alpha_trajectories({"a": [_alpha(0.5), _alpha(0.7)]})
    axis = figure.axes[0]
    np.testing.assert_allclose(axis.lines[1].get_ydata(), [0.99, 0.7, 0.6])
    np.testing.assert_array_equal(axis.lines[1].get_xdata(), [0, 10, 20])
    band = axis.collections[1].get_paths()[0].vertices
    at_end = band[band[:, 0] == 20, 1]
    deviation = np.std([0.5, 0.7], ddof=1)
    assert (at_end.min(), at_end.max()) == pytest.approx((0.6 - deviation, 0.6 + deviation))


def test_lines_of_a_process_show_the_mean_over_seeds_and_the_last_weight():
    processes = [
        Process(["at", "kd"], [0, 2], [[1.0, 1.0], [last, 0.5]], 3, seed=seed)
        for seed, last in enumerate((2.0, 3.0))
    ]
    (axis,) = figures.process_lines({"Adaptive": processes}, {"Adaptive": 20}).axes
    lines = {line.get_label(): line for line in axis.lines}
    assert list(lines) == ["at 2.5", "kd 0.5"]  # the highest at the end first
    np.testing.assert_allclose(lines["at 2.5"].get_ydata(), [1, 1.75, 2.5])
    np.testing.assert_allclose(lines["kd 0.5"].get_ydata(), [1, 0.75, 0.5])
    np.testing.assert_allclose(lines["kd 0.5"].get_xdata(), [0, 10, 20])
    band = axis.collections[0].get_paths()[0].vertices
    at_end = band[band[:, 0] == 20, 1]
    deviation = np.std([2.0, 3.0], ddof=1)
    assert (at_end.min(), at_end.max()) == pytest.approx((2.5 - deviation, 2.5 + deviation))
    assert [t.get_text() for t in axis.get_legend().get_texts()] == list(lines)
    assert axis.get_title() == "Adaptive, n = 2"


def test_feature_has_the_same_line_style_in_groups_of_all_sizes():
    """Groups of ShuffleNetV2. A group of one feature has no panel."""
    groups = [
        GroupAlpha(f"group{n}", [f"group{n}_block{j}" for j in range(1, n + 1)], [], [1 / n] * n)
        for n in (1, 4, 8)
    ]
    figure = figures.alpha_trajectories({"a": [Alpha("", "T", "S", 0, 0, groups)]})
    assert [axis.get_title() for axis in figure.axes] == ["group4", "group8"]
    styles = [[(line.get_color(), line.get_marker()) for line in a.lines] for a in figure.axes]
    assert styles[0] == styles[1][:4]


def test_x_axis_is_epochs_if_steps_per_epoch_is_given():
    figure = figures.alpha_heatmaps({"a": [_alpha(0.5)]}, steps_per_epoch=10)
    assert figure.axes[0].get_xlabel() == "epoch of the group's search"
    assert figure.axes[0].get_xlim() == (0, 2)


def test_lines_differ_in_greyscale():
    figure = figures.alpha_trajectories({"a": [_alpha(0.5)]})
    styles = {(line.get_linestyle(), line.get_marker()) for line in figure.axes[0].lines}
    assert len(styles) == 2


def test_figures_are_saved_as_png_and_pdf(tmp_path):
    figures.save(figures.accuracy_ranking({"one": {"KD": [0.5]}}), tmp_path, "one")
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "one.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize("name", ["dol$x_$", "$", r"\frac{"])
def test_names_are_literal_texts(tmp_path, name):
    figures.save(figures.accuracy_ranking({name: {name: [0.5, 0.6]}}), tmp_path, "one")
    process = Process([name, "b"], [0], [[1.0, 2.0]], 1, teacher=name)
    figures.save(figures.process_lines({name: [process]}), tmp_path, "two")
    assert {path.name for path in tmp_path.glob("*.png")} == {"one.png", "two.png"}


def test_figure_that_cannot_be_drawn_is_a_warning(tmp_path, capsys):
    def fail():
        raise RuntimeError("no fonts")

    figures.draw(fail, tmp_path, "alpha")
    warning = capsys.readouterr().err
    assert "alpha.png" in warning
    assert "no fonts" in warning
    assert list(tmp_path.iterdir()) == []
