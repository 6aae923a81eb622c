"""DistPro's search for a distillation process (Deng et al., ECCV 2022): the weights of the paths.

theta are the weights of the student, phi those of the transforms. D_k is the mean loss of path k,
lambda_k its constant weight, alpha `[K]` the parameters behind the weights of the paths.

    biased     w = K softmax([alpha, 1]) without its last element             `path_weights`
    plain      w = softmax(alpha)                                             `path_weights`
    L_train    = CE_train + sum over k of w_k(alpha) lambda_k D_k
    theta'     = one step of the optimizer along grad L_train(theta, phi)     `meta_step`, 2
    g(u)       = grad_theta sum over k of u_k lambda_k D_k(theta, phi)        `meta_step`, 2
    v          = grad CE_val(theta')                                          `meta_step`, 3
    d_k        = <grad_theta lambda_k D_k(theta, phi), v> = d<g(u), v> / du_k `meta_step`, 4
    dCE_val(theta') / dw_k     = -eta (1 + mu) d_k
    dCE_val(theta') / dalpha_j = -eta (1 + mu) sum over k of d_k dw_k / dalpha_j

eta is the learning rate and mu the Nesterov momentum. A path gains weight if its gradient points
where the gradient of the validation loss points. Adam does not depend on the positive factor
eta (1 + mu), so it is left out (`meta_step`, 5).

theta' is not a trial step that is undone, but the next student. g is linear in u, so its derivative
does not depend on g. A `tf.function` does not compute what only g needs, and d costs as much as two
evaluations of the D_k, for any number of paths. An iteration then costs one step of training, one
gradient of the cross entropy, and these two evaluations. The last element of the biased softmax is a
path without a loss, which lets all weights fall.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

import keras
import tensorflow as tf

from dfa_tf.errors import UserError
from dfa_tf.methods.losses import cross_entropy, is_correct
from dfa_tf.methods.method import ALPHA, Method, Outputs
from dfa_tf.methods.replicas import global_mean, mean_shares, replica_total
from dfa_tf.models.network import Network, Precision
from dfa_tf.models.normalization import fast_tangents
from dfa_tf.objectives.objective import frozen_outputs, network_outputs
from dfa_tf.objectives.teachers import build_method, check_method
from dfa_tf.objectives.terms import named_terms, path_factors, term_names
from dfa_tf.validation import Settings

ZERO_PATH = 1.0  # the parameter of the path without a loss; alpha starts at the same value

Normalization = Literal["biased", "plain"]


@dataclasses.dataclass(frozen=True)
class SearchProcessOptions(Settings):
    """Settings of the search for a process.

    Args:
        normalization: How the weights follow from alpha. "biased": the number of paths times a
            softmax with a further path that has no loss; each weight starts at K / (K + 1). The
            factor K is inferred. "plain": a softmax, whose sum is 1.
    """

    normalization: Normalization = "biased"

    name = "search_process"


def path_weights(alpha: tf.Tensor, normalization: Normalization) -> tf.Tensor:
    """Returns the weights of the paths, `[K]`, from alpha `[K]`."""
    if normalization == "plain":
        return tf.nn.softmax(alpha)
    return alpha.shape[0] * tf.nn.softmax(tf.concat([alpha, [ZERO_PATH]], 0))[:-1]


class ProcessSearchNet:
    """The student, the frozen teacher, the methods that connect them, and alpha.

    Build it in the scope of the run's strategy.

    Args:
        teacher: The trained teacher.
        student: The student to train.
        methods: The methods whose terms are the paths.
        options: Settings of the search.
        ce_weight: Weight of the cross entropy in L_train.
        precision: Keras dtype policy of the teacher and the transforms.
        seed: Seed of the transforms.

    Attributes:
        alpha: The parameters behind the weights of the paths, a float32 variable `[K]`.
        paths: Names of the K paths.
        factors: lambda_k of each path.
        models: The models that are trained: the student and the transforms.
    """

    def __init__(
        self,
        teacher: Network,
        student: Network,
        methods: Sequence[Method],
        options: SearchProcessOptions = SearchProcessOptions(),
        *,
        ce_weight: float = 1.0,
        precision: Precision = "float32",
        seed: int = 0,
    ):
        self.student, self.options = student, options
        built = [build_method(method, [teacher], student, seed, precision) for method in methods]
        self._teacher = teacher.folded(precision)
        distillations = [each for group in built for each in group]
        self._distillations = list(zip(distillations, term_names(distillations), strict=True))
        self.factors = path_factors(distillations)
        self._needs = {need for method in methods for need in method.needs}
        self._ce_weight = ce_weight
        self.paths = list(self.factors)
        self.models = [student, *(c for each in distillations for c in each.connectors)]
        self.alpha = tf.Variable(tf.fill([len(self.paths)], ZERO_PATH), name="alpha")

    @property
    def variables(self) -> list[keras.Variable]:
        """The trainable variables: the student's, then those of the transforms."""
        return [variable for model in self.models for variable in model.trainable_variables]

    def current_weights(self) -> tf.Tensor:
        """Returns the current weights of the paths, `[K]`."""
        return path_weights(tf.convert_to_tensor(self.alpha), self.options.normalization)

    def teacher_outputs(self, images: tf.Tensor, labels: tf.Tensor) -> Outputs:
        """Returns the `Outputs` of the teacher for images `[B, H, W, C]` and labels `[B]`."""
        return frozen_outputs(self._teacher, images, labels, self._needs)

    def path_losses(
        self, teacher_outputs: Outputs, images: tf.Tensor, labels: tf.Tensor
    ) -> tuple[Outputs, dict[str, tf.Tensor]]:
        """Computes the losses of all paths.

        Args:
            teacher_outputs: The `Outputs` of the teacher.
            images: Tensor `[B, H, W, C]`.
            labels: Integer tensor `[B]`.

        Returns:
            The `Outputs` of the student with batch statistics, and the loss `[B]` of each path,
            without lambda_k.
        """
        outputs = network_outputs(self.student, images, labels, self._needs, training=True)
        terms = named_terms(self._distillations, [teacher_outputs], outputs, labels)
        return outputs, {path: terms[path] for path in self.paths}

    def training_loss(
        self, teacher_outputs: Outputs, images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor
    ) -> tuple[tf.Tensor, Outputs, dict[str, tf.Tensor]]:
        """Computes L_train of each example.

        Args:
            teacher_outputs: The `Outputs` of the teacher.
            images: Tensor `[B, H, W, C]`.
            labels: Integer tensor `[B]`.
            weights: The weights of the paths, `[K]`.

        Returns:
            The loss `[B]`, the `Outputs` of the student, and measurements `{name: [B]}`.
        """
        outputs, losses = self.path_losses(teacher_outputs, images, labels)
        ce = cross_entropy(outputs.logits, labels)
        loss = self._ce_weight * ce
        for path, weight in zip(self.paths, tf.unstack(weights), strict=True):
            loss += weight * self.factors[path] * losses[path]
        return loss, outputs, {"cross_entropy": ce} | losses

    def validation_loss(
        self, images: tf.Tensor, labels: tf.Tensor
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Computes the cross entropy of the student with batch statistics, and records none.

        Args:
            images: Tensor `[B, H, W, C]`.
            labels: Integer tensor `[B]`.

        Returns:
            The loss `[B]`, and measurements `{name: [B]}`.
        """
        with keras.StatelessScope():  # discards the updates of the moving averages
            logits = self.student(images, training=True)["logits"]
        ce = cross_entropy(logits, labels)
        return ce, {"cross_entropy": ce, "accuracy": is_correct(logits, labels)}


def check_searchable(teacher: Network, student: Network, methods: Sequence[Method]) -> None:
    """Checks that the paths of the methods can be searched.

    Raises:
        UserError: If there is no method, or a method does not support the networks, needs what the
            search does not have, or has a pretraining phase.
    """
    if not methods:
        raise UserError("distill.methods: expected methods such as [@pathways()], got none")
    for method in methods:
        if ALPHA in method.needs:
            raise UserError(
                f"distill.methods: {method.name} needs aggregation weights, which this "
                "search does not have; use other methods"
            )
        check_method(method, [teacher], student)
        if any(d.pretraining for d in build_method(method, [teacher], student, 0, "float32")):
            raise UserError(
                f"distill.methods: {method.name} has a pretraining phase, which this search does "
                "not run; use other methods, or bind process.file"
            )


def meta_step(net: ProcessSearchNet, optimizer, alpha_optimizer, batch_size: int) -> Callable:
    """Returns the step that trains the student, and alpha through its effect on the student.

    The teacher is unchanged. Moving averages record the training batch alone, once.

    Args:
        net: The networks.
        optimizer: An `Optimizer` of `net.variables`.
        alpha_optimizer: An `Optimizer` of `[net.alpha]`.
        batch_size: Size of the global training batch and of the global validation batch.

    Returns:
        A function that runs on each replica. It receives the replica's parts of a training and of
        a validation batch, each a tuple of images `[B, H, W, C]` and labels `[B]`. It returns the
        replica's share of each measurement, `{name: tensor}`. "weights" are those that the step
        used. "alpha_gradient" is the gradient of the validation loss over eta (1 + mu).
    """
    trained = [variable.value for variable in net.variables]
    student_weights = [variable.value for variable in net.student.trainable_variables]

    def step(train, validation):
        images, labels = train

        # 1. The weights of the paths.
        teacher_outputs = net.teacher_outputs(images, labels)
        alpha = tf.convert_to_tensor(net.alpha)
        weights = path_weights(alpha, net.options.normalization)

        # 2. The student of the next iteration, and this replica's share of g(u). The derivative of g is
        # the same for any u.
        u = tf.zeros_like(weights)
        with tf.GradientTape(watch_accessed_variables=False) as u_tape:
            u_tape.watch(u)
            with tf.GradientTape(persistent=True) as tape, fast_tangents():
                loss, outputs, measured = net.training_loss(
                    teacher_outputs, images, labels, weights
                )
                mean_loss = global_mean(loss, batch_size)
                means = [net.factors[p] * global_mean(measured[p], batch_size) for p in net.paths]
            g = tape.gradient(means, student_weights, tf.unstack(u), unconnected_gradients="zero")
        optimizer.apply(tape.gradient(mean_loss, trained, unconnected_gradients="zero"))

        # 3. The direction, the same on all replicas.
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(student_weights)
            validation_loss, validation_measured = net.validation_loss(*validation)
            mean_loss = global_mean(validation_loss, batch_size)
        gradients = tape.gradient(mean_loss, student_weights, unconnected_gradients="zero")
        direction = replica_total(gradients)

        # 4. This replica's share of d.
        products = u_tape.gradient(g, u, direction, unconnected_gradients="zero")

        # 5. The step of alpha. The optimizer sums the shares.
        gradient = alpha_gradient(alpha, products, net.options.normalization)
        alpha_optimizer.apply([gradient])

        train_measured = measured | {
            "loss": loss,
            "accuracy": is_correct(outputs.logits, labels),
        }
        # The loop sums measurements over the replicas, and these are the same on each.
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        return (
            mean_shares("train", train_measured, batch_size)
            | mean_shares("validation", validation_measured, batch_size)
            | {"alpha": alpha / replicas, "weights": weights / replicas}
            | {"alpha_gradient": gradient}
        )

    return step


def alpha_gradient(
    alpha: tf.Tensor, products: tf.Tensor, normalization: Normalization
) -> tf.Tensor:
    """Returns the gradient of the validation loss with respect to alpha, over eta (1 + mu).

    Args:
        alpha: Tensor `[K]`.
        products: d `[K]`.
        normalization: As in `SearchProcessOptions`.

    Returns:
        -J^T d `[K]`, where J is the Jacobian of the weights.
    """
    with tf.GradientTape() as tape:
        tape.watch(alpha)
        effect = -tf.tensordot(path_weights(alpha, normalization), products, 1)
    return tape.gradient(effect, alpha)
