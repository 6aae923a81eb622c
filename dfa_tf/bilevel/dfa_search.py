"""DFA's search for feature aggregation weights: Algorithm 1, left (ECCV 2020, §3.2 to §3.4).

T_i^1 ... T_i^N are the features of the teacher's group i. S_i is the last feature of the
student's group i.

    Eqn 6   alpha_i = softmax(beta_i)                                  methods/aggregation.py
    Eqn 2   A_i = sum over j of alpha_i^j T_i^j                        methods/aggregation.py
    Eqn 10  L_TS = CE(labels, f_G(... f_{i+1}(F_t(A_i))))              `group_bridge_loss`
    Eqn 11  L_ST = |F_s(S_i) / |F_s(S_i)| - A_i / |A_i||^2             `normalized_l2`
    Eqn 12  L_Bridge = gamma_ST L_ST + gamma_TS L_TS                   `group_bridge_loss`
    Eqn 7   minimise L_val(w, beta) + lambda R(beta) over beta         `beta_step`
    Eqn 8   minimise L_train(w, beta) over w                           `w_step`
    Algorithm 1, lines 3 to 8                                          stages/search.py

F_t and F_s, the teacher and student transforms, are 1x1 convolutions. Fig 3 shows them as the
teacher-to-student (TS) and student-to-teacher (ST) connectors. f_i is group i of the student. Both
steps minimise the bridge loss of group i: the beta step on a validation batch, the w step on a
training batch.

The search is first order: the beta step uses the current w in place of w*(beta), as in first-order
DARTS. This agrees with the cost in Eqn 13, which has no second-order term. The second order is an
option (dfa_search_second_order.py).

Algorithm 1 searches one group after the other. Another option is one search of all groups at once, in
which both steps minimise the sum of the groups' bridge losses. beta_i enters L_Bridge^i alone, through
A_i, so its gradient at given weights is that of the search of group i. The gradient of w is the sum of
the groups' gradients; the decay of w enters once. For three groups, 6 group passes of the teacher
become 3, and 9 of the student become 6. docs/results/joint compares the two.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import keras
import tensorflow as tf

from dfa_tf import kernels
from dfa_tf.alpha import InitialBeta, initial_beta
from dfa_tf.bilevel.dfa_search_measurements import beta_measurements, over_groups
from dfa_tf.kernels import accelerated
from dfa_tf.methods.aggregation import aggregate, aggregation_weights, clip
from dfa_tf.methods.connectors import connector
from dfa_tf.methods.losses import cross_entropy, is_correct
from dfa_tf.methods.replicas import global_mean, mean_shares
from dfa_tf.methods.vectors import flatten, unit
from dfa_tf.models.network import Network
from dfa_tf.seeds import derived_seed
from dfa_tf.validation import NonNegative, Settings

Step = Callable[..., dict[str, tf.Tensor]]


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
            for each group. The learning rate of w is that of the search by groups: apart from
            momentum and second-order effects, a joint step moves w as far as one step of each group.
            The gradients of the TS losses add up in the student's later groups. If its classifier
            diverges, divide the rate by the number of groups.
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

        def connected(source, target, group, name):
            return connector(
                source.group(group).feature_shape,
                target.group(group).feature_shape[-1],
                f"{group}_{name}",
                options.connector_normalization,
                derived_seed(seed, f"search/{group}/{name}"),
                precision,
            )

        for group in searched_groups(teacher):
            self.st_connectors[group] = connected(student, teacher, group, "st")
            self.ts_connectors[group] = connected(teacher, student, group, "ts")
            start = initial_beta(
                options.initial,
                len(teacher.group(group).features),
                derived_seed(seed, f"search/{group}/beta"),
            )
            self.beta[group] = tf.Variable(start, name=f"{group}_beta")
            student.prepare_tail(group, options.tail_input)

    @property
    def models(self) -> list[keras.Model]:
        """The models that hold w: the student and all connectors."""
        return [self.student, *self.st_connectors.values(), *self.ts_connectors.values()]

    def variables(self, *groups: str) -> list:
        """Returns the variables of w: those of the student and of the groups' connectors."""
        connectors = self.st_connectors, self.ts_connectors
        models = [self.student, *(by_group[group] for by_group in connectors for group in groups)]
        return [variable for model in models for variable in model.trainable_variables]

    def teacher_features(
        self, groups: Sequence[str], images: tf.Tensor
    ) -> dict[str, list[tf.Tensor]]:
        """Returns the teacher's features of groups, without computing groups after the last one.

        Args:
            groups: Names of the groups, in order.
            images: Tensor `[B, H, W, C]`.

        Returns:
            For each group, the features `[T_i^1, ..., T_i^N]`, each `[B, h, w, c]`.
        """
        features = self.teacher.features_up_to(groups[-1], images, training=False)
        return {group: features[group] for group in groups}

    def aggregations(self, features: Mapping[str, Sequence[tf.Tensor]]) -> dict[str, tf.Tensor]:
        """Returns A_i `[B, h, w, c]` of each group, from its features."""
        return {group: self.aggregation(group, Ts) for group, Ts in features.items()}

    def aggregation(self, group: str, features: Sequence[tf.Tensor]) -> tf.Tensor:
        """Returns A_i, the sum of N features `[B, h, w, c]` weighted by the softmax of beta_i."""
        alpha = aggregation_weights(self.beta[group])  # Eqn 6
        return aggregate(features, alpha, self.options.clip)  # Eqn 2

    def student_feature(self, features: Sequence[tf.Tensor]) -> tf.Tensor:
        """Returns S_i `[B, H, W, C]`, a group's last feature, clipped if `options.clip` is set."""
        return clip(features[-1]) if self.options.clip else features[-1]


