"""Optimizers and learning-rate schedules as in the papers: in epochs, with coupled decay."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from dfa_tf.errors import UserError
from dfa_tf.methods.replicas import replica_total
from dfa_tf.validation import DecayRate, NonNegative, Positive, Settings


@dataclasses.dataclass(frozen=True)
class StepDecay(Settings):
    """A learning rate that is multiplied by `factor` at the start of given epochs.

    The defaults are DFA's for CIFAR-100 (§4.1).

    Args:
        initial: The first learning rate.
        factor: The factor of each change.
        epochs: Epochs at whose start the rate changes, ascending.
    """

    initial: Positive = 0.1
    factor: Positive = 0.2
    epochs: tuple[Positive, ...] = (60, 120, 160)

    name = "step_decay"

    def __post_init__(self):
        super().__post_init__()
        if list(self.epochs) != sorted(set(self.epochs)):
            raise UserError(f"step_decay.epochs: expected ascending epochs, got {self.epochs}")

    def schedule(
        self, steps_per_epoch: float, steps: int
    ) -> keras.optimizers.schedules.LearningRateSchedule:
        """Returns the Keras schedule of a run of `steps` steps."""
        # Keras still uses the old value at the boundary itself.
        boundaries = [round(epoch * steps_per_epoch) - 1 for epoch in self.epochs]
        values = [self.initial * self.factor**k for k in range(len(boundaries) + 1)]
        return keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, values)


@dataclasses.dataclass(frozen=True)
class Cosine(Settings):
    """A learning rate that falls to 0 along half a cosine over the run.

    Args:
        initial: The highest learning rate.
        warmup_epochs: Epochs over which the rate first rises linearly from 0.
    """

    initial: Positive = 0.1
    warmup_epochs: NonNegative = 0.0

    name = "cosine"

    def schedule(
        self, steps_per_epoch: float, steps: int
    ) -> keras.optimizers.schedules.LearningRateSchedule:
        """Returns the Keras schedule of a run of `steps` steps."""
        warmup = min(round(self.warmup_epochs * steps_per_epoch), steps - 1)
        return keras.optimizers.schedules.CosineDecay(
            0.0 if warmup else self.initial,
            decay_steps=steps - warmup,
            warmup_target=self.initial if warmup else None,
            warmup_steps=warmup,
        )


LearningRate = StepDecay | Cosine | NonNegative


class OptimizerSettings(Settings):
    """Base class of the settings of an optimizer.

    Subclasses have the fields `learning_rate` and `weight_decay`.
    """

    def keras_optimizer(self, rate: Any) -> keras.Optimizer:
        """Returns Keras' optimizer for a learning rate: a number or a schedule."""
        raise NotImplementedError

    def build(
        self: Any,
        variables: Sequence,
        steps_per_epoch: float,
        steps: int,
        factor: float = 1.0,
        loss_scaling: bool = False,
    ) -> "Optimizer":
        """Returns an `Optimizer` of `variables` for a run of `steps` steps.

        Args:
            variables: The variables to train.
            steps_per_epoch: Steps in an epoch, for the schedule.
            steps: Steps of the run, for the schedule.
            factor: Factor of the learning rate.
            loss_scaling: As in `Optimizer`.
        """
        rate = _schedule(self.learning_rate, steps_per_epoch, steps, factor)
        return Optimizer(self.keras_optimizer(rate), variables, self.weight_decay, loss_scaling)


@dataclasses.dataclass(frozen=True)
class SGD(OptimizerSettings):
    """Stochastic gradient descent with momentum, as DFA trains weights (§4.1).

    Args:
        learning_rate: A schedule, or a number for a constant rate.
        momentum: Momentum.
        nesterov: Whether to use Nesterov momentum.
        weight_decay: Coupled decay of all variables, `gradient += weight_decay * weight`.
    """

    learning_rate: LearningRate = StepDecay()
    momentum: DecayRate = 0.9
    nesterov: bool = True
    weight_decay: NonNegative = 5e-4

    name = "sgd"

    def keras_optimizer(self, rate) -> keras.Optimizer:
        """Returns Keras' optimizer for a learning rate."""
        return keras.optimizers.SGD(rate, self.momentum, self.nesterov)


@dataclasses.dataclass(frozen=True)
class Adam(OptimizerSettings):
    """Adam, as DFA trains architecture parameters (§3.4).

    A step moves a parameter by about `learning_rate` at most, so learning_rate × steps limits how
    far a parameter can move in a run.

    Args:
        learning_rate: A schedule, or a number for a constant rate.
        beta_1: Decay rate of the first moment.
        beta_2: Decay rate of the second moment.
        weight_decay: Coupled decay, λ of Eqn 7 for R(beta) = |beta|² / 2.
    """

    learning_rate: LearningRate = 1e-3
    beta_1: DecayRate = 0.5
    beta_2: DecayRate = 0.999
    weight_decay: NonNegative = 1e-3

    name = "adam"

    def keras_optimizer(self, rate) -> keras.Optimizer:
        """Returns Keras' optimizer for a learning rate."""
        return keras.optimizers.Adam(rate, self.beta_1, self.beta_2, epsilon=1e-8)


def _schedule(rate, steps_per_epoch, steps, factor):
    if isinstance(rate, int | float):
        return rate * factor
    return dataclasses.replace(rate, initial=rate.initial * factor).schedule(steps_per_epoch, steps)


