"""The targets of the cross entropy: labels that are weighted by class, smoothed or mixed."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import numpy as np
import tensorflow as tf

from dfa_tf.errors import UserError
from dfa_tf.methods.method import LABELS, Method
from dfa_tf.objectives.class_weights import ClassWeights, weight_of_each_class
from dfa_tf.seeds import derived_seed
from dfa_tf.validation import Interval, NonNegative, Settings


@dataclasses.dataclass(frozen=True)
class Targets(Settings):
    """How labels become the targets of the cross entropy.

    Args:
        class_weights: Factors of the cross entropy: a positive number for each class, or "balanced"
            for numbers that give all classes the same total weight, see `weight_of_each_class`. The
            losses of the methods and the evaluation do not use them.
        label_smoothing: Share of each target that is spread evenly over all classes (Szegedy et al.,
            CVPR 2016, §7). ImageNet trainings use 0.1.
        mixup: alpha of mixup's Beta distribution, see `mixed` (Zhang et al., ICLR 2018). Its paper
            uses 0.2 for ImageNet and 1 for CIFAR; 0 for no mixing.
    """

    class_weights: ClassWeights = None
    label_smoothing: Annotated[float, Interval(0, 1, open_high=True)] = 0.0
    mixup: NonNegative = 0.0

    name = "targets"

    def check(
        self,
        stage: str,
        labels: np.ndarray,
        classes: int,
        batch_size: int,
        replicas: int,
        methods: Sequence[Method] = (),
    ) -> None:
        """Checks that the classes can be weighted and the images mixed.

        Args:
            stage: Name of the stage, for error messages.
            labels: Labels of the training images, int `[N]`.
            classes: Number of classes.
            batch_size: Size of the global batch.
            replicas: Number of replicas.
            methods: The distillation methods.

        Raises:
            UserError: If the class weights do not match the classes; and for mixup, if a replica has
                an odd number of images, or a method needs one true label.
        """
        weight_of_each_class(self.class_weights, labels, classes, f"{stage}.class_weights")
        if not self.mixup:
            return
        if batch_size // replicas % 2:
            raise UserError(
                f"{stage}.mixup: expected 0, or an even number of images on each replica, got "
                f"{batch_size // replicas}"
            )
        for method in methods:
            if LABELS in method.needs:
                raise UserError(
                    f"{stage}.mixup: expected 0 with {method.name}, which needs one true label of "
                    f"each image, got {self.mixup}"
                )

    def arguments(
        self, labels: np.ndarray, classes: int, seed: int, period: int = 0
    ) -> dict[str, Any]:
        """Returns the arguments of `plain_objective` and `student_objective` for a training.

        Args:
            labels: Labels of the training images, int `[N]`.
            classes: Number of classes.
            seed: Seed of the training.
            period: As in `build`.

        Returns:
            `class_weights`, see `weight_of_each_class`, and `targets`, see `build`.
        """
        name = f"{self.name}.class_weights"
        return {
            "class_weights": weight_of_each_class(self.class_weights, labels, classes, name),
            "targets": self.build(classes, derived_seed(seed, "mixup"), period),
        }

    def build(self, classes: int, seed: int, period: int = 0) -> Callable | None:
        """Returns a function of (images, labels, step) that returns (images, targets).

        Args:
            classes: Number of classes.
            seed: Seed of the mixing.
            period: Number of steps after which batches and mixing repeat; 0 for no repetition.

        Returns:
            The function, or None if the targets are the labels. Its targets are probabilities,
            float32 `[B, classes]`.
        """
        if not self.label_smoothing and not self.mixup:
            return None

        def targets(images, labels, step):
            probabilities = smoothed(labels, classes, self.label_smoothing)
            if not self.mixup:
                return images, probabilities
            step = tf.cast(step, tf.int64)
            if period:
                step %= period
            own_seed = tf.stack([tf.constant(seed, tf.int64), step])
            weight = beta(self.mixup, own_seed)
            return mixed(tf.cast(images, tf.float32), weight), mixed(probabilities, weight)

        return targets


def smoothed(labels: tf.Tensor, classes: int, smoothing: float) -> tf.Tensor:
    """Returns (1 - smoothing) of the label and smoothing / classes of each class.

    Args:
        labels: Integer tensor `[B]`.
        classes: Number of classes.
        smoothing: A fraction.

    Returns:
        Float32 tensor `[B, classes]`.
    """
    return tf.one_hot(labels, classes) * (1 - smoothing) + smoothing / classes


def beta(alpha: float, seed: tf.Tensor) -> tf.Tensor:
    """Draws a number from Beta(alpha, alpha): g1 / (g1 + g2) of two Gamma(alpha) numbers.

    Args:
        alpha: A positive number.
        seed: int `[2]`.
    """
    draws = tf.random.stateless_gamma([2], seed, alpha)
    return tf.math.divide_no_nan(draws[0], draws[0] + draws[1])


def mixed(rows: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """Mixes each row with its partner: weight x_i + (1 - weight) x_j (Zhang et al., Eqn 1 of §1).

    Rows 0 and 1 are partners, 2 and 3, and so on. They are random, because batches are shuffled, and
    they are on the same replica.

    Args:
        rows: Float32 tensor `[B, ...]` with an even number of rows.
        weight: Float32 scalar.
    """
    pairs = tf.reshape(rows, tf.concat([[-1, 2], tf.shape(rows)[1:]], 0))
    partners = tf.reshape(tf.reverse(pairs, [1]), tf.shape(rows))
    return weight * rows + (1 - weight) * partners
