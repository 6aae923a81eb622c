"""One stage's folder in a workdir: what it was made with, whether it is done, who works in it."""

import contextlib
import dataclasses
import fcntl
import hashlib
import inspect
import os
import pathlib
import shutil
import sys

from dfa_tf import files
from dfa_tf.errors import UserError
from dfa_tf.models.network import Network
from dfa_tf.training.loop import Runtime

CONFIG = "config.gin"
LOCK = ".lock"
INPUT = "# input "
MOST_DIFFERENCES = 6
PLACE = "keras_file.path"  # which may be another one on another machine: the weights are an input


class StageFolder:
    """WORKDIR/<stage>.

    artifact: name of the file that a finished stage leaves, written last.
    settings: {name: text} of all that shapes the result, as gin bindings. Where they have an
        `unbound`, those are at their defaults: a folder of an earlier version, which did not know
        them, has them too.
    inputs: {name: text} that identify what earlier stages gave.
    writes: whether this process writes here (of several workers, the chief alone does).
    """

    def __init__(self, workdir, stage, artifact, settings, inputs=None, writes=True):
        self.stage = stage
        self.path = pathlib.Path(workdir) / stage
        self.artifact = self.path / artifact
        self._lines = {f"{INPUT}{k}": v for k, v in (inputs or {}).items()} | settings
        self._unbound = getattr(settings, "unbound", ())
        self._writes = writes

    @property
    def _command(self):
        return "train_teacher" if self.stage == "teacher" else self.stage

    @property
    def config_text(self):
        """The stage's config.gin."""
        lines = [f"{name} = {value}" for name, value in self._lines.items()]
        return "\n".join([f"# What {self.stage} was run with.", *lines, ""])

    def is_finished(self):
        """Whether there is nothing left to do.

        Raises UserError where the folder was begun with other settings or inputs.
        """
        self._check_config()
        return os.path.exists(self.artifact)

    @contextlib.contextmanager
    def work(self, runtime=Runtime()):
        """Holds the folder while the stage runs, having told so; with runtime.fresh, empties it.

        Raises UserError where it cannot be written, or another process works in it.
        """
        if not self._writes:
            yield
            return
        with held(self.path):
            if runtime.fresh:
                self._clear()
            else:
                self._check_config()
            if not runtime.quiet:
                print(f"{self.stage}: {self.path}", file=sys.stderr)
            files.write_text(self.path / CONFIG, self.config_text)
            yield

    def _clear(self):
        """Empties the folder in an order that a kill may cut short anywhere: what is left is then
        never taken for a result, nor for the work of another config."""
        order = {self.artifact.name: 0, CONFIG: 2}
        for entry in sorted(self.path.iterdir(), key=lambda entry: order.get(entry.name, 1)):
            if entry.name == LOCK:
                continue
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()

    def _check_config(self):
        path = self.path / CONFIG
        if not os.path.exists(path):
            return
        recorded = dict(
            line.split(" = ", 1) for line in path.read_text().splitlines() if " = " in line
        )
        names = sorted({*recorded, *self._lines}, key=lambda name: (name.startswith("#"), name))
        differences = [
            "{} was {}, is {}".format(
                name.removeprefix("# "), *_short(recorded.get(name), self._lines.get(name))
            )
            for name in names
            if recorded.get(name) != self._lines.get(name)
            and not name.endswith(PLACE)
            and not (name in self._unbound and name not in recorded)
        ]
        if differences:
            told = "; ".join(differences[:MOST_DIFFERENCES])
            if len(differences) > MOST_DIFFERENCES:
                told += f"; and {len(differences) - MOST_DIFFERENCES} more"
            raise UserError(
                f"{self.path} was made with another config ({told}): choose another --workdir, go back to its config, or start it anew with {self._command} --fresh"
            )


@contextlib.contextmanager
def held(path):
    """Makes the folder `path`, without halves of files, and keeps other processes out of it.

    Raises UserError where it cannot be written, or another process holds it.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = _locked(path / LOCK)
    except BlockingIOError as error:
        raise UserError(
            f"another process works in {path}: wait for it, or choose another --workdir"
        ) from error
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror}): choose another --workdir"
        ) from error
    with lock:
        files.clear_unfinished(path)
        try:
            yield
        finally:
            (path / LOCK).unlink(missing_ok=True)


def _locked(path):
    while True:
        lock = open(path, "w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise
        except OSError:
            return lock  # a file system without locks
        # Between the two calls its holder may have ended, and removed it.
        if path.exists() and os.path.samestat(os.fstat(lock.fileno()), path.stat()):
            return lock
        lock.close()


def _short(*texts):
    """The texts, long ones cut to where they begin to differ; None for what is not bound."""
    texts = ["unbound" if text is None else text for text in texts]
    pairs = enumerate(zip(*texts, strict=False))
    common = next((k for k, pair in pairs if len(set(pair)) > 1), 0)
    start = max(0, common - 20) if max(map(len, texts)) > 60 else 0
    cut = [text[start : start + 60] for text in texts]
    return [
        ("..." if start else "") + part + ("..." if len(text) > start + 60 else "")
        for text, part in zip(texts, cut, strict=True)
    ]


def described(function, arguments):
    """{name: text} of a stage function's arguments: plain values, dataclasses of such, networks.

    What Python callers get as the stage's settings, in the place of gin bindings.
    """
    texts = {
        name: _text(arguments[name])
        for name in inspect.signature(function).parameters
        if name not in ("workdir", "runtime", "settings")
    }
    return {f"{function.__name__}.{name}": text for name, text in texts.items() if text}


def _text(value):
    """What tells an argument's value from another, None for what a stage's inputs say."""
    if isinstance(value, Network):
        return fingerprint(value)
    plain = isinstance(value, int | float | str | bool | tuple | list | type(None))
    return repr(value) if plain or _is_recipe(value) else None


def _is_recipe(value):
    return (
        dataclasses.is_dataclass(value)
        and value.__dataclass_params__.frozen
        and value.__dataclass_params__.eq
    )


def fingerprint(network):
    """Name and digest of a network's weights: tells one training from another."""
    digest = hashlib.sha256()
    for weight in network.get_weights():
        digest.update(weight.tobytes())
    return f"{network.name} {digest.hexdigest()[:12]}"
