"""ReviewKD: knowledge review (Chen et al., CVPR 2021)."""

import dataclasses
from collections.abc import Sequence

import keras
import tensorflow as tf

from dfa_tf.methods.connectors import group_pairs
from dfa_tf.methods.hcl import hcl, nearest
from dfa_tf.methods.method import Distillation, Method
from dfa_tf.models.layers import he_normal
from dfa_tf.models.normalization import BatchNormalization
from dfa_tf.seeds import derived_seed
from dfa_tf.validation import Count, NonNegative

MAX_WIDTH = 512


@dataclasses.dataclass(frozen=True)
class ReviewKD(Method):
    """CE + weight * sum over stages of HCL(fused S, T), on pre-ReLU maps.

    HCL is the hierarchical context loss (`hcl`). Attention-based fusion (ABF) combines each map of
    the student with the fused map of the following stage, from the last stage to the first. The
    embedding is an additional last stage. The weight is constant. The authors' code raises it over
    the first epochs.

    Args:
        weight: Weight of the sum; 5 in the authors' CIFAR-100 settings for wide ResNets.
        width: Channels of the fused maps; None for the channels of the student's last group, but
            at most 512, as in the authors' code.
    """

    weight: NonNegative = 5.0
    width: Count | None = None

    name = "reviewkd"

    def build(self, teacher, student, seed, precision):
        """Builds the method."""
        pairs = group_pairs(teacher, student)
        shapes = [student.group(s).feature_shape for _, s in pairs]
        channels = [teacher.group(t).feature_shape[-1] for t, _ in pairs]
        width = self.width or min(shapes[-1][-1], MAX_WIDTH)
        shapes.append((1, 1, student.embedding_size))
        channels.append(teacher.embedding_size)
        review = reviewer(shapes, channels, width, seed, precision)
        dtype = review.inputs[0].dtype

        def terms(teacher, student, labels):
            maps = [student.last(s) for _, s in pairs] + [_as_map(student.embedding)]
            targets = [teacher.last(t) for t, _ in pairs] + [_as_map(teacher.embedding)]
            fused = review([tf.cast(m, dtype) for m in maps], training=True)
            losses = [hcl(t, s) for t, s in zip(targets, fused, strict=True)]
            return {"reviewkd": dict(zip(stages, losses, strict=True))}

        stages = [*(t for t, _ in pairs), "embedding"]
        return Distillation(
            terms, {"reviewkd": self.weight}, parts={"reviewkd": stages}, connectors=[review]
        )


def reviewer(
    shapes: Sequence[tuple[int, int, int]],
    channels: Sequence[int],
    width: int,
    seed: int,
    precision: str,
) -> keras.Model:
    """Builds the attention-based fusion of all stages.

    Args:
        shapes: (height, width, channels) of the student's map at each stage, first to last.
        channels: Channels of the output at each stage.
        width: Channels of the fused maps.
        seed: Seed of the initial weights.
        precision: Keras dtype policy.

    Returns:
        A model whose input and output are lists with one map `[B, H, W, C]` for each stage.
    """
    policy = keras.DTypePolicy(precision)
    inputs = [keras.Input(shape, dtype=policy.compute_dtype) for shape in shapes]
    outputs, fused = [], None
    for k in reversed(range(len(shapes))):

        def convolution(x, filters, size, name, k=k, **arguments):
            name = f"stage{k + 1}_{name}"
            return keras.layers.Conv2D(
                filters,
                size,
                padding="same",
                kernel_initializer=he_normal(derived_seed(seed, name)),
                name=name,
                dtype=precision,
                **arguments,
            )(x)

        def normalized(x, name, k=k):
            return BatchNormalization(name=f"stage{k + 1}_{name}", dtype=precision)(x)

        x = normalized(convolution(inputs[k], width, 1, "in", use_bias=False), "in_norm")
        if fused is not None:
            fused = nearest(fused, x.shape[1:3], f"stage{k + 1}_enlarged", precision)
            both = keras.layers.Concatenate(dtype=precision)([x, fused])
            attention = convolution(both, 2, 1, "attention", activation="sigmoid")
            x = x * attention[..., :1] + fused * attention[..., 1:]
        fused = x
        outputs.insert(
            0, normalized(convolution(x, channels[k], 3, "out", use_bias=False), "out_norm")
        )
    return keras.Model(inputs, outputs, name="review")


def _as_map(embedding):
    return embedding[:, None, None]