class Optimizer:
    """A Keras optimizer of given variables, with coupled weight decay.

    Keras' own `weight_decay` is decoupled: at a small learning rate it has almost no effect.

    Args:
        optimizer: A Keras optimizer.
        variables: The variables to train.
        weight_decay: Factor of the decay, `gradient += weight_decay * variable`.
        loss_scaling: Whether gradients are computed at a dynamic loss scale, which float16 needs
            (Micikevicius et al., ICLR 2018, §3.2). A step whose gradients overflow halves the scale
            and changes no variable. It counts as a step, also for the learning-rate schedule.
    """

    def __init__(
        self,
        optimizer: keras.Optimizer,
        variables: Sequence,
        weight_decay: float,
        loss_scaling: bool = False,
    ):
        if loss_scaling:
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        optimizer.build(variables)
        self._loss_scaling = loss_scaling
        self._optimizer = optimizer
        self._variables = variables
        self._weight_decay = weight_decay

    @property
    def state(self) -> list[tf.Variable]:
        """The optimizer's own variables."""
        return [variable.value for variable in self._optimizer.variables]

    @property
    def variables(self) -> Sequence:
        """The variables that are trained."""
        return self._variables

    @property
    def step(self) -> tf.Tensor:
        """The number of finished steps, a scalar."""
        return tf.convert_to_tensor(self._optimizer.iterations)

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        return float(tf.convert_to_tensor(self._optimizer.learning_rate))  # equal on all replicas

    def decay(self) -> list[tf.Tensor]:
        """Returns this replica's share of the decay's gradient, `weight_decay * variable`."""
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        factor = self._weight_decay / replicas
        return [factor * tf.convert_to_tensor(variable) for variable in self._variables]

    @property
    def loss_scale(self) -> tf.Tensor | None:
        """The loss scale, a power of 2; None without loss scaling."""
        return tf.convert_to_tensor(self._optimizer.dynamic_scale) if self._loss_scaling else None

    def gradients(self, tape: tf.GradientTape, loss: tf.Tensor) -> list[tf.Tensor]:
        """Returns the gradients of a loss for `apply`, with 0 for variables that it ignores.

        Args:
            tape: The tape that recorded the loss.
            loss: This replica's share of the mean loss, a scalar.
        """
        return scaled_gradients(tape, loss, self._variables, self.loss_scale)

    def apply(self, gradients: Sequence[tf.Tensor]) -> None:
        """Updates the variables. Call it on every replica.

        Args:
            gradients: This replica's share of the gradients, without the decay. The shares are
                summed over the replicas.
        """
        if self._weight_decay:
            gradients = [g + d for g, d in zip(gradients, self.decay(), strict=True)]
        if self._loss_scaling:
            gradients = [g * self.loss_scale for g in gradients]  # Keras divides them by it
            # If the gradients of one replica overflow, all replicas skip the step.
            gradients[0] += replica_total([_zero_or_nan(gradients)])[0]
        steps = tf.convert_to_tensor(self._optimizer.iterations)
        self._optimizer.apply(gradients, self._variables)
        if self._loss_scaling:
            # Keras does not count the steps that it skips. What follows from the step, such as the
            # mixing of images, would then lag behind the batches.
            self._optimizer.iterations.assign(steps + 1)

    def skip(self) -> None:
        """Counts a step that leaves the variables unchanged. Call it on every replica."""
        self._optimizer.iterations.assign_add(1)

    def lookahead(self, gradients: Sequence[tf.Tensor]) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Computes the effect of a step of `SGD`, without taking it. Call it on every replica.

        Args:
            gradients: As for `apply`.

        Returns:
            The values of the variables after the step, and eta (1 + mu), or eta without Nesterov
            momentum: a value changes by this factor, negated, if its gradient changes by 1.
        """
        sgd = self._optimizer
        eta, mu = tf.cast(sgd.learning_rate, tf.float32), sgd.momentum
        nesterov = sgd.nesterov and mu > 0
        buffers = sgd.momentums if mu > 0 else [0.0] * len(self._variables)
        shares = [g + d for g, d in zip(gradients, self.decay(), strict=True)]
        values = []
        for variable, m, g in zip(self._variables, buffers, replica_total(shares), strict=True):
            m = mu * tf.convert_to_tensor(m) - eta * g  # Keras' buffer includes the learning rate
            moved = mu * m - eta * g if nesterov else m
            values.append(tf.convert_to_tensor(variable) + moved)
        return values, eta * (1.0 + mu) if nesterov else eta


def scaled_gradients(
    tape: tf.GradientTape, loss: tf.Tensor, variables: Sequence, scale: tf.Tensor | None
) -> list[tf.Tensor]:
    """Returns the gradients of a loss. The backward pass computes those of scale * loss.

    Scaling by a power of 2 is exact: gradients that float16 can represent do not change.
    """
    sources = [v.value if isinstance(v, keras.Variable) else v for v in variables]
    if scale is None:
        return tape.gradient(loss, sources, unconnected_gradients="zero")
    gradients = tape.gradient(loss, sources, scale, unconnected_gradients="zero")
    return [gradient / scale for gradient in gradients]


def _zero_or_nan(gradients):
    """Returns 0 if all gradients are finite, else NaN."""
    finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(g)) for g in gradients])
    return tf.where(finite, 0.0, float("nan"))
