"""The student as files that need nothing of this package: SavedModel and TF Lite."""

import hashlib
import shutil
import sys

import keras
import numpy as np
import tensorflow as tf

from dfa_tf import files
from dfa_tf.data.pipeline import Augmentation
from dfa_tf.deployment.convert import INTEGER, LADDER, convert
from dfa_tf.deployment.measure import latency, litert_benchmark, operations
from dfa_tf.deployment.metadata import LABELS, About, with_metadata
from dfa_tf.deployment.quantization_aware import quantized_objective
from dfa_tf.errors import UserError
from dfa_tf.models.files import load
from dfa_tf.models.network import Network
from dfa_tf.quiet import quiet_libraries
from dfa_tf.stages.checks import check_pair, check_schedule
from dfa_tf.stages.folder import StageFolder, fingerprint, held
from dfa_tf.stages.saved_models import classifier
from dfa_tf.training.fit import fit
from dfa_tf.training.loop import Runtime
from dfa_tf.training.optimizers import SGD, Cosine
from dfa_tf.version import __version__

MAX_ERROR = 1e-4  # of a logit, as a fraction of the largest one; of float32 files
MIN_AGREEMENT = 0.99  # of float32 and float16 files
FLOATS = ("float32", "float16")
BATCH = 100
FINE_TUNING = "fine_tuning"


class ExportError(Exception):
    """An exported file does not do what the network does. It has been removed."""

    told = True  # the message says it all: no traceback


def export(
    *,
    network,
    test,
    workdir,
    train=None,
    class_names=None,
    ladder=LADDER,
    input_dtype="float32",
    calibration_images=300,
    max_loss=0.01,
    teacher=None,
    fine_tune_above=0.005,
    fine_tune_epochs=1.0,
    batch_size=64,
    optimizer=SGD(Cosine(1e-3), weight_decay=0.0),
    augmentation=Augmentation(),
    seed=0,
    runtime=Runtime(),
    command="dfa_tf.export",
    fresh=False,
    keep=False,
):
    """Writes the network's SavedModel and TF Lite files, and checks each against it.

    network: a Network; only its path from image to logits is exported. test: examples to check
    on. All files take raw pixels as `image` [B, H, W, C], 0..255, and give `logits` and
    `probabilities` [B, classes].
    train: examples, of which `calibration_images` set the ranges of the files in int8. class_names:
        by label, written beside; by default the labels' numbers.
    ladder: TF Lite files to make, of `convert.LADDER`.
    input_dtype: "float32" or "uint8", of the SavedModel and of the files that compute in floats.
    max_loss: fraction of accuracy that a file of int8 weights may lose.
    teacher: a Network, or the path of one. Where a file in int8 loses more than the fraction
        `fine_tune_above` of accuracy, what it is made of first learns from the teacher with its
        numbers rounded, for `fine_tune_epochs` epochs of `train`: see quantization_aware.py.
    batch_size, optimizer, augmentation, seed, runtime: of that.
    command: that is run, to be told in the files.
    keep: an export of the same weights that was made in another way is kept, if it has `ladder`.
    What an export of the same weights in the same way left is kept, unless `fresh`; where it lacks
    some of `ladder`, all are made.

    Writes WORKDIR/export and returns what export.json holds. Raises UserError for arguments that
    are not right, and ExportError, leaving no such file, where one disagrees with the network.
    """
    class_names = tuple(class_names or map(str, range(network.num_classes)))
    _check(ladder, input_dtype, calibration_images, max_loss, fine_tune_above, train)
    if len(class_names) != network.num_classes:
        raise UserError(f"{len(class_names)} class names for {network.num_classes} classes")
    stage = StageFolder(workdir, "export", "export.json", {})
    fine_tune = None
    if teacher is not None and train is not None and any(kind in INTEGER for kind in ladder):
        fine_tune = _fine_tuning(
            network,
            teacher,
            folder=stage,
            train=train,
            test=test,
            augmentation=augmentation,
            epochs=fine_tune_epochs,
            batch_size=min(batch_size, len(train)),
            optimizer=optimizer,
            seed=seed,
            runtime=runtime,
        )
    made_with = {
        "student": fingerprint(network),
        "test": test.description,
        "train": train.description if train is not None else None,
        "class_names": list(class_names),
        "input_dtype": input_dtype,
        "calibration_images": min(calibration_images, len(train)) if train is not None else None,
        "max_loss": max_loss,
        "fine_tune_above": fine_tune_above,
        "fine_tune_epochs": fine_tune_epochs,
    }
    before = _whole(stage.path)
    is_same = all(before.get(name) == value for name, value in made_with.items())
    kinds = [file["kind"] for file in before.get("files", [])]
    is_kept = is_same or (keep and before.get("student") == made_with["student"])
    if is_kept and not fresh and set(ladder) <= set(kinds):
        return before
    if is_same:
        ladder = [kind for kind in LADDER if kind in {*kinds, *ladder}]
    with held(stage.path):
        print(f"export: {stage.path}", file=sys.stderr)
        _remove_outdated(stage.path, fresh)
        about = About(network.name, __version__, command, class_names, network.image_shape)
        images = _calibration(train, calibration_images) if train is not None else None
        job = _Export(stage.path, network.copy("float32"), test, input_dtype, images, about)
        report = made_with | job.run(ladder, max_loss, fine_tune, fine_tune_above)
        files.write_json(stage.path / "export.json", report)
        _remove_fine_tuning(stage.path)
    return report