Loss = Callable[
    [Supernet, tf.Tensor, tf.Tensor, Mapping[str, tf.Tensor]],
    tuple[tf.Tensor, dict[str, tf.Tensor]],
]


def bridge_loss(
    net: Supernet, images: tf.Tensor, labels: tf.Tensor, aggregations: Mapping[str, tf.Tensor]
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Computes the bridge loss of the searched groups, from one pass of the student to the last one.

    Several groups share batch normalizations. Each pass uses the statistics of its own maps, and a
    moving average records one after the other: first those of the images, then those of each A_i that
    passes through the layer.

    Args:
        net: The supernet.
        images: Tensor `[B, H, W, C]`.
        labels: Integer tensor `[B]`.
        aggregations: For each searched group in order, A_i `[B, h, w, c]`.

    Returns:
        The loss of each example, `[B]`, summed over the groups, and measurements `{name: [B]}`, as
        from `over_groups`.
    """
    features = net.student.features_up_to(list(aggregations)[-1], images, training=True)
    measured = {
        group: group_bridge_loss(net, group, features[group], A, labels)
        for group, A in aggregations.items()
    }
    return tf.add_n([each["bridge"] for each in measured.values()]), over_groups(measured)


def group_bridge_loss(
    net: Supernet, group: str, features: Sequence[tf.Tensor], A: tf.Tensor, labels: tf.Tensor
) -> dict[str, tf.Tensor]:
    """Computes the bridge loss of group i for each example (Eqns 10 to 12).

    Args:
        net: The supernet.
        group: The name of group i.
        features: The features of the student's group i for the images, each `[B, H, W, C]`.
        A: A_i `[B, h, w, c]`, the aggregation of the teacher's features for the same images.
        labels: Integer tensor `[B]`.

    Returns:
        The bridge loss, its two parts and the accuracy of the TS path, `{name: [B]}`.
    """
    # The student-to-teacher path (Fig 3 c): the image, groups 1..i, the ST connector.
    S = net.student_feature(features)
    st = normalized_l2(net.st_connectors[group](S, training=True), A)  # Eqn 11

    # The teacher-to-student path (Fig 3 b): A_i, the TS connector, groups i+1..G.
    x = net.ts_connectors[group](A, training=True)
    logits = net.student.tail(group, x, training=True, tail_input=net.options.tail_input)
    ts = cross_entropy(logits, labels)  # Eqn 10

    bridge = net.options.gamma_st * st + net.options.gamma_ts * ts  # Eqn 12
    return {"bridge": bridge, "st": st, "ts": ts, "ts_accuracy": is_correct(logits, labels)}


def beta_step(net: Supernet, groups: Sequence[str], loss: Loss, optimizer, batch_size: int) -> Step:
    """Returns the step that minimises L_val + lambda R(beta) over the beta of groups alone (Eqn 7).

    The step leaves w, the teacher, the other groups' beta and all moving averages unchanged. The
    gradient reaches beta_i through A_i alone. Validation images are not used to train w.

    Args:
        net: The supernet.
        groups: The groups whose beta is trained: one (Algorithm 1), or all at once.
        loss: The loss L_val.
        optimizer: An `Optimizer` of these beta, in this order, with weight decay lambda.
        batch_size: Size of the global batch.

    Returns:
        A function that runs on each replica. It receives the replica's part of a validation
        batch, images `[B, H, W, C]` and labels `[B]`, and returns the replica's share of each
        measurement, `{name: tensor}`.
    """
    betas = [net.beta[group] for group in groups]

    def step(images, labels):
        features = net.teacher_features(groups, images)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(betas)
            # The student uses batch statistics, as in DARTS. The scope discards the updates of the
            # moving averages, so that only beta changes.
            with keras.StatelessScope():
                aggregations = net.aggregations(features)
                loss_per_example, measurements = loss(net, images, labels, aggregations)
            mean_loss = global_mean(loss_per_example, batch_size)
        gradients = optimizer.gradients(tape, mean_loss)
        alphas = [aggregation_weights(beta) for beta in betas]
        measured = beta_measurements(alphas, gradients, measurements, optimizer, batch_size)
        optimizer.apply(gradients)  # adds the decay
        return measured

    return step


def w_step(net: Supernet, groups: Sequence[str], loss: Loss, optimizer, batch_size: int) -> Step:
    """Returns the step that minimises L_train over w alone (Eqn 8).

    Args:
        net: The supernet.
        groups: The groups whose loss is used.
        loss: The loss L_train.
        optimizer: An `Optimizer` of `net.variables(*groups)`.
        batch_size: Size of the global batch.

    Returns:
        A function like that of `beta_step`, for a training batch.
    """

    def step(images, labels):
        # Outside the tape, because every A_i is a constant in this step.
        aggregations = net.aggregations(net.teacher_features(groups, images))
        with tf.GradientTape() as tape:
            loss_per_example, measurements = loss(net, images, labels, aggregations)
            mean_loss = global_mean(loss_per_example, batch_size)
        # The student's own loss does not use the TS connector, which then has no gradient.
        optimizer.apply(optimizer.gradients(tape, mean_loss))
        return mean_shares("train", measurements, batch_size)

    return step


def first_order_steps(
    net: Supernet, groups: Sequence[str], loss: Loss, optimizers, batch_size: int
) -> list[tuple[tuple[str, ...], Step]]:
    """Returns the two steps of an iteration, in order (Eqns 7 and 8; Algorithm 1, lines 4 to 7).

    Args:
        net: The supernet.
        groups: The groups to search: one (Algorithm 1), or all at once.
        loss: The loss of both steps.
        optimizers: The optimizers of the groups' beta and of w.
        batch_size: Size of the global batches.

    Returns:
        (splits, step) of each. The step receives a batch of each of its splits.
    """
    beta_optimizer, w_optimizer = optimizers
    return [
        (("validation",), beta_step(net, groups, loss, beta_optimizer, batch_size)),
        (("train",), w_step(net, groups, loss, w_optimizer, batch_size)),
    ]
