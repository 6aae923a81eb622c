"""The pathways of DistPro: connections between positions of two networks (Deng et al., ECCV 2022).

The weights of the pathways are constant here. `process_search` searches them as functions of the
training step, and the weighting "process" follows the result.
"""

import dataclasses
from typing import Literal

import keras
import tensorflow as tf

from dfa_tf.methods.connectors import group_pairs
from dfa_tf.methods.hcl import hcl, nearest
from dfa_tf.methods.method import Distillation, Method, Outputs
from dfa_tf.models.layers import ReLU, he_normal
from dfa_tf.models.network import Network
from dfa_tf.models.normalization import BatchNormalization
from dfa_tf.seeds import derived_seed
from dfa_tf.validation import NonNegative

STEM = "stem"
MAX_WIDTH = 512

Transform = Literal["attention", "simple"]


@dataclasses.dataclass(frozen=True)
class Pathways(Method):
    """CE + weight * sum over pathways of HCL(T, transform(S)), on pre-ReLU maps.

    A pathway leads from a position of the teacher to the same or a later position of the student.
    The positions are the last features of the corresponding groups and, before them, the stems if
    both networks expose one. With three groups there are 10 pathways, or 6 without the stems. HCL
    is the hierarchical context loss of ReviewKD (`hcl.hcl`). Each pathway is a path of its own,
    which a weighting can weigh and leave out.

    Args:
        transform: The transform of the student's map. "attention": that of the authors' code, two
            3x3 convolutions with spatial attention between them, and a third one after the
            resize. "simple": a 1x1 convolution, batch normalization and the resize.
        stem: Whether the stems are positions.
        weight: Weight of each pathway.
    """

    transform: Transform = "attention"
    stem: bool = True
    weight: NonNegative = 1.0

    name = "pathways"

    def build(self, teacher, student, seed, precision):
        """Builds one `Distillation` for each pathway."""
        positions = position_pairs(teacher, student, self.stem)
        return [
            self._pathway(teacher, student, t, s, seed, precision)
            for k, (t, _) in enumerate(positions)
            for _, s in positions[k:]
        ]

    def _pathway(self, teacher, student, t, s, seed, precision):
        name = f"pathway_{t}_{s}"
        transform = build_transform(
            self.transform,
            position_shape(student, s),
            position_shape(teacher, t),
            f"{name}_transform",
            derived_seed(seed, name),
            precision,
        )
        dtype = transform.inputs[0].dtype

        def terms(teacher, student, labels):
            transformed = transform(tf.cast(position_map(student, s), dtype), training=True)
            return {name: hcl(position_map(teacher, t), transformed)}

        return Distillation(terms, {name: self.weight}, connectors=[transform])


def position_pairs(teacher: Network, student: Network, stem: bool = True) -> list[tuple[str, str]]:
    """Returns the corresponding positions, `(teacher position, student position)`, in order.

    Args:
        teacher: The teacher.
        student: The student.
        stem: Whether the stems correspond, if both networks expose one.
    """
    stems = [(STEM, STEM)] if stem and teacher.stem_shape and student.stem_shape else []
    return stems + group_pairs(teacher, student)


def position_shape(network: Network, position: str) -> tuple[int, int, int]:
    """Returns the shape (height, width, channels) of a position's map."""
    return network.stem_shape if position == STEM else network.group(position).feature_shape


def position_map(outputs: Outputs, position: str) -> tf.Tensor:
    """Returns the map `[B, H, W, C]` of a position."""
    return outputs.stem if position == STEM else outputs.last(position)


def build_transform(
    kind: Transform,
    shape: tuple[int, int, int],
    target: tuple[int, int, int],
    name: str,
    seed: int = 0,
    precision: str = "float32",
) -> keras.Model:
    """Builds the transform of a student's map to the shape of a teacher's map.

    Args:
        kind: As in `Pathways`.
        shape: (height, width, channels) of the student's map.
        target: (height, width, channels) of the teacher's map.
        name: Name of the model.
        seed: Seed of the initial weights.
        precision: Keras dtype policy. Input and output have its compute dtype.

    Returns:
        A model from `[B, *shape]` to `[B, *target]`.
    """

    def convolution(x, filters, size, layer):
        return keras.layers.Conv2D(
            filters,
            size,
            padding="same",
            use_bias=False,
            kernel_initializer=he_normal(derived_seed(seed, layer)),
            name=layer,
            dtype=precision,
        )(x)

    def normalized(x, layer):
        return BatchNormalization(name=layer, dtype=precision)(x)

    x = inputs = keras.Input(shape, dtype=keras.DTypePolicy(precision).compute_dtype)
    if kind == "simple":
        x = normalized(convolution(x, target[-1], 1, "convolution"), "norm")
        return keras.Model(inputs, nearest(x, target[:2], "resized", precision), name=name)
    width = min(MAX_WIDTH, shape[-1], target[-1])
    x = normalized(convolution(x, width, 3, "convolution1"), "norm1")
    x = ReLU(name="relu1", dtype=precision)(x)
    x = x * convolution(x, 1, 1, "attention")
    x = normalized(convolution(x, width, 3, "convolution2"), "norm2")
    x = ReLU(name="relu2", dtype=precision)(x)
    x = nearest(x, target[:2], "resized", precision)
    x = normalized(convolution(x, target[-1], 3, "convolution3"), "norm3")
    return keras.Model(inputs, x, name=name)
