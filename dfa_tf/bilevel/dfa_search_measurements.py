"""What a step of DFA's search measures: losses of one group or several, alpha, and beta's gradient."""

from collections.abc import Mapping, Sequence

import tensorflow as tf

from dfa_tf.methods.replicas import mean_shares


def over_groups(measurements: Mapping[str, Mapping[str, tf.Tensor]]) -> dict[str, tf.Tensor]:
    """Returns the measurements of several groups, `{"st": mean, "st/group1": that of group 1, ...}`.

    Args:
        measurements: `{group: {name: [B]}}`. Those of a single group are returned as they are.
    """
    groups = list(measurements)
    if len(groups) == 1:
        return dict(measurements[groups[0]])
    merged = {}
    for name in measurements[groups[0]]:
        each = {f"{name}/{group}": measurements[group][name] for group in groups}
        mean = tf.add_n([tf.cast(m, tf.float32) for m in each.values()]) / len(each)
        merged |= {name: mean, **each}
    return merged


def beta_measurements(
    alphas: Sequence, gradients: Sequence, measurements: Mapping, optimizer, batch_size: int
) -> dict[str, tf.Tensor]:
    """Returns this replica's share of the measurements of a beta step, before the update.

    The vectors of several groups are concatenated.

    Args:
        alphas: For each group of the step, alpha_i `[N_i]`.
        gradients: This replica's share of the gradient of L_val for each beta_i.
        measurements: `{name: [B]}` of the validation batch.
        optimizer: The `Optimizer` of the beta_i.
        batch_size: Size of the global batch.
    """
    if optimizer.loss_scale is not None:  # the step of an overflow is not taken
        gradients = [tf.where(tf.math.is_finite(g), g, 0.0) for g in gradients]
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    return mean_shares("validation", measurements, batch_size) | {
        # The loop sums measurements over the replicas, and alpha is the same on each.
        "alpha": tf.concat([alpha / replicas for alpha in alphas], 0),
        "beta_loss_gradient": tf.concat(gradients, 0),
        # The gradient of lambda R(beta), R = |beta|^2 / 2.
        "beta_decay": tf.concat(optimizer.decay(), 0),
    }
