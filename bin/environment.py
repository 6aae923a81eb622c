"""Sees to it that the commands in this folder run in a Python that has what they need.

Needs nothing but the standard library. Where dfa_tf's dependencies can be imported, this Python
is used as it is; else a virtual environment, .venv beside this folder, is made from setup.py.
"""

import fcntl
import hashlib
import importlib.metadata
import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
OLDEST, NEWEST = (3, 10), (3, 13)  # of Python, that TensorFlow is built for
OLDEST_PACKAGES = {"tensorflow": (2, 20), "keras": (3, 12)}
MODULES = [
    "PIL",
    "absl",
    "ai_edge_litert",
    "gin",
    "importlib_resources",
    "keras",
    "matplotlib",
    "requests",
    "scipy",
    "sklearn",
    "tensorboard",
    "tensorflow",
    "tensorflow_datasets",
    "tqdm",
    "wrapt",
]


def ensure(extra_modules=()):
    """Returns in a Python that has all modules, after starting this command anew if need be."""
    sys.path.insert(0, str(ROOT))
    if all(_is_installed(module) for module in (*MODULES, *extra_modules)):
        return
    python = VENV / "bin" / "python"
    if not _is_complete():
        _make()
    elif pathlib.Path(sys.prefix) == VENV:
        _fail(f"{VENV} lacks packages: remove it, it is made again")
    os.execv(python, [str(python), *sys.argv])


def _is_installed(module):
    spec = importlib.util.find_spec(module)
    # A folder of that name, such as this repository's gin/, is no package: it has no origin.
    return spec is not None and spec.origin is not None and _is_new_enough(module)


def _is_new_enough(module):
    if module not in OLDEST_PACKAGES:
        return True
    try:
        version = importlib.metadata.version(module).split(".")
    except importlib.metadata.PackageNotFoundError:  # it comes in a package of another name
        return True
    return tuple(map(int, version[:2])) >= OLDEST_PACKAGES[module]


def _make():
    with open(ROOT / ".venv.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second command waits for the first
        if _is_complete():
            return
        print(f"setting up {VENV} (once, some minutes)", file=sys.stderr, flush=True)
        shutil.rmtree(VENV, ignore_errors=True)
        install = [str(VENV / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        for step in (
            [_suitable_python(), "-m", "venv", str(VENV)],
            [*install, "--editable", f"{ROOT}[test]"],
        ):
            done = subprocess.run(step, stdout=sys.stderr)
            if done.returncode:
                _fail(f"setting up {VENV} failed at: {' '.join(step)}")
        _stamp().write_text(_recipe())


def _is_complete():
    """Whether .venv was made to its end, from the present setup.py."""
    try:
        return _stamp().read_text() == _recipe()
    except OSError:
        return False


def _stamp():
    return VENV / "made-from"


def _recipe():
    return hashlib.sha256((ROOT / "setup.py").read_bytes()).hexdigest()


def _suitable_python():
    """This Python, or another one that TensorFlow is built for."""
    if OLDEST <= sys.version_info[:2] <= NEWEST:
        return getattr(sys, "_base_executable", sys.executable)  # .venv's own may be removed
    for minor in range(NEWEST[1], OLDEST[1] - 1, -1):
        found = shutil.which(f"python3.{minor}")
        if found:
            return found
    _fail(f"Python 3.{OLDEST[1]} to 3.{NEWEST[1]} is needed, this is {sys.version.split()[0]}")


def _fail(message):
    print(f"{pathlib.Path(sys.argv[0]).name}: {message}", file=sys.stderr)
    sys.exit(2)
