"""Provides a Python that has the dependencies of the commands in this folder.

The running Python is used if the packages in requirements/ are installed for it. Otherwise, a
virtual environment is created in .venv, next to this folder. Both need the standard library only.

Run as a script, this file prints the path of a Python that also has the given extras:

    python3 bin/environment.py test lint
"""

import fcntl
import hashlib
import importlib.metadata
import operator
import os
import pathlib
import re
import shutil
import subprocess
import sys
from typing import NoReturn

ROOT = pathlib.Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
OLDEST, NEWEST = (3, 10), (3, 13)  # Python versions that TensorFlow is released for
VENV_EXTRAS = ("test", "lint")

# Distributions that provide the same package under another name.
ALTERNATIVES = {
    "keras": ["keras-nightly"],
    "tensorboard": ["tb-nightly"],
    "tensorflow": [
        "intel-tensorflow",
        "tensorflow-aarch64",
        "tensorflow-cpu",
        "tensorflow-cpu-aws",
        "tensorflow-macos",
        "tensorflow-rocm",
        "tf-nightly",
        "tf-nightly-cpu",
    ],
    "tensorflow-datasets": ["tfds-nightly"],
}
COMPARISONS = {">=": operator.ge, "==": operator.eq}
REQUIREMENT = re.compile(r"([\w.-]+)(?:\[[\w,-]+\])?(?:(>=|==)([\d.]+))?")


def run(command: str) -> None:
    """Runs a command of dfa_tf in a Python that has its dependencies."""
    ensure()
    from dfa_tf.commands.main import launch

    launch(command)


def ensure(*extras: str) -> None:
    """Restarts this script in another Python if requirements are missing.

    Args:
        *extras: Files of requirements/ to include, "test" for instance.
    """
    sys.path.insert(0, str(ROOT))
    python = find_python(*extras)
    if python != sys.executable:
        os.execv(python, [python, *sys.argv])


def find_python(*extras: str) -> str:
    """Returns the path of a Python that has all requirements. Creates .venv if needed."""
    missing = missing_requirements(*extras)
    if not missing:
        return sys.executable
    if not _is_complete():
        _create()
    elif pathlib.Path(sys.prefix) == VENV:
        _fail(f"{VENV}: {missing[0]} is missing; delete the folder to create it again")
    return str(VENV / "bin" / "python")


def missing_requirements(*extras: str) -> list[str]:
    """Returns the requirements that are not installed for the running Python."""
    requirements = [line for name in ("runtime", *extras) for line in read_requirements(name)]
    return [requirement for requirement in requirements if not is_installed(requirement)]


def read_requirements(name: str) -> list[str]:
    """Returns the requirements listed in requirements/NAME.txt, without comments."""
    lines = (ROOT / "requirements" / f"{name}.txt").read_text().splitlines()
    return [line for line in (line.partition("#")[0].strip() for line in lines) if line]


def is_installed(requirement: str) -> bool:
    """Returns whether a distribution is installed in a version that a requirement allows.

    Args:
        requirement: A name, optionally with ">=" or "==" and a release: "keras>=3.12".
    """
    parts = REQUIREMENT.fullmatch(requirement)
    if parts is None:
        _fail(f"requirements: expected NAME, NAME>=VERSION or NAME==VERSION, got {requirement!r}")
    name, comparison, release = parts.groups()
    installed = filter(None, map(_version, [name, *ALTERNATIVES.get(name, [])]))
    return any(
        comparison is None or COMPARISONS[comparison](_release(version), _release(release))
        for version in installed
    )


def _version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _release(version):
    """Returns the numbers of a version: (2, 21) for "2.21.0rc1"."""
    release = re.split(r"[^\d.]", version)[0]
    numbers = [int(number) for number in release.split(".") if number]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _create():
    try:
        _create_locked()
    except OSError as error:
        _fail(f"{VENV}: cannot be created ({error.strerror}); install the package with pip instead")


def _create_locked():
    with open(ROOT / ".venv.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second command waits for the first
        if _is_complete():
            return
        python = _supported_python()
        print(f"creating {VENV} (once, takes a few minutes)", file=sys.stderr, flush=True)
        if VENV.is_symlink():
            VENV.unlink()  # rmtree refuses a link
        shutil.rmtree(VENV, ignore_errors=True)
        pip = [str(VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
        package = f"{ROOT}[{','.join(VENV_EXTRAS)}]"
        for step in (
            [python, "-m", "venv", str(VENV)],
            [*pip, "install", "--quiet", "--editable", package],
        ):
            done = subprocess.run(step, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            if done.returncode != 0:
                print(done.stdout, file=sys.stderr)
                _fail(f"creating {VENV} failed at: {' '.join(step)}")
        _stamp().write_text(_digest())


def _is_complete():
    """Returns whether .venv was created to its end, from the present requirements."""
    try:
        # The link to Python dangles if the Python that it was created from was removed.
        return _stamp().read_text() == _digest() and (VENV / "bin" / "python").exists()
    except OSError:
        return False


def _stamp():
    return VENV / "created-from"


def _digest():
    """Returns a hash of all files that name dependencies."""
    files = [ROOT / "setup.py", ROOT / "pyproject.toml", *(ROOT / "requirements").glob("*.txt")]
    texts = [f"{file.name}\n{file.read_text()}" for file in sorted(files)]
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def _supported_python():
    """Returns the running Python, or another one that TensorFlow is released for."""
    if OLDEST <= sys.version_info[:2] <= NEWEST:
        return getattr(sys, "_base_executable", sys.executable)  # .venv/bin/python is deleted
    for minor in range(NEWEST[1], OLDEST[1] - 1, -1):
        python = shutil.which(f"python3.{minor}")
        # A version manager may provide a name for a Python that it cannot start.
        if python and subprocess.run([python, "-c", ""], capture_output=True).returncode == 0:
            return python
    _fail(f"expected Python 3.{OLDEST[1]} to 3.{NEWEST[1]}, got {sys.version.split()[0]}")


def _fail(message: str) -> NoReturn:
    print(f"{pathlib.Path(sys.argv[0]).name}: {message}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    print(find_python(*sys.argv[1:]))
