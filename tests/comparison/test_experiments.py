"""The experiments of bin/reproduce: their rows, pairs and configs."""

import re

import pytest

from dfa_tf.comparison.cells import cells
from dfa_tf.comparison.experiments import EXPERIMENTS
from dfa_tf.comparison.pairs import PAIRS
from dfa_tf.config import Config
from dfa_tf.errors import UserError
from dfa_tf.methods import AT, DFA, FEED, KD, METHODS, NST, EnsembleKD, Logits, Pathways
from dfa_tf.weightings import Adaptive, ProcessWeighting


def _titles(name):
    return tuple(row.title for row in EXPERIMENTS[name].rows)


def test_tables_have_the_papers_columns():
    assert _titles("table2")[:10] == (
        *("Student", "KD", "FitNets", "AT", "Jacobian", "FT", "AB", "SP", "Margin", "DFA"),
    )
    assert _titles("table4") == ("Student", "AT", "SP", "Margin", "DFA", "DFA-T")
    assert _titles("table5") == ("Student", "Random", "Last", "Average", "DFA")


def _config(cell, command="distill"):
    """Returns the cell's config."""
    arguments = cell.arguments(command)
    files = [a.split("=", 1)[1] for a in arguments if a.startswith("--gin_file=")]
    bindings = [a.split("=", 1)[1] for a in arguments if a.startswith("--gin_bindings=")]
    return Config(files, bindings)


SYSTEMS = ("adaptive", "feed", "distpro")  # other systems than DFA


def _experiments_by_scale():
    return [(name, scale) for name in EXPERIMENTS for scale in EXPERIMENTS[name].pairs]


@pytest.mark.parametrize(("name", "scale"), _experiments_by_scale())
def test_config_of_every_cell_is_valid(name, scale):
    """With the row's methods and aggregation; alpha is searched unless the row sets it."""
    without_search = {"student": "none", "random": "random", "last": "last", "average": "average"}
    for cell in cells(name, scale, [0]):
        config = _config(cell, EXPERIMENTS[name].command)
        methods = [method.name for method in config.value("distill", "methods")]
        aggregation = config.value("distill", "aggregation")
        row = re.sub("_(20|30|raw|full|standardized|views_[0-9]+)$", "", cell.row.name)
        if name in SYSTEMS:
            config.settings("teacher", "student", "distill")  # checks every binding
        elif row == "dfa_t":
            assert aggregation.startswith("gin/dfa_t_search")
        else:
            assert aggregation == without_search.get(row, "search")
        if name in SYSTEMS:
            continue
        if row == "dfa_kd":
            assert methods == ["dfa", "kd"]
        else:
            assert methods == [row if row in METHODS else "dfa"]


def test_experiment_without_a_scale_is_a_user_error():
    with pytest.raises(UserError, match="--scale") as error:
        cells("headline", "paper", [0])
    assert "cpu" in str(error.value)


@pytest.mark.parametrize(
    "name", ["fig4-right", "student-loss", "gamma", "init", "order", "joint", "fig4-left"]
)
def test_rows_of_an_ablation_differ_from_dfa_in_its_setting_alone(name):
    """The setting is one binding, or the two weights of the bridge loss."""
    varied = {
        "fig4-left": {"search/adam.weight_decay", "search.gamma_st", "search.gamma_ts"},
        "fig4-right": {"search/adam.weight_decay"},
        "student-loss": {"search.loss"},
        "gamma": {"search.gamma_st"},
        "init": {"search.initial"},
        "order": {"search.order"},
        "joint": {"search.joint"},
    }[name]
    rows = {}
    for cell in cells(name, "cpu", [0]):
        if cell.row.name not in ("student", "last", "average"):
            config = _config(cell, EXPERIMENTS[name].command)
            rows[cell.row.name] = config.settings("search", "distill")
    dfa = rows.pop("dfa")
    for settings in rows.values():
        differing = {n for n in settings if settings[n] != dfa[n]}
        assert differing
        assert differing <= varied


def _rows(name):
    """Each row's cell and config, by name."""
    return {cell.row.name: (cell, _config(cell)) for cell in cells(name, "cpu", [0])}


EPOCHS = {"": 40, "_20": 20, "_10": 10}  # of the student and of equal pathways
AT_PATH, KD_PATH = AT(form="code", beta=1.0), KD(alpha=1.0)
FOUR_PATHS = [AT_PATH, NST(form="gram", weight=2.0), Logits(weight=1.0), KD_PATH]


@pytest.mark.parametrize(
    ("row", "paths", "weights"),
    [
        ("adaptive", FOUR_PATHS, Adaptive()),
        ("adaptive_layerwise", FOUR_PATHS, Adaptive(layerwise=True)),
        ("adaptive_replayed", FOUR_PATHS, ProcessWeighting()),
        ("adaptive_at_kd", [AT_PATH, KD_PATH], Adaptive()),
        ("adaptive_dfa_kd", [DFA(), KD_PATH], Adaptive()),
        ("paths_equal", FOUR_PATHS, None),
        ("paths_tuned", [AT_PATH, KD_PATH], (1000.0, 0.1)),
        ("path_at", FOUR_PATHS[:1], (1000.0,)),
        ("path_nst", FOUR_PATHS[1:2], (10.0,)),
        ("path_logits", FOUR_PATHS[2:3], (0.1,)),
        ("path_kd", FOUR_PATHS[3:], (0.1,)),
    ],
)
def test_rows_of_adaptive_have_their_paths_and_weights(row, paths, weights):
    """The weight of the cross entropy is 1 in each, as with learnt weights."""
    _, config = _rows("adaptive")[row]
    assert config.value("distill", "methods") == paths
    assert config.value("distill", "weights") == weights
    assert config.value("distill", "ce_weight") == 1.0


