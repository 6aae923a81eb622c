"""The folder of a stage in a workdir: its config, its result and its lock."""

import contextlib
import dataclasses
import os
import pathlib
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from dfa_tf import files
from dfa_tf.errors import UserError
from dfa_tf.training.checkpoints import RunConfig
from dfa_tf.training.runtime import Runtime

CONFIG = "config.gin"
INPUT = "# input "
MAX_DIFFERENCES = 6
COMMANDS = {"teacher": "train_teacher", "process": "search"}  # where stages have other names
# Paths may differ between machines. What the files contain is recorded as an input.
IGNORED = ("keras_file.path", "process.file")


@dataclasses.dataclass(frozen=True)
class Record:
    """The origin of a run, as a stage records it.

    Attributes:
        dataset: Name of the data set.
        settings: The bindings to write to config.gin, `{name: text}`; None to record the stage's
            arguments. The mapping may have an attribute `unbound`, the names that no config binds
            and that have their defaults.
        entries: Further entries of metrics.json.
    """

    dataset: str = ""
    settings: Mapping[str, str] | None = None
    entries: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class StageFolder:
    """The folder WORKDIR/<stage>.

    Args:
        workdir: The workdir.
        stage: Name of the stage.
        artifact: Name of the result file. A stage writes it last.
        settings: All settings that affect the result, as gin bindings `{name: text}`. The mapping
            may have an attribute `unbound`, as in `Record`. A folder that does not record an
            unbound setting was written before the setting existed, and matches.
        inputs: Texts that identify the stage's inputs, `{name: text}`.
        writes: Whether this process writes to the folder. Among workers, only the chief does.
    """

    def __init__(
        self,
        workdir: str | pathlib.Path,
        stage: str,
        artifact: str,
        settings: Mapping[str, str],
        inputs: Mapping[str, str] | None = None,
        writes: bool = True,
    ):
        self.stage = stage
        self.path = pathlib.Path(workdir) / stage
        self.artifact = self.path / artifact
        self._lines = {f"{INPUT}{k}": v for k, v in (inputs or {}).items()} | dict(settings)
        self._unbound = getattr(settings, "unbound", ())
        self._writes = writes

    @property
    def config(self) -> RunConfig:
        """The content of the stage's config.gin."""
        lines = [f"{name} = {value}" for name, value in self._lines.items()]
        text = "\n".join([f"# The settings of {self.stage}.", *lines, ""])
        return RunConfig(text, self._check_text)

    def is_finished(self) -> bool:
        """Returns whether the stage is finished.

        Raises:
            UserError: If the folder was written with other settings or inputs.
        """
        self._check_config()
        return os.path.exists(self.artifact)

    def check_settings(self) -> None:
        """Checks that the folder was written with these settings, before the inputs are known.

        Raises:
            UserError: If it contains a result or a checkpoint of other settings.
        """
        if os.path.exists(self.path / CONFIG) and self._has_state():
            text = (self.path / CONFIG).read_text()
            lines = [line for line in text.splitlines() if not line.startswith(INPUT)]
            self._check_text("\n".join(lines), self.path)

    @contextlib.contextmanager
    def work(self, runtime: Runtime = Runtime()) -> Iterator[None]:
        """Locks the folder while the stage runs, and records its config.

        Args:
            runtime: With `fresh`, the folder is emptied first.

        Raises:
            UserError: If the folder cannot be written or another process works in it.
        """
        if not self._writes:
            yield
            return
        with locked(self.path):
            if not runtime.fresh:
                self._check_config()
            if runtime.fresh or not self._has_state():
                self._clear()  # without state, the files belong to a run that cannot be continued
            if not runtime.quiet:
                print(f"{self.stage}: {self.path}", file=sys.stderr)
            files.write_text(self.path / CONFIG, self.config.text)
            yield

    def _clear(self):
        """Empties the folder.

        The artifact is deleted first and the config last. If the process is killed in between, no
        result remains, and the remaining state still has its config.
        """
        order = {self.artifact.name: 0, CONFIG: 2}
        for entry in sorted(self.path.iterdir(), key=lambda entry: order.get(entry.name, 1)):
            if entry.name == files.LOCK:
                continue
            if entry.is_symlink() and entry.is_dir():  # a folder on another disk: the link stays
                for inner in entry.iterdir():
                    _delete(inner)
            else:
                _delete(entry)

    def _check_config(self):
        path = self.path / CONFIG
        if os.path.exists(path):
            if self._has_state():
                self._check_text(path.read_text(), self.path)
        elif self.path.is_dir() and any(
            entry.name != files.LOCK and not entry.name.startswith(files.WRITING)
            for entry in self.path.iterdir()
        ):
            raise UserError(
                f"{path}: file is missing, so the folder cannot be compared with the config; restore "
                f"it, choose another --workdir, or restart with {self._command} --fresh"
            )

    def _has_state(self):
        """Returns whether there is a result or a checkpoint: what another config must not continue."""
        # `rglob` does not follow links to folders on another disk.
        walked = os.walk(self.path, followlinks=True)
        names = (name for _, _, file_names in walked for name in file_names)
        return os.path.exists(self.artifact) or any(name.startswith("step-") for name in names)

    def _check_text(self, text, source):
        recorded = dict(line.split(" = ", 1) for line in text.splitlines() if " = " in line)
        if os.path.exists(self.artifact):
            # How examples were held affects their order, but a finished result remains valid.
            recorded, current = _without_in_memory(recorded), _without_in_memory(self._lines)
        else:
            current = self._lines
        names = sorted({*recorded, *current}, key=lambda name: (name.startswith("#"), name))
        differences = [
            "{} was {}, is {}".format(
                name.removeprefix("# "), *_shortened(recorded.get(name), current.get(name))
            )
            for name in names
            if recorded.get(name) != current.get(name)
            and not name.endswith(IGNORED)
            and not (name in self._unbound and name not in recorded)
        ]
        if differences:
            shown = "; ".join(differences[:MAX_DIFFERENCES])
            if len(differences) > MAX_DIFFERENCES:
                shown += f"; and {len(differences) - MAX_DIFFERENCES} more"
            advice = f"choose another --workdir, restore its config, or restart it with {self._command} --fresh"
            if _without_in_memory(recorded) == _without_in_memory(current):
                advice = (
                    "bind dataset.in_memory as before, because it affects the order of the images"
                )
            raise UserError(f"{source} was made with another config ({shown}); {advice}")

    @property
    def _command(self):
        return COMMANDS.get(self.stage.partition("_")[0], self.stage)


