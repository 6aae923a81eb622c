"""Gin: every shipped config works, and a wrong binding is named in one line."""

import numpy as np
import pytest

from dfa_tf import methods
from dfa_tf.commands.plan import OF_COMMANDS
from dfa_tf.config import ROLES, Config, find_gin_file
from dfa_tf.errors import UserError
from dfa_tf.methods.connectors import check_same_groups
from dfa_tf.stages.distill import distill
from dfa_tf.stages.search import search
from dfa_tf.stages.teacher import train_teacher
from dfa_tf.training.optimizers import SGD, Adam, Cosine, StepDecay
from dfa_tf.training.runtime import Runtime
from tests.conftest import ROOT, made_examples

SHIPPED = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "gin").rglob("*.gin"))
METHODS = [path for path in SHIPPED if path.startswith("gin/methods/")]  # for another config
COMPLETE = [path for path in SHIPPED if path not in METHODS]
OFFLINE = {  # bindings in place of files to download
    "gin/photos.gin": [f"{role}/keras_application.weights = None" for role in ROLES]
}


def _made(config):
    """Returns the task of the config's data set, and a few made images in its place."""
    name = config.value("dataset", "name")
    shape, classes = {
        "digits": ((8, 8, 1), 10),
        "cifar100": ((32, 32, 3), 100),
        "cinic10": ((32, 32, 3), 10),
        "folder:photos": ((64, 64, 3), 10),
        "imagenet2012": ((64, 64, 3), 1000),
    }[name]
    statistics = {"mean": (0.5,) * shape[-1], "std": (0.25,) * shape[-1]}
    task = {"num_classes": classes, "image_shape": shape, **statistics}
    return task, made_examples(2 * classes, shape=shape, classes=classes)


@pytest.mark.parametrize("path", COMPLETE)
def test_shipped_config_builds_its_networks(path):
    config = Config([path], OFFLINE.get(path, []))
    task, _ = _made(config)
    teacher, student = (config.network(role, task, seed=1)[0] for role in ROLES)
    check_same_groups(teacher, student)
    assert config.settings("dataset", "train_teacher", "search", "distill", "runtime")


DRIVEN = (
    "gin/digits.gin",
    "gin/wrn.gin",
    "gin/cifar100_cpu.gin",
    "gin/reproduce_cpu.gin",
    "gin/wrn_pair1.gin",
    "gin/wrn_pair2.gin",
    "gin/cinic10_pair3.gin",
    "gin/dfa_t_search_cpu.gin",
)


@pytest.mark.slow
@pytest.mark.parametrize("path", DRIVEN)
def test_shipped_config_runs_two_steps(path, tmp_path):
    # bfloat16, which many CPUs emulate slowly, is covered by the tests of the stages.
    config = Config([path], ["precision = 'float32'"])
    task, made = _made(config)
    networks = {role: config.network(role, task, seed=1)[0] for role in ROLES}
    common = {"workdir": tmp_path, "runtime": Runtime(quiet=True, evaluate_every=1e9)}

    def run(function, **arguments):
        name = function.__name__
        assert config.value(name, "batch_size") in (64, 96, 128)
        settings = config.stage(name, epochs=2 * 4 / len(made), batch_size=4)
        settings = {key: value for key, value in settings.items() if key not in OF_COMMANDS}
        return function(**settings, **common, **arguments)

    teacher = run(train_teacher, network=networks["teacher"], train=made)
    alpha = run(
        search,
        teacher=teacher,
        student=networks["student"],
        train=made,
        validation=made,
    )
    groups = sum(len(group.features) > 1 for group in alpha.groups)
    assert alpha.steps == 2 * groups
    student = run(distill, teacher=teacher, student=networks["student"], alpha=alpha, train=made)
    assert student.name == networks["student"].name
    assert np.isfinite(student.get_weights()[0]).all()


