"""Gin: every shipped config works, and what is bound wrongly is told in a line."""

import numpy as np
import pytest

from dfa_tf import config, methods
from dfa_tf.errors import UserError
from dfa_tf.stages.checks import check_same_groups
from dfa_tf.stages.distill import distill
from dfa_tf.stages.search import search
from dfa_tf.stages.teacher import train_teacher
from dfa_tf.training.loop import Runtime
from dfa_tf.training.optimizers import SGD, Adam, Cosine, StepDecay
from tests.conftest import ROOT, made_examples

SHIPPED = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "gin").rglob("*.gin"))
METHODS = [path for path in SHIPPED if path.startswith("gin/methods/")]  # beside another config
WHOLE = [path for path in SHIPPED if path not in METHODS]

PAIR = ["teacher = @teacher/wide_resnet", "student = @student/wide_resnet"]


def _made():
    """Stands in for the config's real set: (its task, a few made images)."""
    name = config.value("dataset", "name")
    shape, classes = {
        "digits": ((8, 8, 1), 10),
        "cifar100": ((32, 32, 3), 100),
        "cinic10": ((32, 32, 3), 10),
    }[name]
    statistics = {"mean": (0.5,) * shape[-1], "std": (0.25,) * shape[-1]}
    task = {"num_classes": classes, "image_shape": shape, **statistics}
    return task, made_examples(2 * classes, shape=shape, classes=classes)


@pytest.mark.parametrize("path", WHOLE)
def test_shipped_config_is_parsed_and_built(path):
    config.parse([path], [])
    task, _ = _made()
    teacher, student = (config.network(role, task, seed=1)[0] for role in config.NETWORKS)
    check_same_groups(teacher, student)
    assert config.settings("dataset", "train_teacher", "search", "distill", "runtime")


DRIVEN = [path for path in WHOLE if "cinic10" not in path and "dfa_t" not in path]
SHUFFLENETS = [  # which differ in their sizes alone
    pytest.param(path, marks=pytest.mark.slow)
    for path in ("gin/cinic10_pair3.gin", "gin/dfa_t_search_cpu.gin")
]


@pytest.mark.parametrize("path", [*DRIVEN, *SHUFFLENETS])
def test_shipped_config_is_driven_for_two_steps(path, tmp_path):
    config.parse([path], [])
    task, made = _made()
    networks = {role: config.network(role, task, seed=1)[0] for role in config.NETWORKS}
    common = {"workdir": tmp_path, "runtime": Runtime(quiet=True, evaluate_every=1e9)}
    short = {"epochs": 2 * 4 / len(made), "batch_size": 4}

    def driven(function, **given):
        name = function.__name__
        assert config.value(name, "batch_size") in (64, 96, 128)
        bound = config.arguments(name) | short
        return function(**bound, **common, **given)

    teacher = driven(train_teacher, network=networks["teacher"], train=made)
    alpha = driven(
        search,
        teacher=teacher,
        student=networks["student"],
        train=made,
        validation=made,
    )
    groups = sum(len(group.features) > 1 for group in alpha.groups)
    assert alpha.steps == 2 * groups
    student = driven(distill, teacher=teacher, student=networks["student"], alpha=alpha, train=made)
    assert student.name == networks["student"].name
    assert np.isfinite(student.get_weights()[0]).all()


@pytest.mark.parametrize("name", sorted(methods.METHODS))
def test_every_method_has_a_config_that_chooses_it_alone(name):
    """And binds its settings to what the code takes by default: the published ones."""
    config.parse(["gin/wrn.gin", f"gin/methods/{name}.gin"], [])
    (chosen,) = config.value("distill", "methods")
    assert chosen == methods.METHODS[name]()
    assert config.value("distill", "epochs") == 200  # the rest is the other config's


def test_dfa_is_the_method_where_none_is_bound_and_its_bindings_count(tmp_path):
    own = "teacher = @teacher/wide_resnet\nteacher/wide_resnet.depth = 10\nstudent = @teacher/wide_resnet"
    (tmp_path / "own.gin").write_text(own)
    config.parse([tmp_path / "own.gin"], ["dfa.gamma_fd = 0.5"])
    (method,) = config.value("distill", "methods")
    assert (method.name, method.gamma_fd) == ("dfa", 0.5)
    assert config.settings("distill")["dfa.gamma_fd"] == "0.5"


