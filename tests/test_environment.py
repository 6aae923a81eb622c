"""bin/: how a Python with the dependencies is found or created, and how the tests are started."""

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import threading
import time

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(not (ROOT / "bin").is_dir(), reason="needs a clone")

SOURCES = ("bin", "requirements", "setup.py", "pyproject.toml")


@pytest.fixture
def clone(tmp_path):
    """A folder with the files that set up the environment."""
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    return tmp_path.resolve()


@pytest.fixture
def environment(clone):
    """bin/environment.py of the clone, as a module."""
    spec = importlib.util.spec_from_file_location("environment", clone / "bin/environment.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def require_missing_package(clone):
    """Adds a requirement that no Python has."""
    with open(clone / "requirements" / "runtime.txt", "a") as file:
        file.write("package-that-does-not-exist\n")


class Steps:
    """Replaces `subprocess.run`: records the steps that create .venv, and succeeds or fails."""

    def __init__(self, environment, monkeypatch, failing=()):
        self.commands = []
        self.failing = failing
        self.venv = environment.VENV
        monkeypatch.setattr(environment.subprocess, "run", self.run)

    def run(self, command, **kwargs):
        name = "install" if "install" in command else "venv"
        self.commands.append((name, command))
        if name == "venv":
            assert not self.venv.exists()
            (self.venv / "bin").mkdir(parents=True)
            (self.venv / "bin" / "python").touch()
        time.sleep(0.1)
        return subprocess.CompletedProcess(command, int(name in self.failing), "output of pip")

    @property
    def names(self):
        return [name for name, _ in self.commands]


def _installed(monkeypatch, versions):
    """Pretends that exactly these distributions are installed: {name: version}."""

    def version(name):
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(importlib.metadata, "version", version)


# --- Requirements ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("requirement", "versions", "is_installed"),
    [
        ("tqdm", {"tqdm": "4.70"}, True),
        ("tqdm", {}, False),
        ("tqdm", {"tqdm": None}, False),  # what a damaged installation reports
        ("keras>=3.12", {"keras": "3.12"}, True),
        ("keras>=3.12", {"keras": "3.12.0"}, True),
        ("keras>=3.12.0", {"keras": "3.12"}, True),
        ("keras>=3.12", {"keras": "3.9.1"}, False),
        ("keras>=3.12", {"keras": "4.0rc1"}, True),
        ("ruff==0.17.6", {"ruff": "0.17.6"}, True),
        ("ruff==0.17.6", {"ruff": "0.17.7"}, False),
        ("tensorflow>=2.20", {"tensorflow-cpu": "2.21.0"}, True),
        ("tensorflow>=2.20", {"tensorflow-cpu-aws": "2.19.1"}, False),
        ("tensorflow>=2.20", {"tf-nightly": "2.22.0.dev20260101"}, True),
        ("tensorflow>=2.20", {"tensorflow": "2.19.0", "tf-nightly": "2.22.0.dev1"}, True),
        ("tensorflow[and-cuda]>=2.20", {"tensorflow": "2.20.0"}, True),
    ],
)
def test_requirement_is_compared_with_the_installed_version(
    environment, monkeypatch, requirement, versions, is_installed
):
    _installed(monkeypatch, versions)
    assert environment.is_installed(requirement) is is_installed


@pytest.mark.parametrize(
    "path", sorted((ROOT / "requirements").glob("*.txt")), ids=lambda p: p.name
)
def test_requirement_files_can_be_read(environment, path):
    requirements = environment.read_requirements(path.stem)
    assert requirements
    for requirement in requirements:
        assert environment.REQUIREMENT.fullmatch(requirement), requirement


def test_requirement_that_cannot_be_read_is_named(environment, capsys):
    with pytest.raises(SystemExit) as exit_:
        environment.is_installed("keras<4")
    assert exit_.value.code == 2
    assert "'keras<4'" in capsys.readouterr().err


def test_python_with_all_requirements_is_used(environment, monkeypatch):
    steps = Steps(environment, monkeypatch)
    assert environment.find_python("test") == sys.executable
    assert steps.names == []


def test_extras_are_required_only_if_asked_for(environment, monkeypatch, clone):
    (clone / "requirements" / "test.txt").write_text("package-that-does-not-exist\n")
    assert environment.missing_requirements() == []
    assert environment.missing_requirements("test") == ["package-that-does-not-exist"]