def test_rows_of_feed_have_their_teachers_controls_and_generations():
    rows = _rows("feed")
    for count in (1, 2, 3, 4, 5):
        cell, config = rows[f"feed_of_{count}"]
        assert cell.row.teachers == count
        assert config.value("distill", "methods") == [FEED()]
    for name, method in {
        "feed_of_3_average": FEED(average=True),
        "feed_of_3_shared": FEED(shared=True),
        "feed_of_3_linear": FEED(kernel=1),
        "ensemble_kd_of_3": EnsembleKD(),
        "kd_of_3": KD(),
    }.items():
        cell, config = rows[name]
        assert cell.row.teachers == 3
        assert config.value("distill", "methods") == [method]
    for method in (FEED(), KD()):
        for generation in (3, 4):
            cell, config = rows[f"{method.name}_generation{generation}"]
            assert cell.row.teachers == 1
            assert config.value("distill", "methods") == [method]
            assert config.value("distill", "generations") == generation


def test_rows_of_distpro_have_their_processes_and_epochs():
    rows = _rows("distpro")
    biased, plain = ProcessWeighting(threshold=0.5), ProcessWeighting(threshold=0.05)
    for name, weights, epochs, follows in (
        ("distpro", biased, 40, ""),
        ("distpro_20", biased, 20, "distpro"),
        ("distpro_10", biased, 10, "distpro"),
        ("distpro_final", ProcessWeighting(threshold=0.5, final=True), 40, "distpro"),
        ("distpro_plain", plain, 40, ""),
        ("distpro_10_2", biased, 40, ""),
        ("distpro_transferred", biased, 40, "distpro_10_2"),
        *((f"pathways{suffix}", None, epochs, "") for suffix, epochs in EPOCHS.items()),
    ):
        cell, config = rows[name]
        assert config.value("distill", "methods") == [Pathways()]
        assert config.value("distill", "weights") == weights
        assert config.value("distill", "epochs") == epochs
        assert (cell.row.process_of or "") == follows
        settings = config.settings("search_process", "student")
        normalization = "plain" if name == "distpro_plain" else "biased"
        assert settings["search_process.normalization"] == repr(normalization)
        width = 2 if name == "distpro_10_2" else 1
        assert settings["student/wide_resnet.width"] == str(width)
    for suffix, epochs in EPOCHS.items():
        _, config = rows[f"student{suffix}"]
        assert config.value("distill", "epochs") == epochs


def test_lambdas_are_those_of_figure_4():
    configs = [_config(cell) for cell in cells("fig4-right", "cpu", [0])]
    lambdas = [config.value("search", "beta_optimizer").weight_decay for config in configs]
    assert lambdas == [0, 1e-5, 1e-4, 1e-3]


def test_paper_scale_has_the_students_of_table_1():
    students = {}
    for cell in cells("table2", "paper", [0], ["kd"]):
        config = _config(cell)
        settings = config.settings("student")
        students[cell.pair] = tuple(
            settings[f"student/wide_resnet.{name}"] for name in ("depth", "width")
        )
        assert config.value("distill", "epochs") == 200
    assert students == {"pair1": ("16", "4"), "pair2": ("28", "2"), "pair3": ("16", "2")}


def test_paper_scale_has_the_pairs_and_schedule_of_table_4():
    widths = []
    for cell in cells("table4", "paper", [0], ["at"]):
        config = _config(cell)
        settings = config.settings("teacher", "student")
        widths.append(
            tuple(settings[f"{role}/shufflenet_v2.width"] for role in ("teacher", "student"))
        )
        assert config.value("distill", "epochs") == 140
        assert config.value("distill", "batch_size") == 96
        assert config.value("search", "epochs") == 5
    assert widths == [("2.0", "1.0"), ("2.0", "0.5"), ("1.0", "0.5")]


@pytest.mark.parametrize("pair", PAIRS)
def test_teacher_config_has_the_teacher_of_the_pair(pair):
    pair_config, teacher_config = Config([PAIRS[pair].config]), Config([PAIRS[pair].teacher_config])
    roots = "teacher", "train_teacher"
    assert teacher_config.settings(*roots) == pair_config.settings(*roots)


def test_rows_of_views_differ_in_the_number_alone():
    rows = {cell.row.name: _config(cell) for cell in cells("views", "cpu", [0])}
    views = {n: config.value("distill", "teacher_views") for n, config in rows.items()}
    assert views == {"student": 0, "kd": 0, "kd_views_1": 1, "kd_views_4": 4, "kd_views_10": 10}
    kd, other = (rows[name].settings("distill", "dataset") for name in ("kd", "kd_views_4"))
    assert {name for name in kd if kd[name] != other[name]} == {"distill.teacher_views"}