class _Export:
    """The making of one export's files, each checked on the test images before it stands."""

    def __init__(self, folder, network, test, input_dtype, calibration, about):
        self._folder, self._test, self._about = folder, test, about
        self._calibration = calibration
        self._deployed = {dtype: _deployed(network, dtype) for dtype in {"float32", input_dtype}}
        self._input_dtype = input_dtype
        self._fine_tuned = None
        model = self._deployed["float32"]
        self._expected = _answers(lambda x: model(x, training=False)["logits"].numpy(), test)

    def run(self, ladder, max_loss, fine_tune, fine_tune_above):
        """Makes all of them. Returns what export.json says of them.

        fine_tune: gives a network that has learnt to answer in int8, or None.
        """
        right = float(np.mean(self._expected.argmax(-1) == self._test.labels))
        with files.replacing(self._folder / "saved_model") as part:
            _save(self._deployed[self._input_dtype], part)
            saved_model = self._compared(part)
            self._check(self._folder / "saved_model", "float32", saved_model, right, max_loss)
        described = []
        for kind in ladder:
            file = self._tflite(kind, right, max_loss, fine_tune, fine_tune_above)
            described.append({"kind": kind} | file)
        files.write_text(self._folder / LABELS, "\n".join([*self._about.classes, ""]))
        return {
            "test_examples": len(self._test),
            "keras": {"accuracy": right},
            "saved_model": _described(self._folder / "saved_model") | saved_model,
            "files": described,
        }

    def _tflite(self, kind, right, max_loss, fine_tune, fine_tune_above):
        path = self._folder / f"student_{kind}.tflite"
        with files.replacing(path) as part:
            model = self._deployed["float32" if kind in INTEGER else self._input_dtype]
            compared = self._convert(model, kind, part)
            lost = right - compared["accuracy"]
            if kind in INTEGER and fine_tune and lost > fine_tune_above:
                print(f"export: {path.name} loses {lost:.2%} and is fine-tuned", file=sys.stderr)
                if self._fine_tuned is None:
                    self._fine_tuned = _deployed(fine_tune(), "float32")
                again = part.with_name("again.tflite")
                anew = self._convert(self._fine_tuned, kind, again)
                is_better = anew["accuracy"] > compared["accuracy"]
                if is_better:
                    again.replace(part)
                    compared = anew
                compared["fine_tuned"] = is_better
            self._check(path, kind, compared, right, max_loss)
            every, outside = operations(part)
            compared |= {
                "latency_ms": {f"threads_{n}": latency(part, n) for n in (1, 2)},
                "litert_benchmark_ms": litert_benchmark(part),
                "ops": every,
                "outside_xnnpack": outside,
            }
        return _described(path) | compared

    def _convert(self, model, kind, path):
        """Writes the TF Lite file of a deployed model. Returns how it does."""
        source = path.with_name("source")
        _save(model, source)
        path.write_bytes(with_metadata(convert(source, kind, self._calibration), self._about))
        return self._compared(path)

    def _compared(self, path):
        """How a saved model does on the test images beside the network."""
        logits = _answers(classifier(path)[0], self._test)
        return {
            "accuracy": float(np.mean(logits.argmax(-1) == self._test.labels)),
            "max_abs_error": float(np.abs(logits - self._expected).max()),
            "agreement": float(np.mean(logits.argmax(-1) == self._expected.argmax(-1))),
        }

    def _check(self, path, kind, compared, right, max_loss):
        """Raises ExportError unless the file does what the network does, as far as its kind can."""
        limit = MAX_ERROR * max(1.0, float(np.abs(self._expected).max()))
        # As what must hold, since a comparison with NaN never does.
        if kind == "float32" and not compared["max_abs_error"] <= limit:
            raise ExportError(
                f"{path} does not match the network: largest error of a logit {compared['max_abs_error']:.2g} (at most {limit:.2g})"
            )
        if kind in FLOATS and not compared["agreement"] >= MIN_AGREEMENT:
            raise ExportError(
                f"{path} does not match the network: same class for {compared['agreement']:.2%} of the test images (at least {MIN_AGREEMENT:.0%})"
            )
        if not right - compared["accuracy"] <= max_loss:
            raise ExportError(
                f"{path} does not match the network: accuracy {compared['accuracy']:.2%}, the network's is {right:.2%} (at most {100 * max_loss:g} points less)"
            )