# --- Creating .venv -------------------------------------------------------------------------------


def test_missing_requirement_creates_an_environment_once(
    environment, monkeypatch, require_missing_package, capsys
):
    steps = Steps(environment, monkeypatch)
    python = str(environment.VENV / "bin" / "python")
    assert environment.find_python() == python
    assert steps.names == ["venv", "install"]
    assert f"{environment.ROOT}[test,lint]" in steps.commands[1][1]
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert environment.find_python() == python
    assert steps.names == ["venv", "install"]


def test_script_is_restarted_in_the_environment(environment, monkeypatch, require_missing_package):
    Steps(environment, monkeypatch)
    monkeypatch.setattr(sys, "argv", ["bin/search", "--seed=1"])
    monkeypatch.setattr(sys, "path", [*sys.path])
    started = []
    monkeypatch.setattr(os, "execv", lambda *call: started.append(call))
    environment.ensure()
    python = str(environment.VENV / "bin" / "python")
    assert started == [(python, [python, "bin/search", "--seed=1"])]


def test_incomplete_environment_is_created_again(environment, monkeypatch, require_missing_package):
    steps = Steps(environment, monkeypatch)
    (environment.VENV / "bin").mkdir(parents=True)
    environment.find_python()
    assert steps.names == ["venv", "install"]


def test_environment_whose_python_was_removed_is_created_again(
    environment, monkeypatch, require_missing_package
):
    steps = Steps(environment, monkeypatch)
    environment.find_python()
    (environment.VENV / "bin" / "python").unlink(missing_ok=True)
    environment.find_python()
    assert steps.names == ["venv", "install", "venv", "install"]


@pytest.mark.parametrize("target", [".venv", "elsewhere"])
def test_link_to_no_environment_is_replaced(
    environment, monkeypatch, require_missing_package, clone, target
):
    """A loop, and a folder that stays as it is."""
    (clone / "elsewhere" / "bin").mkdir(parents=True)
    environment.VENV.symlink_to(clone / target)
    steps = Steps(environment, monkeypatch)
    environment.find_python()
    assert steps.names == ["venv", "install"]
    assert not environment.VENV.is_symlink()
    assert not any((clone / "elsewhere" / "bin").iterdir())


def test_folder_that_cannot_be_written_is_an_error(
    environment, monkeypatch, require_missing_package, capsys
):
    monkeypatch.setattr(environment, "ROOT", environment.ROOT / "missing")
    with pytest.raises(SystemExit) as caught:
        environment._create()
    assert caught.value.code == 2
    assert str(environment.VENV) in capsys.readouterr().err


@pytest.mark.parametrize("changed", ["setup.py", "pyproject.toml", "requirements/gpu.txt"])
def test_environment_is_created_again_if_a_file_with_dependencies_changes(
    environment, monkeypatch, require_missing_package, clone, changed
):
    steps = Steps(environment, monkeypatch)
    environment.find_python()
    with open(clone / changed, "a") as file:
        file.write("# changed\n")
    environment.find_python()
    assert steps.names == ["venv", "install"] * 2


def test_complete_environment_without_a_requirement_is_an_error(
    environment, monkeypatch, require_missing_package, capsys
):
    Steps(environment, monkeypatch)
    environment.find_python()
    capsys.readouterr()
    monkeypatch.setattr(sys, "prefix", str(environment.VENV))
    with pytest.raises(SystemExit) as exit_:
        environment.find_python()
    assert exit_.value.code == 2
    message = capsys.readouterr().err
    assert str(environment.VENV) in message
    assert "package-that-does-not-exist" in message