@pytest.mark.parametrize("name", sorted(methods.METHODS))
def test_every_method_has_a_config_with_its_defaults(name):
    config = Config(["gin/wrn.gin", f"gin/methods/{name}.gin"])
    (chosen,) = config.value("distill", "methods")
    assert chosen == methods.METHODS[name]()
    assert config.value("distill", "epochs") == 200  # from the other config


def test_dfa_is_the_default_method_and_its_bindings_apply(tmp_path):
    own = "teacher = @teacher/wide_resnet\nteacher/wide_resnet.depth = 10\nstudent = @teacher/wide_resnet"
    (tmp_path / "own.gin").write_text(own)
    config = Config([tmp_path / "own.gin"], ["dfa.gamma_fd = 0.5"])
    (method,) = config.value("distill", "methods")
    assert (method.name, method.gamma_fd) == ("dfa", 0.5)
    assert config.settings("distill")["dfa.gamma_fd"] == "0.5"


def test_method_without_brackets_is_named():
    with pytest.raises(UserError, match=r"distill\.methods"):
        Config(["gin/wrn.gin"], ["distill.methods = [@kd]"])


def test_methods_can_be_combined_with_weights():
    bindings = ["distill.methods = [@dfa(), @kd()]", "distill.weights = (1.0, 0.5)"]
    config = Config(["gin/wrn.gin"], [*bindings, "kd.temperature = 2.0"])
    dfa, kd = config.value("distill", "methods")
    assert (dfa.name, kd.name, kd.temperature) == ("dfa", "kd", 2.0)
    assert config.value("distill", "weights") == (1.0, 0.5)
    recorded = config.settings("distill")
    assert recorded["kd.temperature"] == "2.0"
    assert recorded["dfa.gamma_fd"] == "0.001"


@pytest.mark.parametrize("path", SHIPPED)
def test_shipped_config_begins_with_command_cost_and_result(path):
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
def test_cinic10_configs_bind_the_papers_settings(pair):
    """DFA §4.2, its Table 4, and the learning rate for ShuffleNetV2."""
    config = Config([f"gin/cinic10_pair{pair}.gin"])
    found = config.stage("search")
    assert (found["training"].epochs, found["training"].batch_size) == (5, 96)
    assert found["beta_optimizer"] == Adam(1e-3, 0.5, 0.999, 1e-3)
    assert found["training"].optimizer == SGD(Cosine(0.01, 0.0), 0.9, True, 5e-4)
    for stage in ("train_teacher", "distill"):
        training = config.stage(stage)["training"]
        assert (training.epochs, training.batch_size) == (140, 96)
        assert training.optimizer == SGD(StepDecay(0.01, 0.1, (100, 120)), 0.9, True, 5e-4)
    task, _ = _made(config)
    widths = [config.network(role, task, seed=0)[0].name for role in ROLES]
    assert (
        widths
        == {
            1: ["ShuffleNetV2_x2", "ShuffleNetV2_x1"],
            2: ["ShuffleNetV2_x2", "ShuffleNetV2_x0_5"],
            3: ["ShuffleNetV2_x1", "ShuffleNetV2_x0_5"],
        }[pair]
    )


def test_wrn_config_binds_the_papers_settings():
    """DFA §3.4 and §4.1."""
    config = Config(["gin/wrn.gin"])
    found = config.stage("search")
    options, training = found["options"], found["training"]
    assert (options.gamma_st, options.gamma_ts, options.initial) == (1e-3, 1.0, "last")
    assert (training.epochs, training.batch_size) == (40, 128)
    assert found["beta_optimizer"] == Adam(1e-3, 0.5, 0.999, 1e-3)
    assert training.optimizer == SGD(Cosine(0.1, 0.0), 0.9, True, 5e-4)
    schedule = SGD(StepDecay(0.1, 0.2, (60, 120, 160)), 0.9, True, 5e-4)
    for stage in ("train_teacher", "distill"):
        training = config.stage(stage)["training"]
        assert (training.epochs, training.batch_size) == (200, 128)
        assert training.optimizer == schedule
    assert config.value("distill", "methods")[0].gamma_fd == 1e-3


