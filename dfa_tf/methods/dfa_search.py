"""DFA's search for feature aggregation weights: Algorithm 1, left (ECCV 2020, §3.2 to §3.4).

T_i^1 ... T_i^N are the features of the teacher's group i. S_i is the last feature of the student's.

    Eqn 6   alpha_i = softmax(beta_i)                                  `aggregation_weights`
    Eqn 2   A_i = sum over j of alpha_i^j T_i^j                        `aggregate`
    Eqn 10  L_TS = CE(labels, f_G(... f_{i+1}(F_t(A_i))))              `BridgeLoss`
    Eqn 11  L_ST = |F_s(S_i) / |F_s(S_i)| - A_i / |A_i||^2             `normalized_l2`
    Eqn 12  L_Bridge = gamma_ST L_ST + gamma_TS L_TS                   `BridgeLoss`
    Eqn 7   minimise L_val(w, beta) + lambda R(beta) over beta         `beta_step`
    Eqn 8   minimise L_train(w, beta) over w                           `w_step`
    Algorithm 1, lines 3 to 8                                          `algorithm_1`

F_t and F_s, the teacher and student transforms, are 1x1 convolutions. Fig 3 shows them as the
teacher-to-student (TS) and student-to-teacher (ST) connectors. f_i is group i of the student. Both
steps minimise the bridge loss of group i: the beta step on a validation batch, the w step on a
training batch.

The search is first order: the beta step uses the current w in place of w*(beta), as in first-order
DARTS. This agrees with the cost in Eqn 13, which has no second-order term. Two other forms are
options: the second order (dfa_search_second_order.py), and one search of all groups at once
(dfa_search_joint.py).
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal, Protocol, TypeVar

import keras
import tensorflow as tf

from dfa_tf import kernels
from dfa_tf.alpha import InitialBeta, initial_beta
from dfa_tf.kernels import FLOOR, accelerated
from dfa_tf.methods.connectors import connector
from dfa_tf.methods.losses import cross_entropy, is_correct
from dfa_tf.methods.replicas import global_mean
from dfa_tf.methods.vectors import flatten, unit
from dfa_tf.models.network import Network
from dfa_tf.seeds import derived_seed
from dfa_tf.validation import NonNegative, Settings

Step = Callable[..., dict[str, tf.Tensor]]
Searched = TypeVar("Searched")


def aggregation_weights(beta: tf.Tensor) -> tf.Tensor:
    """Returns alpha `[N]`, the weights of a group's features, from beta `[N]` (Eqn 6)."""
    return tf.nn.softmax(beta)


@accelerated(kernels.aggregate)
def aggregate(features: Sequence[tf.Tensor], alpha: tf.Tensor, clipped: bool = False) -> tf.Tensor:
    """Returns A_i, the weighted sum of a group's features (Eqn 2).

    Args:
        features: N tensors `[B, H, W, C]`.
        alpha: Float32 tensor `[N]` whose sum is 1.
        clipped: Whether to clip the features at -1 first (§3.4).

    Returns:
        Tensor `[B, H, W, C]` in the features' dtype. The sum is computed in float32.
    """
    features = [clip(T) for T in features] if clipped else features
    A = sum(a * tf.cast(T, tf.float32) for a, T in zip(tf.unstack(alpha), features, strict=True))
    return tf.cast(A, features[0].dtype)


@accelerated(kernels.clip)
def clip(feature: tf.Tensor) -> tf.Tensor:
    """Returns max(feature, -1) `[B, H, W, C]`: values of at least -1 are preserved (§3.4)."""
    return tf.maximum(feature, tf.cast(FLOOR, feature.dtype))