def test_method_without_its_brackets_is_told():
    config.parse(["gin/wrn.gin"], ["distill.methods = [@kd]"])
    with pytest.raises(UserError, match="with its brackets"):
        config.settings("distill")


def test_methods_can_be_combined_with_weights():
    bindings = ["distill.methods = [@dfa(), @kd()]", "distill.weights = (1.0, 0.5)"]
    config.parse(["gin/wrn.gin"], [*bindings, "kd.temperature = 2.0"])
    dfa, kd = config.value("distill", "methods")
    assert (dfa.name, kd.name, kd.temperature) == ("dfa", "kd", 2.0)
    assert config.value("distill", "weights") == (1.0, 0.5)
    recorded = config.settings("distill")
    assert recorded["kd.temperature"] == "2.0"
    assert recorded["dfa.gamma_fd"] == "0.001"


@pytest.mark.parametrize("path", SHIPPED)
def test_shipped_config_begins_with_its_command_and_what_to_expect(path):
    comments = []
    for line in (ROOT / path).read_text().splitlines():
        if not line.startswith("#"):
            break
        comments.append(line)
    header = "\n".join(comments)
    assert f"--gin_file={path}" in header
    assert "Cost:" in header
    assert "Expected" in header or "Result" in header


@pytest.mark.parametrize("pair", [1, 2, 3])
def test_papers_settings_are_what_cinic10_gin_binds(pair):
    """DFA §4.2, its Table 4, and the rate that the search of ShuffleNetV2 takes."""
    config.parse([f"gin/cinic10_pair{pair}.gin"], [])
    found = config.arguments("search")
    assert (found["epochs"], found["batch_size"]) == (5, 96)
    assert found["beta_optimizer"] == Adam(1e-3, 0.5, 0.999, 1e-3)
    assert found["optimizer"] == SGD(Cosine(0.01, 0.0), 0.9, True, 5e-4)
    for stage in ("train_teacher", "distill"):
        found = config.arguments(stage)
        assert (found["epochs"], found["batch_size"]) == (140, 96)
        assert found["optimizer"] == SGD(StepDecay(0.01, 0.1, (100, 120)), 0.9, True, 5e-4)
    task, _ = _made()
    widths = [config.network(role, task, seed=0)[0].name for role in config.NETWORKS]
    assert (
        widths
        == {
            1: ["ShuffleNetV2_x2", "ShuffleNetV2_x1"],
            2: ["ShuffleNetV2_x2", "ShuffleNetV2_x0_5"],
            3: ["ShuffleNetV2_x1", "ShuffleNetV2_x0_5"],
        }[pair]
    )


def test_papers_settings_are_what_wrn_gin_binds():
    """DFA §3.4 and §4.1."""
    config.parse(["gin/wrn.gin"], [])
    found = config.arguments("search")
    assert (found["gamma_st"], found["gamma_ts"]) == (1e-3, 1.0)
    assert (found["epochs"], found["batch_size"], found["initial"]) == (40, 128, "last")
    assert found["beta_optimizer"] == Adam(1e-3, 0.5, 0.999, 1e-3)
    assert found["optimizer"] == SGD(Cosine(0.1, 0.0), 0.9, True, 5e-4)
    schedule = SGD(StepDecay(0.1, 0.2, (60, 120, 160)), 0.9, True, 5e-4)
    for stage in ("train_teacher", "distill"):
        found = config.arguments(stage)
        assert (found["epochs"], found["batch_size"]) == (200, 128)
        assert found["optimizer"] == schedule
    assert found["methods"][0].gamma_fd == 1e-3


@pytest.mark.parametrize(
    ("path", "teacher", "student"),
    [
        ("gin/wrn.gin", "WRN_28_4", "WRN_16_2"),
        ("gin/wrn_pair1.gin", "WRN_28_4", "WRN_16_4"),
        ("gin/wrn_pair2.gin", "WRN_28_4", "WRN_28_2"),
        ("gin/cifar100_cpu.gin", "WRN_28_2", "WRN_16_1"),
    ],
)
def test_pairs_are_the_tables(path, teacher, student):
    config.parse([path], [])
    task, _ = _made()
    names = [config.network(role, task, seed=0)[0].name for role in config.NETWORKS]
    assert names == [teacher, student]