def test_distpro_config_binds_the_authors_settings():
    """The sources are in docs/systems.md. `Adam` has no decay here."""
    config = Config(["gin/distpro.gin"])
    found = config.stage("search_process")
    training = found["training"]
    assert (training.epochs, training.batch_size) == (40, 128)
    assert training.optimizer == SGD(0.1, 0.9, True, 5e-4)
    assert found["alpha_optimizer"] == Adam(0.1, 0.5, 0.999, 0.0)
    assert found["options"].normalization == "biased"
    assert config.value("dataset", "validation_fraction") == 0.2
    training = config.stage("distill")["training"]
    assert training.epochs == 240
    assert training.optimizer == SGD(StepDecay(0.1, 0.1, (150, 180, 210)), 0.9, True, 5e-4)
    weights = config.value("distill", "weights")
    assert (weights.name, weights.threshold, weights.final) == ("process", 0.5, False)


def test_adaptive_config_binds_the_authors_settings():
    """Four paths whose weights lambda and cross entropy are 1, of ResNet_50 and ResNet_18."""
    config = Config(["gin/adaptive.gin"])
    task, _ = _made(config)
    names = [config.network(role, task, seed=0)[0].name for role in ROLES]
    assert names == ["ResNet_50_cifar", "ResNet_18_cifar"]
    at, nst, logits, kd = sorted(
        config.value("distill", "methods"),
        key=lambda m: ["at", "nst", "logits", "kd"].index(m.name),
    )
    assert (at.form, at.beta) == ("code", 1)
    assert (nst.form, nst.weight / 2) == ("gram", 1)
    assert (logits.weight, kd.alpha, kd.temperature) == (1, 1, 4)
    assert config.value("distill", "ce_weight") == 1
    assert config.value("distill", "weights").scale == 1
    for stage, decay in (("train_teacher", 5e-4), ("distill", 1e-4)):
        training = config.stage(stage)["training"]
        assert (training.epochs, training.batch_size) == (200, 128)
        optimizer = training.optimizer
        assert (optimizer.momentum, optimizer.nesterov, optimizer.weight_decay) == (
            0.9,
            False,
            decay,
        )


@pytest.mark.parametrize(
    ("path", "teacher", "student"),
    [
        ("gin/wrn.gin", "WRN_28_4", "WRN_16_2"),
        ("gin/wrn_pair1.gin", "WRN_28_4", "WRN_16_4"),
        ("gin/wrn_pair2.gin", "WRN_28_4", "WRN_28_2"),
        ("gin/cifar100_cpu.gin", "WRN_28_2", "WRN_16_1"),
    ],
)
def test_configs_name_the_pairs_of_table_1(path, teacher, student):
    config = Config([path])
    task, _ = _made(config)
    names = [config.network(role, task, seed=0)[0].name for role in ROLES]
    assert names == [teacher, student]


def test_short_searches_let_beta_move_as_far_as_the_papers():
    """Learning rate times steps per group near 11."""
    for path, examples in (
        ("gin/cifar100_cpu.gin", 35_000),
        ("gin/reproduce_cpu.gin", 14_000),
        ("gin/reproduce_smoke.gin", 7_000),
        ("gin/digits.gin", 908),
    ):
        config = Config([path])
        found = config.stage("search")
        steps = found["training"].steps(examples)
        assert found["beta_optimizer"].learning_rate * steps == pytest.approx(11, rel=0.05)


IMPORTS = [
    "import os",
    "import os.path as p",
    "from os import path",
    "from __gin__ import dynamic_registration",
    "import \\\n  os",
    "dfa.gamma_fd = 1.0\n\n   import os",
]


