"""Several teachers, chains of students and weightings from the command line."""

import json
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

from dfa_tf import models
from dfa_tf.process import Process
from dfa_tf.stages.identity import fingerprint
from tests.commands.test_commands import SHORT, _last_line, _starts_with, command  # noqa: F401
from tests.conftest import ROOT, made_examples, same, small_network

FEED = ["--gin_bindings=distill.methods=[@feed()]", "--noexport"]
WEIGHTS = ["--gin_bindings=distill.methods=[@at(), @kd()]", "--noexport"]


def _json(path):
    return json.loads(path.read_text())


def _fingerprint(path):
    return fingerprint(models.load(path))


@pytest.mark.slow
def test_teachers_of_other_seeds_are_trained_in_folders_of_their_own(command, tmp_path):  # noqa: F811
    workdir = tmp_path / "runs" / "digits"
    status, _, err = command("distill", *SHORT, *FEED)
    assert status == 0, err
    first = (workdir / "teacher/model.keras").read_bytes()
    arguments = [*FEED, "--gin_bindings=train_teacher.count=2", "--workdir=runs/digits"]
    status, out, err = command("train_teacher", *SHORT, *arguments[-2:])
    assert status == 0, err
    assert (workdir / "teacher/model.keras").read_bytes() == first  # today's workdir stays valid
    status, _, err = command("distill", *SHORT, *arguments)
    assert status == 2  # the distillation has another teacher now
    assert "train_teacher.count" in _last_line(err)
    status, out, err = command("distill", *SHORT, *arguments, "--fresh")
    assert status == 0, err
    teachers = [_fingerprint(workdir / name / "model.keras") for name in ("teacher", "teacher_2")]
    assert teachers[0] != teachers[1]
    assert _json(workdir / "distill/metrics.json")["teachers"] == teachers
    for row in ("teacher ", "teacher_2 ", "FEED of 2"):
        assert row in out


@pytest.mark.slow
def test_each_generation_is_taught_by_the_one_before(command, tmp_path):  # noqa: F811
    status, out, err = command("distill", *SHORT, *FEED, "--gin_bindings=distill.generations=4")
    assert status == 0, err
    workdir = tmp_path / "runs" / "digits"
    chain = ["teacher/model.keras"]
    chain += [f"generation_{k}/distill/student.keras" for k in (2, 3)]
    folders = ["generation_2/distill", "generation_3/distill", "distill"]
    for teacher, folder in zip(chain, folders, strict=True):
        assert _json(workdir / folder / "metrics.json")["teachers"] == [
            _fingerprint(workdir / teacher)
        ]
    assert _fingerprint(workdir / chain[1]) != _fingerprint(workdir / chain[2])
    for row in ("generation 2 ", "generation 3 ", "FEED, generation 4"):
        assert row in out
    student = models.load(workdir / "distill/student.keras")
    plain = models.from_spec(student.spec)
    assert [w.shape for w in student.weights] == [w.shape for w in plain.weights]


