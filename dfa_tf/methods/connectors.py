"""Corresponding groups of two networks, and connectors between their channels (DFA §3.1, §3.4)."""

import keras

from dfa_tf.errors import UserError
from dfa_tf.models.layers import he_normal
from dfa_tf.models.network import Network
from dfa_tf.models.normalization import BatchNormalization
from dfa_tf.seeds import derived_seed


def group_pairs(teacher: Network, student: Network) -> list[tuple[str, str]]:
    """Returns the names of corresponding groups, `(teacher group, student group)`, in order.

    Groups are paired from the last to the first. If one network has more groups than the other,
    its first groups are not paired.
    """
    count = min(len(teacher.group_names), len(student.group_names))
    return list(zip(teacher.group_names[-count:], student.group_names[-count:], strict=True))


def check_same_groups(teacher: Network, student: Network) -> None:
    """Checks that both networks have the same groups, of the same spatial sizes (DFA §3.1).

    Raises:
        UserError: If the groups or their sizes differ.
    """
    sizes = [_sizes(network) for network in (teacher, student)]
    if teacher.group_names != student.group_names or sizes[0] != sizes[1]:
        texts = " and ".join(", ".join(map(_size_text, network)) for network in sizes)
        raise UserError(
            f"the teacher {teacher.name} and the student {student.name} must have groups of the "
            f"same sizes, got {texts}"
        )


def connector(
    shape: tuple[int, int, int],
    channels: int,
    name: str,
    normalize: bool = False,
    seed: int = 0,
    precision: str = "float32",
) -> keras.Model:
    """Builds a 1x1 convolution without bias (DFA §3.4).

    Args:
        shape: (height, width, channels) of the input.
        channels: Channels of the output.
        name: Name of the model.
        normalize: Whether batch normalization follows, as in stage 2.
        seed: Seed of the initial weights.
        precision: Keras dtype policy. Input and output have its compute dtype.

    Returns:
        A model from `[B, height, width, shape[2]]` to `[B, height, width, channels]`.
    """
    x = inputs = keras.Input(shape, dtype=keras.DTypePolicy(precision).compute_dtype)
    x = keras.layers.Conv2D(
        channels,
        1,
        use_bias=False,
        kernel_initializer=he_normal(seed),
        name="convolution",
        dtype=precision,
    )(x)
    if normalize:
        x = BatchNormalization(name="norm", dtype=precision)(x)
    return keras.Model(inputs, x, name=name)


def group_connectors(
    teacher: Network, student: Network, seed: int, precision: str
) -> list[keras.Model]:
    """Builds a connector with batch normalization for each of `group_pairs`.

    Each connector maps the last feature of the student's group to the teacher's number of
    channels. It is F_s of DFA's Eqn 3.

    Args:
        teacher: The teacher.
        student: The student.
        seed: Seed of the initial weights.
        precision: Keras dtype policy of the connectors.
    """
    return [
        connector(
            student.group(student_group).feature_shape,
            teacher.group(teacher_group).feature_shape[-1],
            f"{student_group}_connector",
            normalize=True,
            seed=derived_seed(seed, student_group),
            precision=precision,
        )
        for teacher_group, student_group in group_pairs(teacher, student)
    ]


def _sizes(network):
    """Returns (height, width) of each group's features."""
    return [network.group(name).feature_shape[:2] for name in network.group_names]


def _size_text(size):
    return str(size[0]) if size[0] == size[1] else f"{size[0]}x{size[1]}"
