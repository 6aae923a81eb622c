"""Writing of exported files, each verified before it appears under its name."""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np

from dfa_tf import files
from dfa_tf.data.examples import AnyExamples
from dfa_tf.deployment.convert import INTEGER_KINDS, TFLiteKind, convert
from dfa_tf.deployment.earlier import SAVED_MODEL_FOLDER, describe_file
from dfa_tf.deployment.fine_tuning import FineTuning
from dfa_tf.deployment.measure import measure
from dfa_tf.deployment.metadata import ModelInfo, add_metadata
from dfa_tf.deployment.options import ExportOptions
from dfa_tf.deployment.saved_model import inference_model, write_saved_model
from dfa_tf.deployment.verify import Reference
from dfa_tf.models.network import Network
from dfa_tf.progress import print_line


class ExportWriter:
    """Writes the files of one export.

    Args:
        folder: Folder of the export.
        network: The network.
        test: Test examples for the verification.
        options: Settings of the export.
        info: The description that each TF Lite file contains.
        calibration: Images `[N, H, W, C]` for the integer files; None if there are none.
        fine_tuning: The fine-tuning of integer files that lose accuracy; None for none.
        quiet: Whether to print nothing.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        network: Network,
        test: AnyExamples,
        options: ExportOptions,
        info: ModelInfo,
        calibration: np.ndarray | None = None,
        fine_tuning: FineTuning | None = None,
        quiet: bool = False,
    ):
        self._folder, self._options, self._info = folder, options, info
        self._saved_model = folder / SAVED_MODEL_FOLDER
        self._calibration = calibration
        self._fine_tuning, self._fine_tuned_model = fine_tuning, None
        self._quiet = quiet
        network = network.copy("float32")
        dtypes = dict.fromkeys(["float32", options.input_dtype])
        self._models = {dtype: inference_model(network, dtype) for dtype in dtypes}
        self._reference = Reference(self._models["float32"], test)

    def write(self, kinds: Sequence[TFLiteKind]) -> dict:
        """Writes the SavedModel and TF Lite files.

        Args:
            kinds: The TF Lite files to write.

        Returns:
            The results, as export.json contains them.

        Raises:
            ExportError: If a file differs too much from the network. It and the files after it are
                not written.
        """
        return {
            "test_examples": self._reference.examples,
            "keras": {"accuracy": self._reference.accuracy},
            "saved_model": self._write_saved_model(),
            "files": [self._write_tflite(kind) for kind in kinds],
        }

    def _write_saved_model(self):
        path = self._saved_model
        with files.replacing(path) as part:
            write_saved_model(self._models[self._options.input_dtype], part)
            comparison = self._reference.compare(part)
            self._reference.check(path, "float32", comparison, self._options.max_loss)
        return describe_file(path) | dataclasses.asdict(comparison)

    def _write_tflite(self, kind):
        path = self._folder / f"student_{kind}.tflite"
        input_dtype = "float32" if kind in INTEGER_KINDS else self._options.input_dtype
        with files.replacing(path) as part:
            comparison = self._convert(self._models[input_dtype], kind, part)
            fine_tuned = {}
            loss = self._reference.accuracy - comparison.accuracy
            if kind in INTEGER_KINDS and self._fine_tuning and loss > self._options.fine_tune_above:
                if not self._quiet:
                    print_line(f"export: {path.name} loses {loss:.2%} of accuracy; fine-tuning it")
                retry_path = part.with_name("fine_tuned.tflite")
                retry = self._convert(self._fine_tuned(), kind, retry_path)
                is_better = retry.accuracy > comparison.accuracy
                if is_better:
                    retry_path.replace(part)
                    comparison = retry
                fine_tuned = {"fine_tuned": is_better}
            self._reference.check(path, kind, comparison, self._options.max_loss)
            measured = measure(part)
        results = dataclasses.asdict(comparison) | fine_tuned | measured
        return {"kind": kind} | describe_file(path) | results

    def _convert(self, model, kind, path):
        """Writes a model as a TF Lite file and compares it with the network."""
        source = self._saved_model
        if model is not self._models[self._options.input_dtype]:
            source = path.with_name("source")
            write_saved_model(model, source)
        path.write_bytes(add_metadata(convert(source, kind, self._calibration), self._info))
        return self._reference.compare(path)

    def _fine_tuned(self):
        """Returns the fine-tuned model. Both integer files share it."""
        if self._fine_tuned_model is None:
            self._fine_tuned_model = inference_model(self._fine_tuning.run(), "float32")
        return self._fine_tuned_model