@pytest.mark.slow
def test_killed_generation_resumes_to_the_same_student(tmp_path):
    """The process is killed when the student of generation 2 has saved its first checkpoint."""
    arguments = [*SHORT, *FEED, "--gin_bindings=distill.generations=3"]
    arguments += ["--gin_bindings=distill.epochs=3", "--gin_bindings=runtime.checkpoint_seconds=0"]
    distill = [sys.executable, str(ROOT / "bin" / "distill"), *arguments]
    workdirs = [tmp_path / name for name in ("straight", "killed")]
    subprocess.run([*distill, f"--workdir={workdirs[0]}"], check=True, capture_output=True)
    killed = [*distill, f"--workdir={workdirs[1]}"]
    process = subprocess.Popen(killed, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    checkpoints = workdirs[1] / "generation_2" / "distill" / "checkpoints"
    while process.poll() is None and not list(checkpoints.glob("*.index")):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    subprocess.run(killed, check=True, capture_output=True)
    for path in ("generation_2/distill/student.keras", "distill/student.keras"):
        students = [models.load(workdir / path).get_weights() for workdir in workdirs]
        assert same(*students)


@pytest.mark.slow
def test_changed_settings_of_a_finished_distillation_are_refused_before_anything_is_trained(
    command,  # noqa: F811
    tmp_path,
):
    workdir = tmp_path / "runs" / "digits"
    status, _, err = command("distill", *SHORT, *WEIGHTS)
    assert status == 0, err
    before = sorted(path.name for path in workdir.iterdir())
    for more, setting in (
        (["--gin_bindings=train_teacher.count=2"], "train_teacher.count"),
        (["--gin_bindings=distill.generations=3"], "distill.generations"),
        (["--gin_bindings=distill.weights=@process()"], "distill.weights"),
        (["--gin_bindings=distill.methods=[@dfa()]"], "distill.methods"),
    ):
        status, _, err = command("distill", *SHORT, *WEIGHTS, *more)
        assert status == 2
        assert setting in _last_line(err)
        assert sorted(path.name for path in workdir.iterdir()) == before


@pytest.mark.slow
def test_fresh_with_a_process_that_cannot_be_followed_keeps_the_student(command, tmp_path):  # noqa: F811
    searched = [*WEIGHTS, "--gin_bindings=distill.weights=@process()"]
    searched += ["--gin_bindings=search_process.epochs=1"]
    status, _, err = command("distill", *SHORT, *searched)
    assert status == 0, err
    student = tmp_path / "runs/digits/distill/student.keras"
    before = student.read_bytes()
    threshold = "--gin_bindings=process.threshold=50.0"
    status, _, err = command("distill", *SHORT, *searched, threshold, "--fresh")
    assert status == 2
    assert "process.threshold" in _last_line(err)
    assert student.read_bytes() == before


def test_search_of_a_config_that_needs_none_trains_nothing(command, tmp_path):  # noqa: F811
    status, _, err = command("search", *SHORT, "--gin_bindings=distill.methods=[@kd()]")
    assert status == 0
    assert "kd" in _last_line(err)
    assert not (tmp_path / "runs" / "digits").exists()


def _process(path, *paths):
    Process(list(paths), [0], [[1.0] * len(paths)], steps=1).save(path)
    return str(path)


CASES = {
    "count with a list": (
        [
            "--gin_bindings=teacher=[@a/wide_resnet, @b/wide_resnet]",
            *(f"--gin_bindings={s}/wide_resnet.{b}" for s in "ab" for b in ("depth=10", "width=1")),
            "--gin_bindings=train_teacher.count=2",
            *FEED,
        ],
        "train_teacher.count",
    ),
    "one teacher twice": (
        ["--gin_bindings=teacher=[@teacher/wide_resnet, @teacher/wide_resnet]", *FEED],
        "teacher",
    ),
    "no teacher": (["--gin_bindings=teacher=[]", *FEED], "teacher"),
    "one generation": (["--gin_bindings=distill.generations=1"], "distill.generations"),
    "generations of several teachers": (
        ["--gin_bindings=distill.generations=3", "--gin_bindings=train_teacher.count=2", *FEED],
        "distill.generations",
    ),
    "generations of plain training": (
        ["--gin_bindings=distill.generations=3", "--gin_bindings=distill.aggregation='none'"],
        "distill.generations",
    ),
    "generations of DFA": (["--gin_bindings=distill.generations=3"], "distill.generations"),
    "DFA of several teachers": (["--gin_bindings=train_teacher.count=2"], "dfa"),
    "adaptive weights without methods": (
        ["--gin_bindings=distill.methods=[]", "--gin_bindings=distill.weights=@adaptive()"],
        "distill.weights",
    ),
    "adaptive weights for a loss that can be negative": (
        ["--gin_bindings=distill.methods=[@vid()]", "--gin_bindings=distill.weights=@adaptive()"],
        "distill.weights",
    ),
    "adaptive weights for a term without weight": (
        [
            "--gin_bindings=distill.methods=[@rkd()]",
            "--gin_bindings=rkd.angle=0",
            "--gin_bindings=distill.weights=@adaptive()",
        ],
        "distill.weights",
    ),
    "adaptive weights for plain training": (
        ["--gin_bindings=distill.aggregation='none'", "--gin_bindings=distill.weights=@adaptive()"],
        "distill.weights",
    ),
    "search of a process for a method with pretraining": (
        ["--gin_bindings=distill.methods=[@ft()]", "--gin_bindings=distill.weights=@process()"],
        "distill.methods: ft",
    ),
    "search of a process with Adam": (
        [
            "--gin_bindings=distill.methods=[@at()]",
            "--gin_bindings=distill.weights=@process()",
            "--gin_bindings=search_process.optimizer=@adam()",
        ],
        "search_process.optimizer",
    ),
    "search of a layer-wise process": (
        [
            "--gin_bindings=distill.methods=[@at()]",
            "--gin_bindings=distill.weights=@process()",
            "--gin_bindings=process.layerwise=True",
        ],
        "process.layerwise",
    ),
    "search of a process with generations": (
        [
            "--gin_bindings=distill.methods=[@at()]",
            "--gin_bindings=distill.weights=@process()",
            "--gin_bindings=distill.generations=3",
        ],
        "distill.generations",
    ),
    "process for plain training": (
        ["--gin_bindings=distill.aggregation='none'", "--gin_bindings=distill.weights=@process()"],
        "distill.weights",
    ),
    "negative threshold": (
        ["--gin_bindings=distill.weights=@process()", "--gin_bindings=process.threshold=-1"],
        "process.threshold",
    ),
    "missing process": (
        [
            "--gin_bindings=distill.weights=@process()",
            "--gin_bindings=process.file='gone.json'",
            *WEIGHTS,
        ],
        "process.file: gone.json",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_wrong_setting_is_named_before_the_first_teacher_is_trained(command, tmp_path, name):  # noqa: F811
    arguments, setting = CASES[name]
    status, _, err = command("distill", *SHORT, *arguments)
    assert status == 2
    assert _starts_with(_last_line(err), "distill", setting), _last_line(err)
    assert not (tmp_path / "runs").exists()


PROCESS = {"format": 1, "paths": ["at", "kd"], "at": [0], "weights": [[1.0, 0.5]], "steps": 1}


@pytest.mark.parametrize(
    ("text", "threshold"),
    [
        (json.dumps(PROCESS)[:40], 0),
        (json.dumps(PROCESS | {"weights": [[1.0, -0.5]]}), 0),
        (json.dumps(PROCESS | {"weights": [[1.0, float("inf")]]}), 0),
        (json.dumps(PROCESS), 1.5),
    ],
    ids=["cut", "negative", "infinite", "below the threshold"],
)
def test_unusable_process_is_refused_before_the_first_teacher_is_trained(
    command,  # noqa: F811
    tmp_path,
    text,
    threshold,
):
    (tmp_path / "process.json").write_text(text)
    arguments = [
        "--gin_bindings=distill.weights=@process()",
        "--gin_bindings=process.file='process.json'",
        f"--gin_bindings=process.threshold={threshold}",
    ]
    status, _, err = command("distill", *SHORT, *WEIGHTS, *arguments)
    assert status == 2
    assert ("process.threshold" if threshold else "process.json") in _last_line(err)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("second", "named"),
    [
        (lambda: small_network(10, 2, seed=1), "number 1 and 2"),
        (lambda: models.wide_resnet(10, 1, 4, image_shape=(16, 16, 3)), "second.keras"),
        (lambda: models.wide_resnet(10, 1, 7, image_shape=(8, 8, 3)), "second.keras"),
    ],
    ids=["the same", "another image shape", "other classes"],
)
def test_unusable_second_teacher_is_named(command, tmp_path, second, named):  # noqa: F811
    """The data has 8x8 images in colour of 4 classes."""
    data = tmp_path / "photos"
    made = made_examples(48)
    for k, (image, label) in enumerate(zip(made.images, made.labels, strict=True)):
        (data / f"class{label}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(data / f"class{label}" / f"{k}.png")
    small_network(10, 2, seed=1).save(tmp_path / "first.keras")
    second().save(tmp_path / "second.keras")
    arguments = [
        "--strategy=default",
        f"--gin_bindings=dataset.name='folder:{data}'",
        "--gin_bindings=dataset.image_size=(8, 8)",
        "--gin_bindings=teacher=[@first/keras_file, @second/keras_file]",
        "--gin_bindings=first/keras_file.path='first.keras'",
        "--gin_bindings=second/keras_file.path='second.keras'",
        "--gin_bindings=distill.batch_size=8",
        f"--data_dir={tmp_path / 'tfds'}",
        *FEED,
    ]
    status, _, err = command("distill", *arguments)
    assert status == 2
    assert named in _last_line(err)
    assert not (tmp_path / "runs").exists()


def test_process_of_other_paths_is_refused_before_the_first_teacher_is_trained(command, tmp_path):  # noqa: F811
    path = _process(tmp_path / "process.json", "at", "feed")
    arguments = [
        "--gin_bindings=distill.weights=@process()",
        f"--gin_bindings=process.file='{path}'",
    ]
    status, _, err = command("distill", *SHORT, *WEIGHTS, *arguments)
    assert status == 2
    assert "at, kd" in _last_line(err)
    assert "at, feed" in _last_line(err)
    assert not (tmp_path / "runs").exists()


def test_alpha_of_several_teachers_is_refused_by_search(command, tmp_path):  # noqa: F811
    status, _, err = command("search", *SHORT, "--gin_bindings=train_teacher.count=2")
    assert status == 2
    assert "one teacher" in _last_line(err)
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_process_of_a_run_with_dfa_is_accepted(command, tmp_path):  # noqa: F811
    path = _process(tmp_path / "process.json", "feature_distillation", "kd")
    arguments = [
        "--gin_bindings=distill.methods=[@dfa(), @kd()]",
        "--gin_bindings=distill.weights=@process()",
        f"--gin_bindings=process.file='{path}'",
        "--gin_bindings=distill.aggregation='last'",
        "--noexport",
    ]
    status, _, err = command("distill", *SHORT, *arguments)
    assert status == 0, err
