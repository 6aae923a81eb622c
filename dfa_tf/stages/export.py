"""Export: the student as a SavedModel and TF Lite files, each verified against the network."""

import os
import pathlib
from collections.abc import Sequence

from dfa_tf import files
from dfa_tf.data.augmentation import Augmentation
from dfa_tf.data.examples import AnyExamples
from dfa_tf.data.preprocessing import Preprocessing
from dfa_tf.deployment.convert import INTEGER_KINDS, calibration_images
from dfa_tf.deployment.earlier import (
    FINE_TUNING_PREFIX,
    REPORT_FILE,
    EarlierExport,
    export_inputs,
    remove_fine_tunings,
    remove_outdated,
    valid_report,
)
from dfa_tf.deployment.fine_tuning import FineTuning, fine_tuning_digest
from dfa_tf.deployment.metadata import LABELS_FILE, ModelInfo
from dfa_tf.deployment.options import ExportOptions
from dfa_tf.deployment.writer import ExportWriter
from dfa_tf.errors import UserError
from dfa_tf.models.files import load
from dfa_tf.models.network import Network
from dfa_tf.progress import print_line
from dfa_tf.stages.checks import check_pair, check_schedule
from dfa_tf.stages.folder import locked
from dfa_tf.stages.identity import fingerprint
from dfa_tf.training.runtime import Runtime
from dfa_tf.version import __version__


def check(
    network: Network,
    train: AnyExamples | None,
    teacher: Network | None,
    class_names: Sequence[str] | None,
    options: ExportOptions,
    augmentation: Augmentation,
    replicas: int,
) -> None:
    """Checks that an export can run. Arguments are as in `export`. No weights are read.

    Raises:
        UserError: If the number of class names is wrong, training examples for integer files are
            missing, or the fine-tuning cannot run.
    """
    if class_names and len(class_names) != network.num_classes:
        raise UserError(
            f"class_names: expected {network.num_classes} names, one for each class of "
            f"{network.name}, got {len(class_names)}"
        )
    if not options.has_integer_kinds:
        return
    if train is None:
        raise UserError(
            "train: expected training examples, which set the ranges of int8 and uint8 files, got "
            "None"
        )
    if teacher is not None:
        check_pair(teacher, network)
        training = options.fine_tuning(len(train), augmentation, seed=0)
        check_schedule("export", [train], training, replicas)


def export(
    *,
    network: Network,
    test: AnyExamples,
    workdir: str | os.PathLike,
    train: AnyExamples | None = None,
    teacher: Network | str | os.PathLike | None = None,
    class_names: Sequence[str] | None = None,
    options: ExportOptions = ExportOptions(),
    preprocessing: Preprocessing = Preprocessing(),
    augmentation: Augmentation = Augmentation(),
    seed: int = 0,
    runtime: Runtime = Runtime(),
    reuse_any: bool = False,
) -> dict:
    """Writes a network as a SavedModel and as TF Lite files, and verifies and measures each.

    All files have the input `image` `[B, H, W, C]`, raw pixels in 0..255, and the outputs `logits`
    and `probabilities` `[B, classes]`. An earlier export with the same inputs is reused, unless
    `runtime.fresh` is set. If it lacks any of `options.kinds`, all files are written again.

    Args:
        network: The trained student. Only its path from image to logits is exported.
        test: Test examples. Each file is compared with the network on them.
        workdir: The result is written to WORKDIR/export.
        train: Training examples, for calibration and fine-tuning.
        teacher: A network or its `.keras` file. With a teacher, an integer file that loses more
            accuracy than `options.fine_tune_above` is fine-tuned.
        class_names: Names of the classes, in label order; by default the labels.
        options: Files to write, and the accuracy that they may lose.
        preprocessing: How pictures of other sizes are resized. The TF Lite files contain it.
        augmentation: Augmentation of the fine-tuning.
        seed: Seed of the fine-tuning.
        runtime: Devices, logging and `fresh`.
        reuse_any: Whether to reuse an earlier export of the same weights whose other inputs differ.

    Returns:
        The content of WORKDIR/export/export.json.

    Raises:
        UserError: If the arguments are incompatible with each other.
        ExportError: If a file differs too much from the network. The file is not written.
    """
    folder = pathlib.Path(workdir) / "export"
    teacher_network: Network | None = None
    # Integer files of an earlier export may be written again.
    kinds = {*options.kinds, *(file["kind"] for file in valid_report(folder).get("files", ()))}
    if kinds & set(INTEGER_KINDS) and train is not None:
        teacher_network = teacher if isinstance(teacher, Network | None) else load(teacher)
    replicas = runtime.devices.num_replicas_in_sync
    check(network, train, teacher_network, class_names, options, augmentation, replicas)
    info = ModelInfo(
        name=network.name,
        version=__version__,
        class_names=tuple(class_names or map(str, range(network.num_classes))),
        image_shape=network.image_shape,
        preprocessing=preprocessing,
    )
    tuning = None
    if teacher_network is not None:
        training = options.fine_tuning(len(train), augmentation, seed)
        names = fingerprint(network), fingerprint(teacher_network)
        tuning = fine_tuning_digest(*names, train, training)
    inputs = export_inputs(fingerprint(network), test, train, info, options, tuning)
    earlier = EarlierExport(folder, inputs)
    if not runtime.fresh and earlier.is_reusable(options.kinds, reuse_any):
        if not (runtime.quiet or reuse_any):
            print_line(f"export: already done, {folder}; restart it with --fresh")
        return earlier.report

    calibration = fine_tuning = None
    with locked(folder):
        if not runtime.quiet:
            print_line(f"export: {folder}")
        remove_outdated(folder, runtime.fresh)
        if train is not None:
            calibration = calibration_images(train, options.calibration_images)
        if teacher_network is not None:
            # Each has a folder of its own, so that none resumes from another's checkpoints.
            fine_tuning = FineTuning(
                network,
                teacher_network,
                train,
                test,
                training,
                runtime,
                folder=folder / f"{FINE_TUNING_PREFIX}{tuning}",
            )
        writer = ExportWriter(
            folder, network, test, options, info, calibration, fine_tuning, runtime.quiet
        )
        report = inputs | writer.write(earlier.extended(options.kinds))
        files.write_text(folder / LABELS_FILE, info.labels_text)
        files.write_json(folder / REPORT_FILE, report)
        remove_fine_tunings(folder)
    return report