@pytest.mark.parametrize("text", IMPORTS)
def test_import_is_refused_before_it_runs(tmp_path, text, monkeypatch):
    """In the file, in an included one, and in a binding."""
    monkeypatch.setattr("importlib.import_module", lambda name: pytest.fail(f"{name} was imported"))
    (tmp_path / "inner.gin").write_text(text)
    (tmp_path / "outer.gin").write_text("include \\\n 'inner.gin'\n")
    for name in ("inner.gin", "outer.gin"):
        with pytest.raises(UserError, match=r"inner\.gin.*import"):
            Config([str(tmp_path / name)])
    with pytest.raises(UserError, match=r"gin_bindings.*import"):
        Config(["gin/digits.gin"], [text])


def test_code_of_a_config_does_not_run(tmp_path):
    """Dynamic registration, in a file that is included through another one."""
    marker = tmp_path / "marker"
    (tmp_path / "inner.gin").write_text(
        "from __gin__ import dynamic_registration\nimport subprocess\n"
        f"subprocess.getoutput.cmd = 'touch {marker}'\n"
    )
    (tmp_path / "outer.gin").write_text(
        "include 'gin/digits.gin'\ninclude 'inner.gin'\ndataset.name = @subprocess.getoutput()\n"
    )
    with pytest.raises(UserError):
        Config([str(tmp_path / "outer.gin")]).call("dataset")
    assert not marker.exists()


def test_gin_file_that_is_no_config_is_named(tmp_path):
    (tmp_path / "binary.gin").write_bytes(bytes(range(256)))
    (tmp_path / "self.gin").write_text("include 'self.gin'")
    (tmp_path / "a.gin").write_text("include 'b.gin'")
    (tmp_path / "b.gin").write_text("include 'a.gin'")
    for name in ("binary.gin", "self.gin", "a.gin"):
        with pytest.raises(UserError, match=name.replace(".", r"\.")) as error:
            Config([str(tmp_path / name)])
        assert "\n" not in str(error.value)


def test_gin_file_that_is_a_folder_is_named(tmp_path):
    with pytest.raises(UserError, match=rf"--gin_file: .*{tmp_path.name}"):
        Config([str(tmp_path)])


def test_missing_included_file_is_named_with_the_file_that_includes_it(tmp_path):
    (tmp_path / "outer.gin").write_text("include 'gone.gin'")
    with pytest.raises(UserError, match=r"outer\.gin: .*gone\.gin"):
        Config([str(tmp_path / "outer.gin")])


def test_included_file_is_the_one_next_to_the_file_that_includes_it(tmp_path):
    """Also if a shipped file, or an included file of another folder, has the same name."""
    for folder, epochs in (("a", 3), ("b", 5)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "digits.gin").write_text(f"search.epochs = {epochs}")
        (tmp_path / folder / "outer.gin").write_text("include 'digits.gin'")
    files = [tmp_path / folder / "outer.gin" for folder in "ab"]
    assert Config(files[:1]).value("search", "epochs") == 3
    assert Config(files).value("search", "epochs") == 5


@pytest.mark.parametrize("name", ["studnet/wide_resnet.width", "student/distill.epochs"])
def test_binding_in_a_scope_that_nothing_uses_is_named(name):
    with pytest.raises(UserError, match=rf"^{name}: "):
        Config(["gin/wrn.gin"], [f"{name} = 4"])


def test_settings_include_defaults_and_can_be_parsed_again(tmp_path):
    config = Config(["gin/cifar100_cpu.gin"], ["search.gamma_st = 0.5"])
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
    config = Config([tmp_path / "config.gin"])
    assert config.settings(*roots) == found


