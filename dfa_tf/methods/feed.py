"""FEED: feature-level ensemble distillation (Park and Kwak, ECAI 2020).

With one teacher and `distill.generations`, it is the sequential form, sFEED.
"""

import dataclasses
from typing import Literal

from dfa_tf.errors import UserError
from dfa_tf.methods.connectors import connector
from dfa_tf.methods.ft import encoder, ft_loss
from dfa_tf.methods.method import TEACHERS, Distillation, Method
from dfa_tf.seeds import derived_seed
from dfa_tf.validation import NonNegative


@dataclasses.dataclass(frozen=True)
class FEED(Method):
    """CE + beta * sum over teachers n of mean |x_n / |x_n| - NTL_n(x_S) / |NTL_n(x_S)||.

    x is the last map of a network, after its ReLU. NTL_n, a nonlinear transformation layer, maps
    the student's map to the shape of teacher n. It is trained with the student and is not part of
    it. The paper writes the L1 norm as a sum. The weight of the mean, and the layers of NTL_n, are
    those of the authors' Factor Transfer; FEED's paper was not available in full.

    Args:
        beta: Weight of the mean over elements.
        kernel: 3 for three 3x3 convolutions, each followed by a leaky ReLU; 1 for a single 1x1
            convolution, a linear control.
        shared: Whether all teachers share one NTL, a control. They must have maps of one shape.
        average: Whether to divide by the number of teachers, a control.
    """

    beta: NonNegative = 500.0
    kernel: Literal[1, 3] = 3
    shared: bool = False
    average: bool = False

    name = "feed"
    needs = (TEACHERS,)

    def check(self, teacher, student):
        """Checks that teachers that share a transformation have maps of one shape."""
        shapes = {network.pooled_shape for network in teacher}
        if self.shared and len(shapes) > 1:
            raise UserError(
                "feed.shared: expected teachers with last maps of one shape, got "
                f"{', '.join(map(str, sorted(shapes)))}; set it to False"
            )

    def build(self, teacher, student, seed, precision):
        """Builds the method."""
        names = [f"teacher{n}" for n in range(1, len(teacher) + 1)]
        count = 1 if self.shared else len(teacher)
        layers = [
            self._transformation(
                student.pooled_shape,
                network.pooled_shape[-1],
                f"ntl_{name}",
                derived_seed(seed, name),
                precision,
            )
            for name, network in list(zip(names, teacher, strict=True))[:count]
        ]

        def terms(teachers, student, labels):
            transformed = [layer(student.pooled_map, training=True) for layer in layers]
            if self.shared:
                transformed *= len(teachers)
            losses = [
                ft_loss(teacher.pooled_map, x, 1)
                for teacher, x in zip(teachers, transformed, strict=True)
            ]
            return {"feed": dict(zip(names, losses, strict=True))}

        weight = self.beta / len(teacher) if self.average else self.beta
        return Distillation(terms, {"feed": weight}, parts={"feed": names}, connectors=layers)

    def _transformation(self, shape, channels, name, seed, precision):
        if self.kernel == 1:
            return connector(shape, channels, name, seed=seed, precision=precision)
        return encoder(shape, name, factors=channels, seed=seed, precision=precision)
