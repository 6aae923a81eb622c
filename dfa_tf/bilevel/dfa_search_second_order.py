"""DFA's search with the second-order beta step of DARTS (Liu et al., ICLR 2019, §2.3).

The first-order step of dfa_search.py treats w as independent of beta. This one minimises the
validation loss of the w that the next step of the w optimizer would reach:

    g      = grad_w L_train(w, beta) + decay w
    w'     = w - eta (mu^2 m + (1 + mu) g)       SGD with Nesterov momentum mu and buffer m
    v      = grad_w' L_val(w', beta)
    dbeta  = grad_beta L_val(w', beta) - eta (1 + mu) grad_beta <grad_w L_train(w, beta), v>

w' is a trial. The w step that follows starts from w, with the same training batch and the new beta.
The paper uses the first order (Eqn 13 has no term for w'). This form is an option.

The last gradient is exact, by reverse mode through grad_w L_train, which w' needs anyway. DARTS'
finite difference would need two more passes, and rounds in bfloat16.
"""

from collections.abc import Sequence

import keras
import tensorflow as tf

from dfa_tf.bilevel.dfa_search import Loss, Step, Supernet, w_step
from dfa_tf.bilevel.dfa_search_measurements import beta_measurements
from dfa_tf.methods.aggregation import aggregation_weights
from dfa_tf.methods.replicas import global_mean, replica_total


def second_order_steps(
    net: Supernet, groups: Sequence[str], loss: Loss, optimizers, batch_size: int
) -> list[tuple[tuple[str, ...], Step]]:
    """Returns both steps of an iteration, as `dfa_search.first_order_steps` does."""
    beta_optimizer, w_optimizer = optimizers
    on_beta = second_order_beta_step(net, groups, loss, beta_optimizer, w_optimizer, batch_size)
    on_w = w_step(net, groups, loss, w_optimizer, batch_size)
    return [(("train", "validation"), on_beta), (("train",), on_w)]


def second_order_beta_step(
    net: Supernet, groups: Sequence[str], loss: Loss, optimizer, w_optimizer, batch_size: int
) -> Step:
    """Returns the step that minimises L_val(w', beta) + lambda R(beta) over the beta of groups alone.

    Like `dfa_search.beta_step`, it leaves everything else unchanged.

    Args:
        net: The supernet.
        groups: The groups whose beta is trained.
        loss: The loss L_train and L_val.
        optimizer: An `Optimizer` of these beta, in this order, with weight decay lambda.
        w_optimizer: The `Optimizer` of `net.variables(*groups)`, an `SGD`.
        batch_size: Size of the global batches.

    Returns:
        A function that runs on each replica. It receives the replica's parts of a training and of
        a validation batch, each a tuple of images `[B, H, W, C]` and labels `[B]`. It returns the
        replica's share of each measurement, `{name: tensor}`.
    """
    betas, variables = [net.beta[group] for group in groups], net.variables(*groups)
    weights = [variable.value for variable in variables]

    def mean_loss(batch, features):
        images, labels = batch
        loss_per_example, measurements = loss(net, images, labels, net.aggregations(features))
        return global_mean(loss_per_example, batch_size), measurements

    def step(train, validation):
        train_features, features = (net.teacher_features(groups, x) for x, _ in (train, validation))
        # grad_w L_train, recorded as a function of beta.
        with tf.GradientTape(watch_accessed_variables=False) as beta_tape:
            beta_tape.watch(betas)
            with tf.GradientTape() as tape, keras.StatelessScope():
                training_loss, _ = mean_loss(train, train_features)
            gradients = tape.gradient(training_loss, weights, unconnected_gradients="zero")

        # w', and eta (1 + mu).
        trial, rate = w_optimizer.lookahead(gradients)

        # grad_beta L_val(w', beta), and v = grad_w' L_val(w', beta).
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([*betas, *trial])
            with keras.StatelessScope(state_mapping=list(zip(variables, trial, strict=True))):
                validation_loss, measurements = mean_loss(validation, features)
        direct, v = tape.gradient(validation_loss, [betas, trial], unconnected_gradients="zero")

        # grad_beta <grad_w L_train, v>.
        through_w = beta_tape.gradient(
            gradients, betas, replica_total(v), unconnected_gradients="zero"
        )
        total = [d - rate * t for d, t in zip(direct, through_w, strict=True)]
        alphas = [aggregation_weights(beta) for beta in betas]
        measured = beta_measurements(alphas, total, measurements, optimizer, batch_size)
        optimizer.apply(total)  # adds the decay
        return measured

    return step