def test_second_command_waits_for_the_first(environment, monkeypatch, require_missing_package):
    steps = Steps(environment, monkeypatch)
    threads = [threading.Thread(target=environment.find_python) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert steps.names == ["venv", "install"]


@pytest.mark.parametrize("step", ["venv", "install"])
def test_failing_step_exits_with_status_2_and_is_repeated(
    environment, monkeypatch, require_missing_package, capsys, step
):
    steps = Steps(environment, monkeypatch, failing=[step])
    with pytest.raises(SystemExit) as exit_:
        environment.find_python()
    assert exit_.value.code == 2
    *_, output, last_line = capsys.readouterr().err.splitlines()
    assert output == "output of pip"
    assert " ".join(steps.commands[-1][1]) in last_line
    steps.failing = ()
    environment.find_python()
    assert steps.names[-2:] == ["venv", "install"]


def test_output_of_a_failing_installation_is_printed(clone, require_missing_package):
    """A stand-in for Python 3.13 creates an environment whose pip fails."""
    (clone / "path").mkdir()
    python = clone / "path" / "python3.13"
    python.write_text(
        "#!/bin/sh\n"
        'if [ "$2" = venv ]; then mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; exit 0; fi\n'
        'if [ "$2" = pip ]; then echo "no such package"; exit 1; fi\n'
    )
    python.chmod(0o755)
    code = (
        "import sys, runpy\n"
        "sys.version_info = (3, 99)\n"
        f"sys.argv = ['search']; sys.path.insert(0, '{clone}/bin')\n"
        f"runpy.run_path('{clone}/bin/search', run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"PATH": f"{clone}/path:{os.environ['PATH']}"},
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "no such package" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("search: ")


def test_unsupported_python_is_named(environment, monkeypatch, require_missing_package, capsys):
    Steps(environment, monkeypatch)
    monkeypatch.setattr(sys, "version_info", (3, 99, 0))
    monkeypatch.setattr(sys, "version", "3.99.0 (main)")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SystemExit) as exit_:
        environment.find_python()
    assert exit_.value.code == 2
    (message,) = capsys.readouterr().err.splitlines()
    assert "3.10 to 3.13" in message
    assert "3.99.0" in message


# --- bin/test -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "processes"),
    [
        ("", 2),
        ("-q -x -k recorded --durations=3", 2),
        ("CLONE/tests", 2),
        ("-n 1", 1),
        ("-m slow", 0),
        ("-s", 0),
        ("CLONE/tests/test_sample.py::test_fast_is_recorded", 0),
    ],
)
def test_fast_tests_run_in_two_processes(clone, tmp_path_factory, arguments, processes):
    (clone / "tests").mkdir()
    (clone / "tests" / "test_sample.py").write_text(
        "import os, pathlib, pytest\n"
        "def record(name):\n"
        "    workers = os.environ.get('PYTEST_XDIST_WORKER_COUNT', '0')\n"
        "    pathlib.Path(__file__).with_name(name).write_text(workers)\n"
        "def test_fast_is_recorded(): record('fast')\n"
        "@pytest.mark.slow\n"
        "def test_slow_is_recorded(): record('slow')\n"
    )
    done = subprocess.run(
        [sys.executable, clone / "bin/test", *arguments.replace("CLONE", str(clone)).split()],
        cwd=tmp_path_factory.mktemp("elsewhere"),
        env={k: v for k, v in os.environ.items() if not k.startswith("PYTEST")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    written = {name for name in ("fast", "slow") if (clone / "tests" / name).exists()}
    assert written == {"slow" if "slow" in arguments.split() else "fast"}
    assert (clone / "tests" / written.pop()).read_text() == str(processes)


# --- Files of the repository ----------------------------------------------------------------------


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs a clone")
def test_no_file_of_the_repository_is_a_link():
    """A link to .venv, say, points to nothing on another machine."""
    listing = subprocess.run(
        ["git", "ls-files", "--stage"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert listing
    assert [line for line in listing if line.startswith("120000")] == []


# --- Names and versions in several files ----------------------------------------------------------


def test_every_command_has_a_script_and_an_entry_point():
    from dfa_tf.commands import options

    commands = sorted(options.DESCRIPTIONS)
    scripts = {path.name for path in (ROOT / "bin").iterdir() if path.is_file()}
    assert sorted(scripts - {"environment.py", "test"}) == commands
    for command in commands:
        assert f'environment.run("{command}")' in (ROOT / "bin" / command).read_text()
    entry_points = re.findall(
        r'^dfa-([\w-]+) = "dfa_tf\.commands\.scripts:(\w+)"$',
        (ROOT / "pyproject.toml").read_text(),
        re.MULTILINE,
    )
    assert sorted(entry_points) == [(command.replace("_", "-"), command) for command in commands]


def test_pre_commit_uses_the_ruff_version_of_the_requirements():
    (pinned,) = re.findall(
        r"^ruff==([\d.]+)", (ROOT / "requirements/lint.txt").read_text(), re.MULTILINE
    )
    config = (ROOT / ".pre-commit-config.yaml").read_text()
    (used,) = re.findall(r"ruff-pre-commit\n\s+rev: v([\d.]+)", config)
    assert used == pinned
