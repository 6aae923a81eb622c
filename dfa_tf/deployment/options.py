"""The settings of an export."""

import dataclasses
from typing import Annotated, Literal

from dfa_tf.data.augmentation import Augmentation
from dfa_tf.deployment.convert import INTEGER_KINDS, TFLITE_KINDS, TFLiteKind
from dfa_tf.training.optimizers import SGD, Adam, Cosine
from dfa_tf.training.recipe import Training
from dfa_tf.validation import Count, Interval, Positive, Settings

# A negative loss is a gain of accuracy.
AccuracyLoss = Annotated[float, Interval(high=1)]


@dataclasses.dataclass(frozen=True)
class ExportOptions(Settings):
    """Settings of `export`.

    Args:
        input_dtype: Dtype of the images, "float32" or "uint8", for the SavedModel and for the TF
            Lite files that are not integer.
        calibration_images: Number of training images that set the ranges of the integer files.
        max_loss: Accuracy, as a fraction, that a file may lose.
        fine_tune_above: Loss of accuracy, as a fraction, above which an integer file is
            fine-tuned. -1 fine-tunes always, 1 never.
        fine_tune_epochs: Length of the fine-tuning.
        batch_size: Batch size of the fine-tuning, over all replicas.
        optimizer: Optimizer of the fine-tuning.
        kinds: TF Lite files to write.
    """

    input_dtype: Literal["float32", "uint8"] = "float32"
    calibration_images: Count = 300
    max_loss: AccuracyLoss = 0.01
    fine_tune_above: AccuracyLoss = 0.005
    fine_tune_epochs: Positive = 1.0
    batch_size: Count = 64
    optimizer: SGD | Adam = SGD(Cosine(1e-3), weight_decay=0.0)
    kinds: tuple[TFLiteKind, ...] = dataclasses.field(
        default=TFLITE_KINDS, metadata={"bindable": False}
    )

    name = "export"

    @property
    def has_integer_kinds(self) -> bool:
        """Whether an integer file is among `kinds`."""
        return any(kind in INTEGER_KINDS for kind in self.kinds)

    def fine_tuning(self, examples: int, augmentation: Augmentation, seed: int) -> Training:
        """Returns the recipe of a fine-tuning on `examples` training examples."""
        return Training(
            epochs=self.fine_tune_epochs,
            batch_size=min(self.batch_size, examples),
            optimizer=self.optimizer,
            augmentation=augmentation,
            seed=seed,
        )
