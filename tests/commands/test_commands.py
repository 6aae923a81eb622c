"""The commands as a user calls them: results, exit status, one-line errors."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
import tensorflow as tf

from dfa_tf import models
from dfa_tf.commands import main, options
from dfa_tf.errors import UserError
from tests.conftest import ROOT, same, small_network

SHORT = [
    "--strategy=default",
    *(f"--gin_bindings={stage}.epochs={epochs}" for stage, epochs in
      (("train_teacher", 0.2), ("search", 0.3), ("distill", 0.2))),
    "--gin_bindings=teacher/wide_resnet.depth=16",
    "--gin_bindings=teacher/wide_resnet.width=1",
]  # fmt: skip
PLAIN = ["--gin_bindings=distill.aggregation='none'"]


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Runs a command in this process, in an empty folder: (exit status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    handlers = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}

    def run(name, *arguments):
        status = main.run(name, [name, *arguments])
        out, err = capsys.readouterr()
        return status, out, err

    yield run
    for each, handler in handlers.items():
        signal.signal(each, handler)


def _last_line(text):
    return text.strip().splitlines()[-1]


def _starts_with(line, command, named):
    """Returns whether an error line of a command starts with the full name of what is wrong."""
    start = f"{command}: {named}"
    return line.startswith(start) and line[len(start)] in ":;, "


def test_error_of_python_code_in_a_graph_is_one_line(command, monkeypatch):
    """As of damaged records. TensorFlow adds the traceback of the code to the message."""

    def read(_):
        raise UserError("data/photos: damaged")

    monkeypatch.setattr(main, "_run", lambda *_: tf.numpy_function(read, [0], tf.string))
    status, _, err = command("distill")
    assert status == 2
    assert err.splitlines() == ["distill: data/photos: damaged"]


@pytest.mark.slow
def test_distill_runs_all_stages_and_prints_a_table(command, tmp_path):
    status, out, err = command("distill", *SHORT)
    assert status == 0, err
    workdir = tmp_path / "runs" / "digits"
    for path in (
        "teacher/model.keras",
        "search/alpha.json",
        "search/alpha.png",
        "distill/student.keras",
        "export/saved_model/saved_model.pb",
        "export/student_float32.tflite",
        "export/export.json",
    ):
        assert (workdir / path).exists()
    table = out.strip().splitlines()
    assert [line.split("  ")[0] for line in table[2:]] == [
        "teacher WRN_16_1",
        "student WRN_10_1, DFA",
        "",
    ]
    accuracy = json.loads((workdir / "distill/metrics.json").read_text())["last"]["accuracy"]
    assert f"{accuracy:.4f}" in table[3]
    assert "runs/digits/distill/student.keras" in table[3]

    status, out, err = command("distill", *SHORT)  # again: nothing is left to do
    assert status == 0
    assert "runs/digits/distill/student.keras; restart it with --fresh" in err
    assert out.strip().splitlines() == table

    status, out, err = command("evaluate", "--strategy=default", "--out=evaluated")
    assert status == 0
    with open(tmp_path / "evaluated/distill_student_classes.csv") as file:
        classes = list(csv.DictReader(file))
    assert sum(int(row["correct"]) for row in classes) == round(500 * accuracy)
    assert (tmp_path / "evaluated/export_saved_model_confusion.png").exists()
    lines = [line for line in out.splitlines() if "student" in line or "saved_model" in line]
    assert len(lines) == 3
    assert all(f"accuracy {accuracy:.4f}" in line for line in lines)

    status, _, err = command("search", *SHORT, "--gin_bindings=search.gamma_st=0.5")
    assert status == 2
    assert "search.gamma_st was 0.001, is 0.5" in _last_line(err)
    assert "search --fresh" in _last_line(err)

    tflite = workdir / "export/student_float32.tflite"
    tflite.write_bytes(b"truncated")
    status, out, err = command("export", *SHORT)
    assert status == 0
    assert "student_float32" in out
    files = json.loads((workdir / "export/export.json").read_text())["files"]
    assert tflite.stat().st_size == files[0]["bytes"] > 100_000  # written again, with all others
    assert [file["kind"] for file in files] == ["float32", "float16", "dynamic", "int8", "uint8"]
    status, out, err = command("distill", *SHORT)
    assert status == 0
    assert len(json.loads((workdir / "export/export.json").read_text())["files"]) == 5
    assert "student_int8.tflite" in out

    metrics = workdir / "distill/metrics.json"
    text = metrics.read_text()
    metrics.write_text(text[:50])
    status, _, err = command("distill", *SHORT)
    assert status == 2
    assert "distill/metrics.json" in _last_line(err)
    assert "distill --fresh" in _last_line(err)
    metrics.write_text(text)

    # DFA-T: the same alpha in another workdir, without a search there.
    binding = f"distill.aggregation='{workdir}/search/alpha.json'"
    status, out, err = command(
        "distill", *SHORT, f"--gin_bindings={binding}", "--workdir=elsewhere", "--noexport"
    )
    assert status == 0, err
    assert not (tmp_path / "elsewhere" / "search").exists()
    assert not (tmp_path / "elsewhere" / "export").exists()


@pytest.mark.slow
def test_plain_student_needs_no_teacher_and_is_shown_beside_other_runs(command, tmp_path):
    plain = [*SHORT, "--gin_bindings=distill.aggregation='none'", "--workdir=runs/plain"]
    status, out, err = command("distill", *plain, "--noexport")
    assert status == 0, err
    assert not (tmp_path / "runs/plain/teacher").exists()
    assert "student WRN_10_1, plain" in out
    last = [*SHORT, "--gin_bindings=distill.aggregation='last'", "--workdir=runs/last"]
    status, out, err = command("distill", *last, "--noexport")
    assert status == 0, err
    assert "student WRN_10_1, plain" in out
    assert "student WRN_10_1, Last" in out


@pytest.mark.slow
def test_best_student_of_the_validation_part_is_kept_and_tested_once(command, tmp_path):
    """The digits have 1,297 training images, of which 30 % are validation images."""
    keep = [*SHORT, *PLAIN, "--gin_bindings=distill.keep='best'", "--noexport"]
    evaluations = ["--gin_bindings=runtime.evaluate_every=0.1"]
    status, out, err = command("distill", *keep, *evaluations)
    assert status == 0, err
    metrics = json.loads((tmp_path / "runs/digits/distill/metrics.json").read_text())
    assert (metrics["train_examples"], metrics["test_examples"]) == (907, 500)
    assert metrics["evaluated_on"] == "validation"
    assert metrics["best"]["step"] == metrics["kept_step"]
    (line,) = (line for line in out.splitlines() if "distill/student.keras" in line)
    assert f"{metrics['last']['accuracy']:.4f}" in line
    assert f"{metrics['best']['accuracy']:.4f}" not in line
    assert "validation accuracy" in err
    assert "test accuracy" not in err
    config = (tmp_path / "runs/digits/distill/config.gin").read_text()
    assert "distill.keep = 'best'" in config
    assert "dataset.validation_fraction = 0.3" in config

    status, _, err = command("distill", *keep, *evaluations)  # again: nothing is left to do
    assert status == 0
    assert "restart it with --fresh" in err
    status, _, err = command(
        "distill", *keep, *evaluations, "--gin_bindings=dataset.validation_fraction=0.2"
    )
    assert status == 2
    assert "dataset.validation_fraction was 0.3, is 0.2" in _last_line(err)


def test_teacher_from_a_file_keeps_its_layout(command, tmp_path):
    network = models.wide_resnet(16, 1, 10, image_shape=(8, 8, 1), mean=(0.3,), std=(0.4,))
    network.save(tmp_path / "mine.keras")
    bindings = [
        "--gin_bindings=teacher=@keras_file",
        "--gin_bindings=keras_file.path='mine.keras'",
    ]
    status, _, err = command("train_teacher", "--strategy=default", *bindings)
    assert status == 0, err
    assert models.load(tmp_path / "runs/digits/teacher/model.keras").spec == network.spec


@pytest.mark.parametrize(
    ("name", "arguments", "named"),
    [
        ("search", ["--gin_fil=gin/wrn.gin"], "Unknown command line flag 'gin_fil'."),
        ("search", ["--seed=first"], "flag --seed=first"),
        ("search", ["--strategy=fast"], "flag --strategy=fast"),
        ("benchmark", ["--strategy=multi_worker"], "flag --strategy=multi_worker"),
        ("search", ["gin/wrn.gin"], "expected no arguments, got 'gin/wrn.gin'"),
        ("search", ["--gin_file=gin/nothing.gin"], "--gin_file: gin/nothing.gin"),
        ("search", ["--gin_bindings=search.speed=9"], "--gin_bindings='search.speed=9'"),
        ("search", ["--gin_bindings=dataset.name='cifar1000'"], "dataset.name: unknown data set 'cifar1000'"),
        ("search", ["--gin_bindings=teacher/wide_resnet.depth=27"], "wide_resnet.depth"),
        ("train_teacher", ["--gin_bindings=train_teacher.batch_size=5000"], "train_teacher.batch_size"),
        ("search", [*SHORT, "--gin_bindings=search.batch_size=500"], "search.batch_size"),
        ("distill", ["--gin_bindings=distill.aggregation='best'"], "distill.aggregation"),
        ("distill", ["--gin_bindings=distill.aggregation='x.json'"], "x.json"),
        ("search", ["--gin_bindings=search.epochs='three'"], "search.epochs"),
        ("distill", ["--gin_bindings=distill.aggregation=3"], "distill.aggregation"),
        ("distill", ["--gin_bindings=dfa.gamma_fd='x'"], "dfa.gamma_fd"),
        ("distill", ["--gin_bindings=distill.optimizer=@sgd"], "distill.optimizer: expected @sgd()"),
        ("distill", ["--gin_bindings=distill.optimizer=0.1"], "distill.optimizer"),
        ("search", ["--gin_bindings=student/wide_resnet.width='2'"], "student/wide_resnet.width"),
        ("search", ["--gin_bindings=search.precision='float16'"], "search.precision"),
        (
            "distill",
            [
                "--gin_bindings=distill.methods=[@kd()]",
                "--gin_bindings=distill.teacher_views=1",
                "--gin_bindings=runtime.views_folder='/dev/null'",
            ],
            "runtime.views_folder",
        ),
        ("search", ["--gin_bindings=runtime.log_every=0"], "runtime.log_every"),
        ("search", ["--gin_bindings=dataset.pad=-1"], "dataset.pad"),
        ("search", ["--gin_bindings=dataset.pad=1.5"], "dataset.pad"),
        ("search", ["--gin_bindings=dataset.flip='no'"], "dataset.flip"),
        ("search", ["--gin_bindings=dataset.image_size=5"], "dataset.image_size"),
        ("search", ["--gin_bindings=dataset.in_memory='x'"], "dataset.in_memory"),
        ("search", ["--gin_bindings=search.optimizer=@search/cosine()"], "search.optimizer"),
        ("search", ["--gin_bindings=search/cosine.initial=-1"], "search/cosine.initial"),
        ("search", ["--strategy=multi_worker"], "--strategy=multi_worker: expected TF_CONFIG"),
        ("search", ["--gin_bindings=search.batch_size=64.5"], "search.batch_size"),
        ("train_teacher", ["--workdir=/proc/nowhere"], "/proc/nowhere/teacher"),
        ("evaluate", ["gone.keras"], "gone.keras"),
        ("evaluate", [], "runs/digits"),
        ("search", ["--gin_bindings=search.entry='stream'"], "search.entry: renamed; bind search.tail_input"),
        ("distill", ["--gin_bindings=distill.methods=[@kd(), @kd()]"], "distill.methods"),
        ("distill", ["--gin_bindings=distill.methods=[]"], "distill.methods"),
        ("distill", [*PLAIN, "--gin_bindings=distill.methods=[@kd()]"], "distill.aggregation"),
        ("distill", ["--gin_bindings=distill.ce_weight='x'"], "distill.ce_weight"),
        ("train_teacher", ["--gin_bindings=train_teacher.class_weights=[1, 2]"], "train_teacher.class_weights"),
        ("train_teacher", ["--gin_bindings=train_teacher.keep='first'"], "train_teacher.keep"),
        ("distill", ["--gin_bindings=distill.keep='first'"], "distill.keep"),
        ("distill", [*PLAIN, "--gin_bindings=distill.keep='best'", "--gin_bindings=dataset.validation_fraction=1.0"], "dataset.validation_fraction"),
        ("distill", ["--gin_bindings=distill.teacher_views=-1"], "distill.teacher_views"),
        ("distill", ["--gin_bindings=distill.teacher_views=1.5"], "distill.teacher_views"),
        ("distill", ["--gin_bindings=distill.teacher_views=1"], "distill.teacher_views: expected 0 with dfa"),
        ("distill", [*PLAIN, "--gin_bindings=distill.teacher_views=1"], "distill.teacher_views"),
        ("distill", ["--gin_bindings=distill.class_weights=[1, 2]"], "distill.class_weights"),
        ("distill", ["--gin_bindings=distill.class_weights=[1, 0]"], "distill.class_weights"),
        ("distill", ["--gin_bindings=export.input_dtype='int4'"], "export.input_dtype"),
        ("search", ["--gin_bindings=sgd.momentum=1.5", "--gin_bindings=search.optimizer=@sgd()"], "sgd.momentum"),
        ("search", ["--gin_bindings=teacher=@sgd()"], "teacher"),
        ("search", ["--gin_bindings=search.joint=1"], "search.joint"),
        ("distill", ["--gin_bindings=search.joint=True", "--gin_bindings=search.loss='student'"], "search.joint"),
        ("search", ["--gin_bindings=search.joint=True", "--gin_bindings=search.order=2"], "search.joint"),
        ("search", ["--gin_bindings=search.joint=True", "--gin_bindings=teacher/wide_resnet.depth=10"], "search.joint"),
    ],
)  # fmt: skip
def test_wrong_setting_is_named_in_one_line(command, tmp_path, name, arguments, named):
    status, _, err = command(name, "--strategy=default", *SHORT[1:3], *arguments)
    assert status == 2
    assert _starts_with(_last_line(err), name, named), _last_line(err)
    assert "Traceback" not in err
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_cached_logits_of_a_trained_teacher_are_used_again(command, tmp_path):
    """By the same command, by export, and by a command that finds the student deleted."""
    arguments = [
        *SHORT,
        "--gin_bindings=distill.methods=[@kd()]",
        "--gin_bindings=distill.teacher_views=1",
        "--gin_bindings=distill.epochs=2",
    ]
    workdir = tmp_path / "runs" / "digits"
    logits, student = workdir / "teacher_views/logits.npy", workdir / "distill/student.keras"
    weights = []
    for name in ("distill", "distill", "export", "distill"):
        status, _, err = command(name, *arguments)
        assert status == 0, err
        weights.append(models.load(student).get_weights())
        if name == "distill":
            created = os.stat(logits).st_ino, os.stat(logits).st_mtime
        if name == "export":
            shutil.rmtree(workdir / "distill")
    assert (os.stat(logits).st_ino, os.stat(logits).st_mtime) == created
    for each in weights[1:]:
        assert same(each, weights[0])
    with open(logits, "r+b") as file:
        file.seek(200)
        file.write(b"damaged")
    shutil.rmtree(workdir / "distill")
    status, _, err = command("distill", *arguments)
    assert status == 2
    assert "logits.npy" in _last_line(err)


def test_cached_logits_of_another_seed_are_refused_before_the_teacher_is_trained(command, tmp_path):
    """The teacher itself is unknown until then."""
    record = tmp_path / "runs/digits/teacher_views/record.json"
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"seed": 1, "teacher": ["unknown"]}))
    arguments = [
        *SHORT,
        "--gin_bindings=distill.methods=[@kd()]",
        "--gin_bindings=distill.teacher_views=1",
        "--gin_bindings=distill.epochs=2",
    ]
    status, _, err = command("distill", *arguments)
    assert status == 2
    assert _starts_with(_last_line(err), "distill", "distill.teacher_views")
    assert "seed was 1, is 0" in _last_line(err)
    assert " teacher was" not in _last_line(err)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [record]


def test_teacher_folder_without_a_config_is_named_and_kept(command, tmp_path):
    """Whatever the file is: nothing says where it comes from."""
    path = tmp_path / "runs/digits/teacher/model.keras"
    path.parent.mkdir(parents=True)
    cases = {
        "4 classes": lambda: small_network().save(path),
        "32, 32, 3": lambda: models.wide_resnet(10, 1, 10).save(path),
        "truncated": lambda: path.write_bytes(b"PK\x03\x04 truncated"),
    }
    for write in cases.values():
        write()
        before = path.read_bytes()
        status, _, err = command("search", *SHORT)
        assert status == 2
        assert "teacher/config.gin" in _last_line(err)
        assert path.read_bytes() == before


@pytest.mark.parametrize("name", options.DESCRIPTIONS)
def test_help_does_not_import_tensorflow(name):
    code = (
        "import sys, runpy\n"
        f"sys.argv = ['{name}', '--help']\n"
        "try:\n"
        f"    runpy.run_path('{ROOT}/bin/{name}', run_name='__main__')\n"
        "finally:\n"
        "    assert 'tensorflow' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "bin")},
    )
    assert done.returncode == 0, done.stderr
    for flag in ("gin_file", "gin_bindings", "workdir", "data_dir", "seed", "strategy"):
        assert f"--{flag}" in done.stdout
    assert done.stderr == ""


def _bin(name, *arguments, cwd, **more):
    return subprocess.Popen(
        [sys.executable, str(ROOT / "bin" / name), *arguments],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )


def test_error_is_one_line_on_stderr_and_status_2(tmp_path):
    process = _bin("search", "--gin_bindings=teacher/wide_resnet.depth=27", cwd=tmp_path)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert out == ""
    lines = [line for line in err.splitlines() if line]
    assert lines[-1].startswith("search: ")
    assert "wide_resnet.depth" in lines[-1]
    assert len(lines) == 1


@pytest.mark.parametrize(
    ("signum", "status"),
    [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)],
)
def test_signal_saves_and_says_how_to_continue(tmp_path, signum, status):
    arguments = ["--gin_bindings=train_teacher.epochs=500"]
    process = _bin("train_teacher", *arguments, cwd=tmp_path)
    for line in process.stderr:
        if "epoch 1.0" in line:
            break
    process.send_signal(signum)
    _, err = process.communicate(timeout=120)
    assert process.returncode == status
    assert "saved at step" in err
    assert "run the same command" in err
    assert "Traceback" not in err
    assert list((tmp_path / "runs/digits/teacher/checkpoints").glob("*.index"))


def test_unprepared_data_set_is_named_without_a_network(command, tmp_path, monkeypatch):
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    status, _, err = command(
        "search", "--strategy=default", "--gin_file=gin/wrn.gin", f"--data_dir={tmp_path}/empty"
    )
    assert status == 2
    assert "cifar100" in _last_line(err)
    assert f"{tmp_path}/empty" in _last_line(err)


def test_debug_shows_the_traceback_and_keeps_the_status(command):
    status, _, err = command("search", "--debug", "--gin_file=gin/nothing.gin")
    assert status == 2
    assert "Traceback" in err
    assert "gin/nothing.gin" in _last_line(err)


@pytest.mark.parametrize(
    ("name", "value"),
    [("search.loss", "'kd'"), ("search.final", "'best'"), ("search.initial", "'first'")],
)
def test_search_settings_are_checked_before_the_teacher_is_trained(command, tmp_path, name, value):
    status, _, err = command("search", *SHORT, f"--gin_bindings={name}={value}")
    assert status == 2
    assert name in err
    assert not (tmp_path / "runs").exists()