def _without_in_memory(lines):
    return {name: re.sub(r", dataset\.in_memory=\w+$", "", text) for name, text in lines.items()}


def _delete(path):
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


@contextlib.contextmanager
def locked(path: pathlib.Path) -> Iterator[None]:
    """Creates a folder and locks it against other processes.

    Unfinished files of a killed process are deleted.

    Raises:
        UserError: If the folder cannot be written or another process has locked it.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = files.lock_file(path / files.LOCK)
    except BlockingIOError as error:
        raise UserError(
            f"{path}: another process works here; wait for it, or choose another --workdir"
        ) from error
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); choose another --workdir"
        ) from error
    with lock:
        files.clear_unfinished(path)
        try:
            yield
        finally:
            (path / files.LOCK).unlink(missing_ok=True)


def _shortened(*texts):
    """Returns the texts, cut around the first difference if long. None reads "unbound"."""
    shown = ["unbound" if text is None else text for text in texts]
    pairs = enumerate(zip(*shown, strict=False))
    first_difference = next((k for k, pair in pairs if len(set(pair)) > 1), 0)
    start = max(0, first_difference - 20) if max(map(len, shown)) > 60 else 0
    cut = [text[start : start + 60] for text in shown]
    return [
        ("..." if start else "") + part + ("..." if len(text) > start + 60 else "")
        for text, part in zip(shown, cut, strict=True)
    ]


def numbered(name: str, k: int) -> str:
    """Returns the name of item number k, from 1: "teacher", "teacher_2", "teacher_3" and so on."""
    return name if k == 1 else f"{name}_{k}"
