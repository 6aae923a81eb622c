"""The networks of a distillation: the student, its frozen teachers and the methods between them."""

from collections.abc import Callable, Sequence

import keras
import numpy as np

from dfa_tf.methods.losses import plain_objective
from dfa_tf.methods.method import Method, Pretraining
from dfa_tf.models.network import Network, Precision
from dfa_tf.objectives.objective import Segment, pretraining_objective, student_objective
from dfa_tf.objectives.teachers import build_method
from dfa_tf.objectives.terms import constant_weights, path_factors
from dfa_tf.weightings import Weighting
from dfa_tf.weightings.process import ScheduledWeights


class DistillationNet:
    """The student, the frozen teachers, the methods that connect them, and the methods' weights.

    Build it in the scope of the run's strategy.

    Args:
        teachers: The trained teachers; none for plain training.
        student: The student to train.
        methods: The methods; none for plain training.
        weights: A factor for the loss of each method, 1 by default; or a weighting.
        ce_weight: Weight of the cross entropy. None for 1 with a weighting, and for the product of
            the methods' weights otherwise.
        steps: Number of training steps, for a weighting.
        precision: Keras dtype policy of the teachers and the connectors.
        seed: Seed of the connectors.

    Attributes:
        student: The student to train.
        teachers: The frozen teachers.
        models: All models of the run: the student, the connectors, and the helpers of pretraining
            phases.
        paths: The paths whose weights change during the run; none if the weights are constant.
        pretrainings: Each pretraining phase with its method, in the order in which they run.
    """

    def __init__(
        self,
        teachers: Sequence[Network],
        student: Network,
        methods: Sequence[Method],
        weights: Sequence[float] | Weighting | None = None,
        ce_weight: float | None = None,
        *,
        steps: int,
        precision: Precision = "float32",
        seed: int = 0,
    ):
        self.student = student
        self.teachers = [each.folded(precision) for each in teachers]
        built = [build_method(method, teachers, student, seed, precision) for method in methods]
        for method, group in zip(methods, built, strict=True):
            if sum(each.pretraining is not None for each in group) > 1:
                raise ValueError(f"{method.name}: expected at most one pretraining phase")
        self._distillations = [each for group in built for each in group]
        self._needs = {need for method in methods for need in method.needs}
        self._ce_weight = ce_weight
        self._layerwise = False
        self.paths: list[str] = []
        if isinstance(weights, Weighting):
            self._ce_weight = 1.0 if ce_weight is None else ce_weight
            self._layerwise = weights.layerwise
            factors_of_paths = path_factors(self._distillations, weights.layerwise)
            weights.check(factors_of_paths)
            self.paths = list(factors_of_paths)
            self._path_weights = weights.build(self.paths, steps)
        else:
            factors = weights or [1.0] * len(methods)
            groups = zip(factors, built, strict=True)
            repeated = [factor for factor, group in groups for _ in group]
            self._path_weights = constant_weights(self._distillations, repeated)
        self._connectors = [model for each in self._distillations for model in each.connectors]
        self._connectors += self._path_weights.layers
        helpers = [model for each in self._distillations for model in each.helpers]
        self.models = [student, *self._connectors, *helpers]
        self.pretrainings: list[tuple[Method, Pretraining]] = [
            (method, each.pretraining)
            for method, group in zip(methods, built, strict=True)
            for each in group
            if each.pretraining
        ]

    @property
    def variables(self) -> list[keras.Variable]:
        """The trainable variables of the student, the connectors and the path weights."""
        models = self.student, *self._connectors
        return [variable for model in models for variable in model.trainable_variables]

    def pretraining_objective(self, pretraining: Pretraining) -> Callable:
        """Returns the objective of a pretraining phase."""
        return pretraining_objective(self.teachers, self.student, pretraining, self._needs)

    def segments(
        self,
        ends: Sequence[int],
        class_weights: np.ndarray | None = None,
        targets: Callable | None = None,
    ) -> list[Segment]:
        """Returns the parts of the training, each with its objective: one, except with a schedule.

        With a schedule of weights, a path whose weight is 0 throughout a segment is not computed.

        Args:
            ends: The last step of each epoch.
            class_weights: As in `student_objective`.
            targets: As in `student_objective`.
        """
        if not self._distillations:
            return [Segment(ends[-1], plain_objective(self.student, class_weights, targets))]
        parts: list = [(ends[-1], None)]
        if isinstance(self._path_weights, ScheduledWeights):
            parts = self._path_weights.segments(ends)
        return [
            Segment(
                last,
                student_objective(
                    self.teachers,
                    self.student,
                    self._distillations,
                    self._path_weights,
                    self._needs,
                    self._ce_weight,
                    class_weights=class_weights,
                    targets=targets,
                    layerwise=self._layerwise,
                    paths=paths,
                ),
            )
            for last, paths in parts
        ]