def test_short_searches_let_beta_travel_as_far_as_the_papers():
    """Learning rate times steps per group near 11."""
    for path, examples in (
        ("gin/cifar100_cpu.gin", 35_000),
        ("gin/reproduce_cpu.gin", 7_000),
        ("gin/digits.gin", 908),
    ):
        config.parse([path], [])
        found = config.arguments("search")
        steps = int(found["epochs"] * examples / found["batch_size"])
        assert found["beta_optimizer"].learning_rate * steps == pytest.approx(11, rel=0.05)


def test_settings_are_all_bindings_with_defaults_and_read_back(tmp_path):
    config.parse(["gin/cifar100_cpu.gin"], ["search.gamma_st = 0.5"])
    roots = ("dataset", "teacher", "student", "search")
    found = config.settings(*roots)
    assert found["search.gamma_st"] == "0.5"
    assert found["search.clip"] == "True"  # a default
    assert found["search.precision"] == "'mixed_bfloat16'"  # a macro
    assert found["search/cosine.initial"] == "0.1"  # behind two references
    assert found["teacher/wide_resnet.depth"] == "28"
    assert not any("distill" in name for name in found)
    text = "\n".join(f"{name} = {value}" for name, value in found.items())
    (tmp_path / "config.gin").write_text(text)
    config.parse([tmp_path / "config.gin"], [])
    assert config.settings(*roots) == found


@pytest.mark.parametrize(
    ("binding", "told"),
    [
        ("serch.epochs = 3", "No configurable matching 'serch'"),
        ("search.epoch = 3", "doesn't have a parameter named 'epoch'"),
        ("search.epochs = = 3", "is not right"),
        ("search.workdir = 'x'", "denylisted"),
        ("teacher = @wide_resnett", "No configurable matching reference '@wide_resnett'"),
        ("precison = 'float32'", "nothing uses the macro precison: did you mean precision"),
    ],
)
def test_binding_that_is_not_right_is_told(binding, told):
    with pytest.raises(UserError, match=told) as caught:
        config.parse(["gin/wrn.gin"], [binding])
    assert "\n" not in str(caught.value)


def test_macro_whose_uses_are_all_replaced_is_no_mistake():
    stages = ("train_teacher", "search", "distill")
    config.parse(["gin/cifar100_cpu.gin"], [f"{s}.precision = 'float32'" for s in stages])
    assert config.value("search", "precision") == "float32"


@pytest.mark.parametrize(
    ("binding", "told"),
    [
        ("search.epochs = 'three'", "search.epochs is set to 'three', but is like 40"),
        ("search.clip = 1", "search.clip is set to 1, but is like True"),
        ("search.initial = 0", "search.initial is set to 0, but is like 'last'"),
    ],
)
def test_value_of_another_kind_is_told(binding, told):
    config.parse(["gin/wrn.gin"], [binding])
    with pytest.raises(UserError, match=told):
        config.settings("search")


@pytest.mark.parametrize(
    ("bindings", "told"),
    [
        (["teacher = 3"], "teacher is a reference to a network"),
        (["teacher/wide_resnet.depth = 27"], r"depth 6n\+4"),
        (["teacher = @keras_file"], r"does not say keras_file\.path"),
        (
            ["teacher = @keras_file", "keras_file.path = 'gone.keras'"],
            r"no file gone\.keras",
        ),
    ],
)
def test_network_that_cannot_be_made_is_told(bindings, told):
    config.parse(["gin/wrn.gin"], bindings)
    with pytest.raises(UserError, match=told):
        config.network("teacher", _made()[0], seed=0)


def test_config_without_networks_is_told():
    config.parse([], ["search.epochs = 3"])
    with pytest.raises(UserError, match="the config names no teacher"):
        config.settings("teacher")


def test_unknown_file_is_told_with_what_is_close():
    with pytest.raises(UserError, match=r"no gin file gin/wnr\.gin: shipped are gin/wrn\.gin"):
        config.parse(["gin/wnr.gin"], [])


def test_shipped_files_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config.find_gin_file("gin/wrn.gin") == ROOT / "gin" / "wrn.gin"
    assert config.find_gin_file("wrn.gin") == ROOT / "gin" / "wrn.gin"
    (tmp_path / "wrn.gin").write_text("")
    assert config.find_gin_file("wrn.gin").resolve() == tmp_path / "wrn.gin"  # one's own first
