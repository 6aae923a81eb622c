"""The interface of a distillation method.

A method is a frozen dataclass whose fields are the settings of its paper. For a full example, see
docs/adding-a-method.md.

In the docstrings of the methods, CE is the cross entropy with the labels. T and S are outputs of
the teacher and the student, and |x| is the Euclidean norm. Equations and sections are those of the
method's paper.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, TypeAlias

import keras
import tensorflow as tf

from dfa_tf.alpha import Alpha
from dfa_tf.models.network import Network
from dfa_tf.validation import Settings

INPUT_GRADIENT, ALPHA, TEACHERS, LABELS = "input_gradient", "alpha", "teachers", "labels"

# A term of a loss: `[B]`, or its parts by name, `[B]` each, whose sum is the term.
Term: TypeAlias = tf.Tensor | Mapping[str, tf.Tensor]


@dataclasses.dataclass(frozen=True)
class Outputs:
    """The outputs of one network for a replica's part of a batch.

    Outputs of a teacher that no method reads are not computed. A student in training mode runs to its
    end, because its moving averages are updated.

    Attributes:
        logits: Float32 tensor `[B, classes]`.
        features: For each group, the pre-ReLU map `[B, H, W, C]` of each block.
        pooled_map: The map `[B, H, W, C]` whose spatial average the classifier receives; None for
            cached logits, which have no features either.
        input_gradient: Float32 tensor `[B, H, W, C]`, the gradient of the true class's logit with
            respect to the image; None if no method needs it.
        stem: The map `[B, H, W, C]` that the first group receives; None if the network does not
            expose it.
    """

    logits: tf.Tensor
    features: Mapping[str, Sequence[tf.Tensor]]
    pooled_map: tf.Tensor | None
    input_gradient: tf.Tensor | None = None
    stem: tf.Tensor | None = None

    def last(self, group: str) -> tf.Tensor:
        """Returns the group's last feature, before its ReLU: `[B, H, W, C]`."""
        return self.features[group][-1]

    def activation(self, group: str) -> tf.Tensor:
        """Returns the group's last feature, after its ReLU: `[B, H, W, C]`."""
        return tf.nn.relu(self.last(group))

    @property
    def embedding(self) -> tf.Tensor:
        """The spatial average that the classifier receives: float32 `[B, C]`."""
        return tf.reduce_mean(tf.cast(self.pooled_map, tf.float32), [1, 2])


@dataclasses.dataclass(frozen=True)
class Pretraining:
    """A training phase that precedes the distillation and does not use cross entropy.

    Attributes:
        terms: As in `Distillation`.
        weights: As in `Distillation`.
        variables: The variables that the phase trains.
        epochs: Length of the phase. Each phase has an optimizer of its own.
        uses_student: Whether `terms` reads the student's outputs. If not, it receives None.
        all_teachers: As in `Distillation`.
    """

    terms: Callable
    weights: Mapping[str, float]
    variables: Sequence
    epochs: float
    uses_student: bool = True
    all_teachers: bool = False


@dataclasses.dataclass(frozen=True)
class Distillation:
    """A method built for one teacher and one student. Its loss is the weighted sum of its terms.

    Attributes:
        terms: A function of the teacher's `Outputs`, the student's `Outputs` and the labels `[B]`
            that returns `{name: term}`. A term is a float32 tensor `[B]`, or a mapping of its
            parts `{"group1": [B], ...}`, whose sum is the term. Each term and each part is logged
            without the term's weight.
        weights: The weight of each term.
        cross_entropy: The weight of the cross entropy with the labels.
        parts: The names of the parts, for each term that has parts.
        connectors: Keras models trained together with the student but not part of it.
        helpers: Keras models that only the pretraining trains.
        pretraining: The phase that runs first; None if the method has none.
        all_teachers: Whether `terms` receives a tuple with the `Outputs` of all teachers instead of
            those of the only one. `teachers.build_method` sets it.
    """

    terms: Callable
    weights: Mapping[str, float]
    cross_entropy: float = 1.0
    parts: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    connectors: Sequence[keras.layers.Layer] = ()
    helpers: Sequence[keras.layers.Layer] = ()
    pretraining: Pretraining | None = None
    all_teachers: bool = False


class Method(Settings):
    """Base class of all methods.

    Attributes:
        name: The method's name in files, logs and gin.
        needs: Inputs that the method needs besides logits and features: INPUT_GRADIENT; ALPHA; LABELS,
            if its terms depend on the labels; and TEACHERS, if `check` and `build` receive a tuple
            of all teachers. Any other method is built for each of several teachers, and its loss is
            the mean over them.
        logits_only: Whether the method has no pretraining, and its terms read nothing of the teacher
            but the logits. These can then be cached.
        can_be_negative: Whether a term can be negative, which not every weighting accepts.
    """

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    logits_only: ClassVar[bool] = False
    can_be_negative: ClassVar[bool] = False

    def with_alpha(self, alpha: Alpha) -> "Method":
        """Returns a copy with these aggregation weights. Only methods that need ALPHA have them."""
        return dataclasses.replace(self, alpha=alpha)  # type: ignore[type-var]

    def check(self, teacher: Any, student: Network) -> None:
        """Checks that the method can distil this teacher into this student.

        Raises:
            UserError: If the method does not support the two networks.
        """

    def build(
        self, teacher: Any, student: Network, seed: int, precision: str
    ) -> Distillation | Sequence[Distillation]:
        """Builds the method for a teacher and a student, in the scope of the run's strategy.

        Args:
            teacher: The trained teacher, a `Network`; a tuple of networks for a method that needs
                TEACHERS.
            student: The student to train.
            seed: Seed of all initial weights.
            precision: Keras dtype policy of the connectors.

        Returns:
            The `Distillation`, or several of them, each of which can be left out of a step. At most
            one of them has a pretraining phase.
        """
        raise NotImplementedError