@pytest.mark.parametrize(
    ("binding", "named"),
    [
        ("serch.epochs = 3", "'serch'"),
        ("search.epoch = 3", "'epoch'"),
        ("search.epochs = = 3", "= = 3"),
        ("search.workdir = 'x'", "workdir"),
        ("search.seed = 1", "seed"),
        ("teacher = @wide_resnett", "'@wide_resnett'"),
        ("precison = 'float32'", "precison.*precision"),
        ("search.entry = 'stream'", r"search\.entry.*search\.tail_input"),
    ],
)
def test_wrong_binding_is_named(binding, named):
    with pytest.raises(UserError, match=named) as caught:
        Config(["gin/wrn.gin"], [binding])
    assert "\n" not in str(caught.value)


def test_macro_whose_uses_are_replaced_is_accepted():
    stages = ("train_teacher", "search", "distill")
    config = Config(["gin/cifar100_cpu.gin"], [f"{s}.precision = 'float32'" for s in stages])
    assert config.value("search", "precision") == "float32"


@pytest.mark.parametrize(
    ("binding", "setting"),
    [
        ("search.epochs = 'three'", r"search\.epochs.*'three'"),
        ("search.clip = 1", r"search\.clip"),
        ("search.initial = 0", r"search\.initial"),
        ("search/adam.weight_decay = -1.0", r"search/adam\.weight_decay"),
        ("search.optimizer = @search/cosine()", r"search\.optimizer"),
        ("search.epochs = None", r"search\.epochs"),
        ("search.beta_optimizer = @keras_file()", r"search\.beta_optimizer.*keras_file"),
        ("distill.methods = [@kd(), @wide_resnet()]", r"distill\.methods.*wide_resnet"),
        ("keras_file.groups = {'k': @student/wide_resnet()}", r"keras_file\.groups"),
        ("search.gamma_st = -1.0", r"search\.gamma_st"),
        ("search.precision = %precison", "precison"),
        ("train_teacher.count = 1000", r"train_teacher\.count"),
    ],
)
def test_value_of_another_type_is_named(binding, setting):
    with pytest.raises(UserError, match=setting):
        Config(["gin/wrn.gin"], [binding]).settings("search")


@pytest.mark.parametrize(
    ("bindings", "setting"),
    [
        (["teacher = 3"], "teacher"),
        (["teacher = @sgd()"], "teacher"),
        (["teacher/wide_resnet.depth = 27"], "depth"),
        (["teacher = @keras_file"], r"keras_file\.path"),
        (["teacher = @keras_file", "keras_file.path = 'gone.keras'"], r"gone\.keras"),
    ],
)
def test_wrong_network_is_named(bindings, setting):
    config = Config(["gin/wrn.gin"], bindings)
    with pytest.raises(UserError, match=setting):
        config.network("teacher", _made(config)[0], seed=0)


def test_missing_network_is_named():
    config = Config([], ["search.epochs = 3"])
    with pytest.raises(UserError, match="teacher"):
        config.settings("teacher")


def test_unknown_file_is_named_with_similar_ones():
    with pytest.raises(UserError, match=r"gin/wnr\.gin.*gin/wrn\.gin"):
        Config(["gin/wnr.gin"])


def test_shipped_files_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_gin_file("gin/wrn.gin") == ROOT / "gin" / "wrn.gin"
    assert find_gin_file("wrn.gin") == ROOT / "gin" / "wrn.gin"
    (tmp_path / "wrn.gin").write_text("")
    assert find_gin_file("wrn.gin").resolve() == tmp_path / "wrn.gin"  # the user's own file first


def test_configs_are_independent_values():
    """Parsing another config, or failing to, changes nothing about the first."""
    first = Config(["gin/wrn.gin"], ["search.epochs = 7"])
    with pytest.raises(UserError):
        Config(["gin/wrn.gin"], ["search.speed = 9"])
    second = Config(["gin/digits.gin"])
    assert first.value("search", "epochs") == 7
    assert second.value("search", "epochs") == 30
    assert first.value("search", "batch_size") == 128


def test_macro_that_refers_to_itself_is_named():
    with pytest.raises(UserError, match="precision"):
        Config(["gin/wrn.gin"], ["precision = %precision"])
