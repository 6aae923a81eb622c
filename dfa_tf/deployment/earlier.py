"""An earlier export in the same folder: whether it can be reused, and its removal."""

import dataclasses
import hashlib
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from dfa_tf import files
from dfa_tf.data.examples import AnyExamples
from dfa_tf.deployment.convert import TFLITE_KINDS, TFLiteKind
from dfa_tf.deployment.metadata import LABELS_FILE, ModelInfo
from dfa_tf.deployment.options import ExportOptions

REPORT_FILE = "export.json"
SAVED_MODEL_FOLDER = "saved_model"
FINE_TUNING_PREFIX = "fine_tuning_"


def export_inputs(
    student: str,
    test: AnyExamples,
    train: AnyExamples | None,
    info: ModelInfo,
    options: ExportOptions,
    fine_tuning: str | None,
) -> dict:
    """Returns what identifies an export: the first entries of export.json.

    Args:
        student: Fingerprint of the network.
        test: Test examples.
        train: Training examples, if any.
        info: The description in the files.
        options: Settings of the export.
        fine_tuning: Text that identifies the fine-tuning of integer files; None without one.
    """
    has_train = train is not None
    return {
        "student": student,
        "test": test.description,
        "train": train.description if has_train else None,
        "class_names": list(info.class_names),
        "preprocessing": dataclasses.asdict(info.preprocessing),
        "input_dtype": options.input_dtype,
        "calibration_images": min(options.calibration_images, len(train)) if has_train else None,
        "max_loss": options.max_loss,
        "fine_tune_above": options.fine_tune_above,
        "fine_tuning": fine_tuning,
    }


class EarlierExport:
    """The export that a folder already contains.

    Args:
        folder: Folder of the export.
        inputs: The inputs of the new export, as `export_inputs` returns them.

    Attributes:
        report: The content of export.json; {} if there is no complete export.
    """

    def __init__(self, folder: pathlib.Path, inputs: Mapping[str, Any]):
        self.report = valid_report(folder)
        self._inputs = inputs
        self._kinds = {file["kind"] for file in self.report.get("files", [])}

    @property
    def has_same_inputs(self) -> bool:
        """Whether it was made from the same inputs."""
        different = {name for name, v in self._inputs.items() if self.report.get(name) != v}
        if self.report.get("fine_tuning") is None:  # there were no integer files
            different.discard("fine_tuning")
        return not different

    def is_reusable(self, kinds: Sequence[str], reuse_any: bool) -> bool:
        """Returns whether it can stand in for the new export.

        Args:
            kinds: The TF Lite files that are needed.
            reuse_any: Whether the student's weights are the only input that must be the same.
        """
        has_same_student = self.report.get("student") == self._inputs["student"]
        return (self.has_same_inputs or (reuse_any and has_same_student)) and (
            self._kinds.issuperset(kinds)
        )

    def extended(self, kinds: Sequence[TFLiteKind]) -> list[TFLiteKind]:
        """Returns the kinds to write, so that none is lost: an export of the same inputs adds its own."""
        if not self.has_same_inputs:
            return list(kinds)
        return [kind for kind in TFLITE_KINDS if kind in {*self._kinds, *kinds}]


def valid_report(folder: pathlib.Path) -> dict:
    """Returns the content of export.json, or {} if a file is missing or has changed since."""
    report = files.read_json(folder / REPORT_FILE)
    try:
        recorded = [report["saved_model"], *report["files"]]
        is_valid = (folder / LABELS_FILE).exists() and all(
            describe_file(folder / file["path"]).items() <= file.items() for file in recorded
        )
        return report if is_valid else {}
    except (OSError, KeyError, TypeError, AttributeError):
        return {}


def describe_file(path: pathlib.Path) -> dict:
    """Returns the "path", "bytes" and "sha256" of a file, or of all files in a folder together."""
    entries = path.rglob("*") if path.is_dir() else [path]
    contents = [entry.read_bytes() for entry in sorted(entries) if entry.is_file()]
    digest = hashlib.sha256(b"".join(contents)).hexdigest()[:16]
    return {"path": path.name, "bytes": sum(map(len, contents)), "sha256": digest}


def remove_outdated(folder: pathlib.Path, fresh: bool) -> None:
    """Removes the files of an earlier export, the report first.

    Args:
        folder: Folder of the export.
        fresh: Whether to remove interrupted fine-tunings too; otherwise they can be resumed.
    """
    (folder / REPORT_FILE).unlink(missing_ok=True)
    for file in [*folder.glob("student_*.tflite"), folder / LABELS_FILE]:
        file.unlink(missing_ok=True)
    shutil.rmtree(folder / SAVED_MODEL_FOLDER, ignore_errors=True)
    if fresh:
        remove_fine_tunings(folder)


def remove_fine_tunings(folder: pathlib.Path) -> None:
    """Removes the folders of all fine-tunings of an export."""
    for fine_tuning in folder.glob(f"{FINE_TUNING_PREFIX}*"):
        shutil.rmtree(fine_tuning, ignore_errors=True)
