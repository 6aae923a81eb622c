"""DFA's search for all groups at once, an option: one search in place of one for each group.

The two steps of dfa_search.py minimise the bridge losses of all searched groups together:

    L     = sum over i of L_Bridge^i                                     `joint_loss`
    beta  minimise L_val(w, beta) + lambda R(beta) over all beta_i       `joint_beta_step`
    w     minimise L_train(w, beta) over w                               `joint_w_step`

beta_i enters L_Bridge^i alone, through A_i. Its gradient at given weights is therefore that of the
search of group i. The gradient of w is the sum of the groups' gradients. The decay of w enters once.

One pass of the teacher to the last searched group gives every A_i, and one pass of the student gives
every S_i. The student's later groups run once for each A_i: from A_1 groups 2 to G, from A_2 groups 3
to G. For three groups, 6 group passes of the teacher become 3, and 9 of the student become 6.

Learning rate of w: that of the search by groups. Without momentum and to first order in the rate,
a joint step moves w as far as the steps of all groups, one after the other, which it replaces. The
gradients add up where the paths share weights. L_TS^i reaches the groups after i, so group 1 gets
none of these gradients, group 2 one, group 3 two, and the classifier three. If the classifier
diverges at a high rate, divide the rate by the number of searched groups. docs/results/joint compares
three rates on digits.

Batch normalization: each pass uses the statistics of its own maps. The w step updates the moving
statistics of a layer once for each pass through it, always in this order: the image, then A_1, A_2
and so on, as far as the layer lies behind them. With momentum m and k passes behind the image, the
result is m^(k+1) times the old value plus (1 - m) times the sum of m^(k-p) times the statistics of
pass p, where the image is pass 0. The last aggregation thus counts most. The search itself does not
read moving statistics, and its student is not returned.
"""

from collections.abc import Mapping

import keras
import tensorflow as tf

from dfa_tf.methods.dfa_search import BridgeLoss, Step, Supernet, beta_measurements, means
from dfa_tf.methods.replicas import global_mean


def joint_loss(
    net: Supernet,
    loss: BridgeLoss,
    images: tf.Tensor,
    labels: tf.Tensor,
    aggregations: Mapping[str, tf.Tensor],
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Computes the sum of the bridge losses of all searched groups.

    Args:
        net: The supernet.
        loss: The bridge loss of a group.
        images: Tensor `[B, H, W, C]`.
        labels: Integer tensor `[B]`.
        aggregations: For each searched group in order, A_i `[B, h, w, c]`.

    Returns:
        The loss of each example, `[B]`, and measurements. "bridge/group1" is the measurement
        "bridge" of one group, and "bridge" the mean over the groups, likewise the others.
    """
    features = net.student.features_up_to(list(aggregations)[-1], images, training=True)
    losses, by_group = [], {}
    for group, aggregation in aggregations.items():
        value, by_group[group] = loss.of_features(net, group, features[group], labels, aggregation)
        losses.append(value)
    measurements = {}
    for name in by_group[group]:
        each = {f"{name}/{g}": by_group[g][name] for g in by_group}
        mean = tf.add_n([tf.cast(m, tf.float32) for m in each.values()]) / len(each)
        measurements |= {name: mean, **each}
    return tf.add_n(losses), measurements


def joint_beta_step(net: Supernet, loss: BridgeLoss, optimizer, batch_size: int) -> Step:
    """Returns the step that minimises L_val + lambda R(beta) over the beta of all groups (Eqn 7).

    Like `dfa_search.beta_step`, it leaves w, the teacher and all moving averages unchanged.

    Args:
        net: The supernet.
        loss: The bridge loss of a group.
        optimizer: An `Optimizer` of all beta, in the order of the groups, with weight decay lambda.
        batch_size: Size of the global batch.

    Returns:
        A function like that of `dfa_search.beta_step`, for a validation batch.
    """
    betas = list(net.beta.values())

    def step(images, labels):
        features = _teacher_features(net, images)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(betas)
            with keras.StatelessScope():  # discards the updates of moving averages
                aggregations = {
                    group: net.aggregation(group, features[group]) for group in net.beta
                }
                loss_per_example, measurements = joint_loss(net, loss, images, labels, aggregations)
            mean_loss = global_mean(loss_per_example, batch_size)
        gradients = optimizer.gradients(tape, mean_loss)
        measured = beta_measurements(betas, gradients, measurements, optimizer, batch_size)
        optimizer.apply(gradients)  # adds the decay
        return measured

    return step


def joint_w_step(net: Supernet, loss: BridgeLoss, optimizer, batch_size: int) -> Step:
    """Returns the step that minimises L_train over w alone (Eqn 8).

    Args:
        net: The supernet.
        loss: The bridge loss of a group.
        optimizer: An `Optimizer` of `net.weights(*net.beta)`.
        batch_size: Size of the global batch.

    Returns:
        A function like that of `dfa_search.beta_step`, for a training batch.
    """

    def step(images, labels):
        # Outside the tape, because every A_i is a constant in this step.
        features = _teacher_features(net, images)
        aggregations = {group: net.aggregation(group, features[group]) for group in net.beta}
        with tf.GradientTape() as tape:
            loss_per_example, measurements = joint_loss(net, loss, images, labels, aggregations)
            mean_loss = global_mean(loss_per_example, batch_size)
        optimizer.apply(optimizer.gradients(tape, mean_loss))
        return means("train", measurements, batch_size)

    return step


def joint_steps(
    net: Supernet, loss: BridgeLoss, optimizers, batch_size: int
) -> dict[tuple[str, ...], Step]:
    """Returns both steps of the joint search, as `dfa_search.first_order_steps` does for a group.

    Args:
        net: The supernet.
        loss: The bridge loss of a group.
        optimizers: The optimizers of all beta and of w.
        batch_size: Size of the global batches.
    """
    beta_optimizer, w_optimizer = optimizers
    return {
        ("validation",): joint_beta_step(net, loss, beta_optimizer, batch_size),
        ("train",): joint_w_step(net, loss, w_optimizer, batch_size),
    }


def _teacher_features(net, images):
    """Returns the teacher's features of all groups up to the last searched one, by group."""
    return net.teacher.features_up_to(list(net.beta)[-1], images, training=False)
