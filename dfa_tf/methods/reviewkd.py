"""ReviewKD: deep stages of the student review shallow ones [Chen et al., CVPR 2021]."""

import dataclasses

import keras
import tensorflow as tf

from dfa_tf.methods.method import Distillation, area_averages, group_pairs, matched
from dfa_tf.models.layers import he_normal
from dfa_tf.models.normalization import BatchNormalization
from dfa_tf.seeds import derived_seed

LEVELS = (4, 2, 1)  # sizes that the hierarchical context loss looks at, beside the map's own


@dataclasses.dataclass(frozen=True)
class ReviewKD:
    """CE + weight * sum over stages of HCL(fused S, T), on maps before their ReLU.

    The student's maps are fused from the last stage back to the first, each with what came of
    those after it, by attention (ABF); the embedding is the last stage of all. Their code raises
    the weight over the first epochs; here it is whole from the start.
    weight: 5 in their CIFAR-100 settings for wide ResNets. width: channels of the fused maps, None
    for the student's last ones.
    """

    weight: float = 5.0
    width: int | None = None

    name = "reviewkd"
    needs = ()

    def build(self, teacher, student, seed, precision):
        pairs = group_pairs(teacher, student)
        shapes = [student.group(s).feature_shape for _, s in pairs]
        channels = [teacher.group(t).feature_shape[-1] for t, _ in pairs]
        shapes.append((1, 1, shapes[-1][-1]))
        channels.append(channels[-1])
        review = reviewer(shapes, channels, self.width or shapes[-1][-1], seed, precision)
        dtype = review.inputs[0].dtype

        def terms(teacher, student, labels):
            maps = [student.last(s) for _, s in pairs] + [_as_map(student.embedding)]
            targets = [teacher.last(t) for t, _ in pairs] + [_as_map(teacher.embedding)]
            fused = review([tf.cast(m, dtype) for m in maps], training=True)
            return {"reviewkd": tf.add_n([hcl(t, s) for t, s in zip(targets, fused, strict=True)])}

        return Distillation(terms, {"reviewkd": self.weight}, connectors=[review])


def hcl(teacher, student):
    """Hierarchical context loss of two maps [B, H, W, C], the larger averaged down: [B].

    Mean squared difference of the maps, and of their averages over areas down to 4x4, 2x2 and
    1x1, as far as those are smaller, with weights 1, 1/2, 1/4, 1/8 over their sum.
    """
    teacher, student = (tf.cast(m, tf.float32) for m in matched(teacher, student))
    height, width = teacher.shape[1:3]
    sizes = [(height, width)] + [(n, n) for n in LEVELS if n < min(height, width)]
    total, weights = 0.0, 0.0
    for k, size in enumerate(sizes):
        difference = area_averages(teacher - student, *size)
        total += 0.5**k * tf.reduce_mean(tf.square(difference), [1, 2, 3])
        weights += 0.5**k
    return total / weights


def reviewer(shapes, channels, width, seed, precision):
    """The attention-based fusion of all stages as one Keras model.

    shapes: (height, width, channels) of each stage, the first one first. channels: of what each
    stage gives. width: channels within. Takes and gives a list of maps, stage by stage.
    """
    policy = keras.DTypePolicy(precision)
    inputs = [keras.Input(shape, dtype=policy.compute_dtype) for shape in shapes]
    outputs, before = [], None
    for k in reversed(range(len(shapes))):

        def convolution(x, filters, size, name, k=k, **more):
            name = f"stage{k + 1}_{name}"
            return keras.layers.Conv2D(
                filters,
                size,
                padding="same",
                kernel_initializer=he_normal(derived_seed(seed, name)),
                name=name,
                dtype=precision,
                **more,
            )(x)

        def normalized(x, name, k=k):
            return BatchNormalization(name=f"stage{k + 1}_{name}", dtype=precision)(x)

        x = normalized(convolution(inputs[k], width, 1, "in", use_bias=False), "in_norm")
        if before is not None:
            before = _enlarged(before, x.shape[1:3], f"stage{k + 1}_enlarged", precision)
            both = keras.layers.Concatenate(dtype=precision)([x, before])
            attention = convolution(both, 2, 1, "attention", activation="sigmoid")
            x = x * attention[..., :1] + before * attention[..., 1:]
        before = x
        outputs.insert(
            0, normalized(convolution(x, channels[k], 3, "out", use_bias=False), "out_norm")
        )
    return keras.Model(inputs, outputs, name="review")


def _enlarged(x, size, name, precision):
    """x at `size` = (height, width), by its nearest pixels."""
    if tuple(x.shape[1:3]) == tuple(size):
        return x
    rows, columns = (new // old for new, old in zip(size, x.shape[1:3], strict=True))
    if (x.shape[1] * rows, x.shape[2] * columns) == tuple(size):
        return keras.layers.UpSampling2D((rows, columns), name=name, dtype=precision)(x)
    return keras.layers.Resizing(*size, interpolation="nearest", name=name, dtype=precision)(x)


def _as_map(embedding):
    return embedding[:, None, None]