@accelerated(kernels.normalized_l2)
def normalized_l2(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Returns |x / |x| - y / |y||^2 for each example, the distance of Eqn 11.

    Args:
        x: Tensor `[B, H, W, C]`.
        y: Tensor `[B, H, W, C]`.

    Returns:
        Float32 tensor `[B]` with values from 0 to 4.
    """
    return tf.reduce_sum(tf.square(unit(flatten(x)) - unit(flatten(y))), -1)


@dataclasses.dataclass(frozen=True)
class SearchOptions(Settings):
    """Settings of the search: the weights of its losses, and choices that the paper leaves open.

    Args:
        loss: The loss of both steps: "bridge" (Eqn 12), or "student" for the student's own loss,
            which §3.2 argues against (see dfa_search_ablation.py).
        gamma_st: Weight of the ST loss in Eqn 12.
        gamma_ts: Weight of the TS loss in Eqn 12.
        gamma_fd: Weight of the distillation loss in Eqn 4, for `loss="student"`.
        initial: Initial beta: "last" (alpha of the last feature is 0.99), "uniform" or "random".
        clip: Whether to clip the teacher's features and S_i at -1 (§3.4).
        tail_input: The map of the student that the TS connector's output replaces: "stream", the
            input of group i + 1, or "feature", the last feature of group i.
        connector_normalization: Whether batch normalization follows the connectors.
        final: The alpha to return: of the "last" iteration, or the "mean" over iterations.
        order: 1, or 2 for a beta step that takes the effect of beta on w into account (see
            dfa_search_second_order.py).
        joint: Whether one search finds the weights of all groups at once, instead of one search
            for each group (see dfa_search_joint.py).
    """

    loss: Literal["bridge", "student"] = "bridge"
    gamma_st: NonNegative = 1e-3
    gamma_ts: NonNegative = 1.0
    gamma_fd: NonNegative = 1e-3
    initial: InitialBeta = "last"
    clip: bool = True
    tail_input: Literal["stream", "feature"] = "stream"
    connector_normalization: bool = False
    final: Literal["last", "mean"] = "last"
    order: Literal[1, 2] = 1
    joint: bool = False

    name = "search"


def searched_groups(teacher: Network) -> list[str]:
    """Returns the names of the groups with several features. Others have nothing to search."""
    return [name for name in teacher.group_names if len(teacher.group(name).features) > 1]


class Supernet:
    """The student and the frozen teacher, with two connectors between them for each group (Fig 3).

    Groups with one feature have nothing to search and are skipped. Build the supernet in the scope
    of the run's strategy.

    Args:
        teacher: The frozen teacher, folded for inference (see `Network.folded`).
        student: The student to train.
        options: Settings of the search.
        precision: Keras dtype policy of the connectors.
        seed: Seed of the connectors and of a random beta.

    Attributes:
        beta: For each searched group, the architecture parameters, a float32 variable `[N]`.
        ts_connectors: For each searched group, F_t of Eqn 10, which maps the teacher's channels to
            the student's.
        st_connectors: For each searched group, F_s of Eqn 11, which maps the student's channels to
            the teacher's.
    """

    def __init__(
        self,
        teacher: Network,
        student: Network,
        options: SearchOptions,
        *,
        precision: str = "float32",
        seed: int = 0,
    ):
        self.teacher, self.student, self.options = teacher, student, options
        self.beta: dict[str, tf.Variable] = {}
        self.ts_connectors: dict[str, keras.Model] = {}
        self.st_connectors: dict[str, keras.Model] = {}
        for group in searched_groups(teacher):
            teacher_group, student_group = teacher.group(group), student.group(group)
            seeds = [derived_seed(seed, f"search/{group}/{name}") for name in ("st", "ts", "beta")]
            normalize = options.connector_normalization
            self.st_connectors[group] = connector(
                student_group.feature_shape,
                teacher_group.feature_shape[-1],
                f"{group}_st",
                normalize,
                seeds[0],
                precision,
            )
            self.ts_connectors[group] = connector(
                teacher_group.feature_shape,
                student_group.feature_shape[-1],
                f"{group}_ts",
                normalize,
                seeds[1],
                precision,
            )
            start = initial_beta(options.initial, len(teacher_group.features), seeds[2])
            self.beta[group] = tf.Variable(start, name=f"{group}_beta")
            student.prepare_tail(group, options.tail_input)

    @property
    def models(self) -> list[keras.Model]:
        """The models that hold w: the student and all connectors."""
        return [self.student, *self.st_connectors.values(), *self.ts_connectors.values()]

    def weights(self, *groups: str) -> list:
        """Returns the variables of w: those of the student and of the groups' connectors."""
        connectors = self.st_connectors, self.ts_connectors
        models = [self.student, *(by_group[group] for by_group in connectors for group in groups)]
        return [variable for model in models for variable in model.trainable_variables]

    def teacher_features(self, group: str, images: tf.Tensor) -> list[tf.Tensor]:
        """Returns the teacher's features of a group, without computing later groups.

        Args:
            group: The group's name.
            images: Tensor `[B, H, W, C]`.

        Returns:
            The features `[T_i^1, ..., T_i^N]`, each `[B, h, w, c]`.
        """
        return self.teacher.features(group, images, training=False)

    def aggregation(self, group: str, features: Sequence[tf.Tensor]) -> tf.Tensor:
        """Returns A_i, the sum of N features `[B, H, W, C]` weighted by the softmax of beta_i."""
        alpha = aggregation_weights(self.beta[group])  # Eqn 6
        return aggregate(features, alpha, self.options.clip)  # Eqn 2

    def student_feature(self, features: Sequence[tf.Tensor]) -> tf.Tensor:
        """Returns S_i `[B, H, W, C]`, a group's last feature, clipped if `options.clip` is set."""
        return clip(features[-1]) if self.options.clip else features[-1]


class SearchLoss(Protocol):
    """The loss that both steps minimise.

    Attributes:
        name: Name of the loss among its measurements.
        progress_metrics: Measurements that the progress line shows, `{title: name}`.
    """

    @property
    def name(self) -> str: ...

    @property
    def progress_metrics(self) -> Mapping[str, str]: ...

    def __call__(
        self,
        net: Supernet,
        group: str,
        images: tf.Tensor,
        labels: tf.Tensor,
        aggregation: tf.Tensor,
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Computes the loss of one group.

        Args:
            net: The supernet.
            group: The group's name.
            images: Tensor `[B, H, W, C]`.
            labels: Integer tensor `[B]`.
            aggregation: A_i, a tensor `[B, h, w, c]`.

        Returns:
            The loss of each example, `[B]`, and measurements `{name: [B]}`.
        """


@dataclasses.dataclass(frozen=True)
class BridgeLoss:
    """The bridge loss of a group (Eqns 10 to 12).

    Args:
        gamma_st: Weight of the ST loss.
        gamma_ts: Weight of the TS loss.
    """

    gamma_st: float = 1e-3
    gamma_ts: float = 1.0

    name = "bridge"
    progress_metrics = {"bridge loss": "bridge", "TS accuracy": "ts_accuracy"}  # noqa: RUF012

    def __call__(self, net, group, images, labels, aggregation):
        """Implements `SearchLoss`."""
        features = net.student.features(group, images, training=True)
        return self.of_features(net, group, features, labels, aggregation)

    def of_features(self, net, group, features, labels, aggregation):
        """Computes the loss from the student's features of the group, which the images determine.

        Args:
            net: The supernet.
            group: The group's name.
            features: The student's features of the group, each `[B, h, w, c]`.
            labels: Integer tensor `[B]`.
            aggregation: A_i, a tensor `[B, h, w, c]`.

        Returns:
            As `SearchLoss`.
        """
        # The student-to-teacher path (Fig 3 c): the image, groups 1..i, the ST connector.
        feature = net.student_feature(features)
        st = normalized_l2(net.st_connectors[group](feature, training=True), aggregation)  # Eqn 11

        # The teacher-to-student path (Fig 3 b): A_i, the TS connector, groups i+1..G.
        x = net.ts_connectors[group](aggregation, training=True)
        logits = net.student.tail(group, x, training=True, tail_input=net.options.tail_input)
        ts = cross_entropy(logits, labels)  # Eqn 10

        bridge = self.gamma_st * st + self.gamma_ts * ts  # Eqn 12
        correct = is_correct(logits, labels)
        return bridge, {"bridge": bridge, "st": st, "ts": ts, "ts_accuracy": correct}


def beta_step(net: Supernet, group: str, loss: SearchLoss, optimizer, batch_size: int) -> Step:
    """Returns the step that minimises L_val + lambda R(beta) over beta_i alone (Eqn 7).

    The step leaves w, the teacher, the other groups' beta and all moving averages unchanged. The
    gradient reaches beta_i through A_i alone. Validation images are not used to train w.

    Args:
        net: The supernet.
        group: The group whose beta is trained.
        loss: The loss L_val.
        optimizer: An `Optimizer` of `[beta_i]` with weight decay lambda.
        batch_size: Size of the global batch.

    Returns:
        A function that runs on each replica. It receives the replica's part of a validation
        batch, images `[B, H, W, C]` and labels `[B]`, and returns the replica's share of each
        measurement, `{name: tensor}`.
    """
    beta = net.beta[group]

    def step(images, labels):
        features = net.teacher_features(group, images)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(beta)
            # The student uses batch statistics, as in DARTS. The scope discards the updates of the
            # moving averages, so that only beta changes.
            with keras.StatelessScope():
                aggregation = net.aggregation(group, features)
                loss_per_example, measurements = loss(net, group, images, labels, aggregation)
            mean_loss = global_mean(loss_per_example, batch_size)
        gradients = optimizer.gradients(tape, mean_loss)
        measured = beta_measurements([beta], gradients, measurements, optimizer, batch_size)
        optimizer.apply(gradients)  # adds the decay
        return measured

    return step


def beta_measurements(
    betas: Sequence, gradients: Sequence, measurements: Mapping, optimizer, batch_size: int
) -> dict[str, tf.Tensor]:
    """Returns this replica's share of the measurements of a beta step, before the update.

    The vectors of several groups are concatenated.

    Args:
        betas: For each group of the step, beta_i `[N_i]`.
        gradients: This replica's share of the gradient of L_val for each beta.
        measurements: `{name: [B]}` of the validation batch.
        optimizer: The `Optimizer` of `betas`.
        batch_size: Size of the global batch.
    """
    if optimizer.loss_scale is not None:  # the step of an overflow is not taken
        gradients = [tf.where(tf.math.is_finite(g), g, 0.0) for g in gradients]
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    return means("validation", measurements, batch_size) | {
        # The loop sums measurements over the replicas, and alpha is the same on each.
        "alpha": tf.concat([aggregation_weights(beta) / replicas for beta in betas], 0),
        "beta_loss_gradient": tf.concat(gradients, 0),
        # The gradient of lambda R(beta), R = |beta|^2 / 2.
        "beta_decay": tf.concat(optimizer.decay(), 0),
    }


def w_step(net: Supernet, group: str, loss: SearchLoss, optimizer, batch_size: int) -> Step:
    """Returns the step that minimises L_train over w alone (Eqn 8).

    Args:
        net: The supernet.
        group: The group whose loss is used.
        loss: The loss L_train.
        optimizer: An `Optimizer` of `net.weights(group)`.
        batch_size: Size of the global batch.

    Returns:
        A function like that of `beta_step`, for a training batch.
    """

    def step(images, labels):
        # Outside the tape, because A_i is a constant in this step.
        aggregation = net.aggregation(group, net.teacher_features(group, images))
        with tf.GradientTape() as tape:
            loss_per_example, measurements = loss(net, group, images, labels, aggregation)
            mean_loss = global_mean(loss_per_example, batch_size)
        # The student's own loss does not use the TS connector, which then has no gradient.
        optimizer.apply(optimizer.gradients(tape, mean_loss))
        return means("train", measurements, batch_size)

    return step


def first_order_steps(
    net: Supernet, group: str, loss: SearchLoss, optimizers, batch_size: int
) -> dict[tuple[str, ...], Step]:
    """Returns the two steps of an iteration, in order (Eqns 7 and 8).

    Args:
        net: The supernet.
        group: The group.
        loss: The loss of both steps.
        optimizers: The optimizers of beta_i and of w.
        batch_size: Size of the global batches.

    Returns:
        `{splits: step}`, where a step receives a batch of each of its splits.
    """
    beta_optimizer, w_optimizer = optimizers
    return {
        ("validation",): beta_step(net, group, loss, beta_optimizer, batch_size),
        ("train",): w_step(net, group, loss, w_optimizer, batch_size),
    }


def algorithm_1(
    groups: Iterable[Searched],
    steps_of: Callable[[Searched], Mapping[tuple[str, ...], Step]],
    iterate: Callable[[Searched, Mapping[tuple[str, ...], Step]], Iterable],
) -> Iterator[tuple]:
    """Searches the groups one after the other (Algorithm 1, lines 3 to 8).

    Args:
        groups: The groups to search; a joint search has one item, a tuple of all groups.
        steps_of: A function of a group that returns its steps, as `first_order_steps` does.
        iterate: A function of a group and its steps that runs the steps in turn for all
            iterations, and yields its progress.

    Yields:
        (group, progress) for each item that `iterate` yields.
    """
    for group in groups:
        for progress in iterate(group, steps_of(group)):
            yield group, progress


def means(
    split: str, measurements: Mapping[str, tf.Tensor], batch_size: int
) -> dict[str, tf.Tensor]:
    """Returns this replica's share of the mean of each measurement `[B]`, `{split/name: scalar}`."""
    return {f"{split}/{name}": global_mean(m, batch_size) for name, m in measurements.items()}