def _check(ladder, input_dtype, calibration_images, max_loss, fine_tune_above, train):
    for kind in ladder:
        if kind not in LADDER:
            raise UserError(f"export.ladder lists {', '.join(LADDER)}, not {kind!r}")
    if input_dtype not in ("float32", "uint8"):
        raise UserError(f"export.input_dtype is 'float32' or 'uint8', not {input_dtype!r}")
    if not isinstance(calibration_images, int) or calibration_images < 1:
        raise UserError(f"export.calibration_images is a whole number, not {calibration_images!r}")
    for name, value in (("max_loss", max_loss), ("fine_tune_above", fine_tune_above)):
        if not isinstance(value, int | float) or isinstance(value, bool) or value > 1:
            raise UserError(f"export.{name} is a fraction of accuracy, up to 1, not {value!r}")
    if train is None and any(kind in INTEGER for kind in ladder):
        raise UserError("files in int8 need training images to set their ranges: give train=")


def _fine_tuning(network, teacher, *, folder, runtime, **how):
    """A function that gives the network after learning with its numbers rounded.

    how: arguments of `fit`. Raises UserError at once where that could not be done.
    """
    teacher = teacher if isinstance(teacher, Network) else load(teacher)
    check_pair(teacher, network)
    check_schedule(
        [how["train"]],
        batch_size=how["batch_size"],
        epochs=how["epochs"],
        augmentation=how["augmentation"],
        replicas=runtime.devices.num_replicas_in_sync,
        optimizers=[how["optimizer"]],
    )
    told = [fingerprint(network), fingerprint(teacher), how["train"].description]
    told += [repr(how[name]) for name in ("epochs", "batch_size", "optimizer", "seed")]
    digest = hashlib.sha256("\n".join(told).encode()).hexdigest()[:8]

    def fine_tune():
        with runtime.devices.scope():
            trained = network.copy("float32")
            objective = quantized_objective(trained, teacher.folded("float32"))
        tuned, _ = fit(
            label="export/fine_tuning",
            within=f"{FINE_TUNING}_{digest}",  # what a kill cut short goes on with its own alone
            folder=folder,
            network=trained,
            objective=objective,
            runtime=runtime,
            **how,
        )
        return tuned

    return fine_tune


def _deployed(network, dtype):
    """A Keras model of one `image` of that dtype, of `logits` and `probabilities`."""
    classify = keras.Model(network.input, network.output["logits"])
    image = keras.Input(network.image_shape, name="image", dtype=dtype)
    pixels = image if dtype == "float32" else keras.ops.cast(image, "float32")
    logits = keras.layers.Identity(name="logits")(classify(pixels))
    outputs = {
        "logits": logits,
        "probabilities": keras.layers.Softmax(name="probabilities")(logits),
    }
    return keras.Model(image, outputs, name=network.name)


def _save(model, path):
    """Writes a SavedModel of one signature. (Keras' own `export` writes all weights twice.)"""
    module = tf.Module()
    module.held = [variable.value for variable in model.variables]
    shape, dtype = model.inputs[0].shape, model.inputs[0].dtype

    @tf.function(input_signature=[tf.TensorSpec(shape, dtype, name="image")])
    def serve(image):
        return model(image, training=False)

    with quiet_libraries():
        tf.saved_model.save(module, str(path), {"serving_default": serve})


def _calibration(train, count):
    """`count` training images, drawn the same way each time, without augmentation; the first one
    again with a black and a white pixel, so that the input's range is that of bytes."""
    chosen = np.random.default_rng(0).permutation(len(train))[:count]
    batches = train.select(np.sort(chosen)).in_order(BATCH).as_numpy_iterator()
    images = np.concatenate([images for images, _ in batches])
    whole_range = images[:1].copy()
    whole_range[0, 0, 0], whole_range[0, -1, -1] = 0, 255
    return np.concatenate([images, whole_range])


def _remove_outdated(folder, fresh):
    """Removes what another export left, its report first; of a fine-tuning only if `fresh`, as it
    may go on."""
    (folder / "export.json").unlink(missing_ok=True)
    for file in [*folder.glob("student_*.tflite"), folder / LABELS]:
        file.unlink(missing_ok=True)
    shutil.rmtree(folder / "saved_model", ignore_errors=True)
    if fresh:
        _remove_fine_tuning(folder)


def _remove_fine_tuning(folder):
    for each in folder.glob(f"{FINE_TUNING}_*"):
        shutil.rmtree(each, ignore_errors=True)


def _whole(folder):
    """The report of an export all of whose files are there as they were written, else {}."""
    report = files.read_json(folder / "export.json")
    try:
        recorded = [report["saved_model"], *report["files"]]
        is_whole = (folder / LABELS).exists() and all(
            _described(folder / file["path"]).items() <= file.items() for file in recorded
        )
        return report if is_whole else {}
    except (OSError, KeyError, TypeError, AttributeError):
        return {}


def _answers(run, test):
    batches = test.in_order(BATCH).as_numpy_iterator()
    return np.concatenate([run(images) for images, _ in batches])


def _described(path):
    entries = path.rglob("*") if path.is_dir() else [path]
    contents = [entry.read_bytes() for entry in sorted(entries) if entry.is_file()]
    digest = hashlib.sha256(b"".join(contents)).hexdigest()[:16]
    return {"path": path.name, "bytes": sum(map(len, contents)), "sha256": digest}
