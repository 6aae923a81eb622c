"""FitNets: trains an intermediate layer to match the teacher's (Romero et al., ICLR 2015)."""

import dataclasses
from typing import Literal

import tensorflow as tf

from dfa_tf.methods.connectors import connector, group_pairs
from dfa_tf.methods.kd import kd_loss
from dfa_tf.methods.maps import match_sizes
from dfa_tf.methods.method import Distillation, Method, Pretraining
from dfa_tf.methods.vectors import flatten
from dfa_tf.validation import NonNegative, Positive


@dataclasses.dataclass(frozen=True)
class FitNets(Method):
    """A hint loss on the middle group, MSE(r(S), T), where r is a 1x1 convolution (Eqn 3).

    r, the regressor, maps the student's feature S to the channels of the teacher's feature T.

    Args:
        form: "paper" trains the student's lower half and r on the hint, then the student with KD.
            "joint", as in common code, trains with CE + weight * hint.
        weight: Weight of the hint in the joint form.
        hint_epochs: Epochs of the paper's first stage.
        temperature: As in `KD`, for the paper's second stage.
        alpha: As in `KD`, for the paper's second stage.
        gamma: As in `KD`, for the paper's second stage.
        rectified: Whether batch normalization and a ReLU follow r, as in some code. The output of
            r then cannot match negative targets.
    """

    form: Literal["paper", "joint"] = "paper"
    weight: NonNegative = 100.0
    hint_epochs: Positive = 20.0
    temperature: Positive = 4.0
    alpha: NonNegative = 0.9
    gamma: NonNegative = 0.1
    rectified: bool = False

    name = "fitnets"

    def build(self, teacher, student, seed, precision):
        """Builds the method."""
        pairs = group_pairs(teacher, student)
        hint_group, guided_group = pairs[(len(pairs) - 1) // 2]
        regressor = connector(
            student.group(guided_group).feature_shape,
            teacher.group(hint_group).feature_shape[-1],
            "regressor",
            normalize=self.rectified,
            seed=seed,
            precision=precision,
        )

        def hint(teacher, student, labels):
            regressed = regressor(student.last(guided_group), training=True)
            if self.rectified:
                regressed = tf.nn.relu(regressed)
            return {"hint": hint_loss(teacher.last(hint_group), regressed)}

        if self.form == "joint":
            return Distillation(hint, {"hint": self.weight}, connectors=[regressor])

        def kd(teacher, student, labels):
            return {"kd": kd_loss(teacher.logits, student.logits, self.temperature)}

        lower_half = student.features_model(guided_group).trainable_variables
        variables = [*lower_half, *regressor.trainable_variables]
        pretraining = Pretraining(hint, {"hint": 1.0}, variables, self.hint_epochs)
        return Distillation(
            kd, {"kd": self.alpha}, self.gamma, helpers=[regressor], pretraining=pretraining
        )


def hint_loss(teacher: tf.Tensor, regressed: tf.Tensor) -> tf.Tensor:
    """Returns the mean squared difference `[B]` between two maps `[B, H, W, C]`.

    The larger map is averaged down to the size of the other.
    """
    teacher, regressed = match_sizes(teacher, regressed)
    return tf.reduce_mean(tf.square(flatten(regressed) - flatten(teacher)), -1)
