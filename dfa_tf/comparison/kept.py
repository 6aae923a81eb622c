"""The small files of finished cells, kept apart from their workdirs."""

import pathlib
import shutil
import subprocess

import dfa_tf
from dfa_tf import files

KEPT = ("metrics.json", "config.gin", "alpha.json", "process.json")
STAGES = ("teacher", "search", "process", "distill")
ORIGIN = "origin.json"


def keep(root: pathlib.Path, folder: str, results: pathlib.Path, *more: str) -> None:
    """Copies the metrics, the config and alpha of a cell, without weights and checkpoints.

    The metrics of the last stage are copied last: they mark the cell as finished. Paths below
    `root` become relative. origin.json records the commit of the code.

    Args:
        root: Folder of the reproduction.
        folder: The cell's workdir, within it.
        results: Folder for the copies, which have the same layout.
        *more: Further files of the workdir to copy.
    """
    prefix = f"{root.resolve()}/"
    files.write_json(results / folder / ORIGIN, {"commit": _commit()})
    names = [f"{stage}/{name}" for stage in STAGES for name in reversed(KEPT)]
    for name in ("alpha.json", *names):
        source = root / folder / name
        if source.exists():
            files.write_text(results / folder / name, source.read_text().replace(prefix, ""))
    for name in more:
        with files.replacing(results / folder / name) as part:
            shutil.copyfile(root / folder / name, part)


def _commit() -> str | None:
    """Returns the commit of this code, with "-dirty" if files differ; None outside of git."""
    root = pathlib.Path(dfa_tf.__file__).parent.parent
    if not (root / ".git").exists():  # installed, possibly below the checkout of another project
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()
