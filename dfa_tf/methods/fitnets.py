"""FitNets: the student's middle learns to give the teacher's [Romero et al., ICLR 2015]."""

import dataclasses

import tensorflow as tf

from dfa_tf.errors import UserError
from dfa_tf.methods.connectors import connector
from dfa_tf.methods.kd import kd_loss
from dfa_tf.methods.method import (
    Distillation,
    Pretraining,
    check_positive,
    flat,
    group_pairs,
    matched,
)


@dataclasses.dataclass(frozen=True)
class FitNets:
    """Hints from the middle group: MSE(r(S), T), where r is a 1x1 convolution (Eqn 3).

    form: "paper" trains the student's lower half and r on the hint, then the student with KD;
        "joint", as common code does, trains with CE + weight * hint.
    weight: of the hint in the joint form. hint_epochs: of the paper's first stage.
    temperature, alpha, gamma: of the paper's second stage, as in `KD`.
    rectified: whether a ReLU follows r, as in some code: targets below 0 are then out of reach.
    """

    form: str = "paper"
    weight: float = 100.0
    hint_epochs: float = 20.0
    temperature: float = 4.0
    alpha: float = 0.9
    gamma: float = 0.1
    rectified: bool = False

    name = "fitnets"
    needs = ()

    def __post_init__(self):
        if self.form not in ("paper", "joint"):
            raise UserError(f"fitnets.form is 'paper' or 'joint', not {self.form!r}")
        check_positive(self, "hint_epochs", "temperature")

    def build(self, teacher, student, seed, precision):
        pairs = group_pairs(teacher, student)
        guiding, guided = pairs[(len(pairs) - 1) // 2]
        regressor = connector(
            student.group(guided).feature_shape,
            teacher.group(guiding).feature_shape[-1],
            "regressor",
            normalize=self.rectified,
            seed=seed,
            precision=precision,
        )

        def hint(teacher, student, labels):
            regressed = regressor(student.last(guided), training=True)
            if self.rectified:
                regressed = tf.nn.relu(regressed)
            return {"hint": hint_loss(teacher.last(guiding), regressed)}

        if self.form == "joint":
            return Distillation(hint, {"hint": self.weight}, connectors=[regressor])

        def kd(teacher, student, labels):
            return {"kd": kd_loss(teacher.logits, student.logits, self.temperature)}

        half = student.features_model(guided).trainable_variables
        first = Pretraining(
            hint, {"hint": 1.0}, [*half, *regressor.trainable_variables], self.hint_epochs
        )
        return Distillation(
            kd, {"kd": self.alpha}, self.gamma, helpers=[regressor], pretraining=first
        )


def hint_loss(teacher, regressed):
    """Mean squared difference of two maps [B, H, W, C], the larger averaged down. Returns [B]."""
    teacher, regressed = matched(teacher, regressed)
    return tf.reduce_mean(tf.square(flat(regressed) - flat(teacher)), -1)
