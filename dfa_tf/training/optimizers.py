"""Optimizers and learning-rate schedules, as the papers state them: in epochs, with coupled decay."""

import dataclasses

import keras
import tensorflow as tf

from dfa_tf.errors import UserError

# First, because the classes below make instances for their defaults.


def _schedule(rate, steps_per_epoch, steps):
    return rate.schedule(steps_per_epoch, steps) if hasattr(rate, "schedule") else rate


def _check_rate(name, rate):
    if not hasattr(rate, "schedule"):
        if not isinstance(rate, int | float):
            raise UserError(f"{name}.learning_rate is a number or a schedule, not {rate!r}")
        _check_no_negative(name, learning_rate=rate)


def _check_positive(name, **values):
    for parameter, value in values.items():
        if not value > 0:
            raise UserError(f"{name}.{parameter} lies above 0, not at {value}")


def _check_no_negative(name, **values):
    for parameter, value in values.items():
        if not value >= 0:
            raise UserError(f"{name}.{parameter} is 0 or more, not {value}")


@dataclasses.dataclass(frozen=True)
class StepDecay:
    """A learning rate that is multiplied by `factor` at the start of each epoch in `epochs`.

    The defaults are DFA's for CIFAR-100 (§4.1). initial: learning rate. epochs: ascending.
    """

    initial: float = 0.1
    factor: float = 0.2
    epochs: tuple = (60, 120, 160)

    def __post_init__(self):
        _check_positive("step_decay", initial=self.initial, factor=self.factor)
        if list(self.epochs) != sorted(set(self.epochs)) or min(self.epochs, default=1) <= 0:
            raise UserError(f"step_decay.epochs ascend from above 0, unlike {self.epochs}")

    def schedule(self, steps_per_epoch, steps):
        """The Keras schedule over steps; `steps` of them in all."""
        # Keras changes the value after a boundary; the step there still has the old one.
        boundaries = [round(epoch * steps_per_epoch) - 1 for epoch in self.epochs]
        values = [self.initial * self.factor**k for k in range(len(boundaries) + 1)]
        return keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, values)


@dataclasses.dataclass(frozen=True)
class Cosine:
    """A learning rate that falls from `initial` to 0 along half a cosine, over the whole run.

    warmup_epochs: epochs, from the start, over which it first rises linearly from 0.
    """

    initial: float = 0.1
    warmup_epochs: float = 0.0

    def __post_init__(self):
        _check_positive("cosine", initial=self.initial)
        _check_no_negative("cosine", warmup_epochs=self.warmup_epochs)

    def schedule(self, steps_per_epoch, steps):
        """As `StepDecay.schedule`."""
        warmup = min(round(self.warmup_epochs * steps_per_epoch), steps - 1)
        return keras.optimizers.schedules.CosineDecay(
            0.0 if warmup else self.initial,
            decay_steps=steps - warmup,
            warmup_target=self.initial if warmup else None,
            warmup_steps=warmup,
        )


@dataclasses.dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with momentum, as DFA trains weights (§4.1).

    learning_rate: a schedule, or a number for a constant one.
    weight_decay: of the coupled kind, `gradient += weight_decay * weight`, for all variables.
    """

    learning_rate: StepDecay | Cosine | float = StepDecay()
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4

    def __post_init__(self):
        _check_rate("sgd", self.learning_rate)
        _check_no_negative("sgd", momentum=self.momentum, weight_decay=self.weight_decay)

    def build(self, variables, steps_per_epoch, steps):
        """An `Optimizer` of these variables for a run of `steps` steps."""
        rate = _schedule(self.learning_rate, steps_per_epoch, steps)
        sgd = keras.optimizers.SGD(rate, self.momentum, self.nesterov)
        return Optimizer(sgd, variables, self.weight_decay)


@dataclasses.dataclass(frozen=True)
class Adam:
    """Adam, as DFA trains architecture parameters (§3.4).

    Each step moves a parameter by about `learning_rate` at most, so learning_rate times steps is
    how far one can travel.
    learning_rate: as in `SGD`.
    weight_decay: coupled, as in `SGD`: it is lambda in Eqn 7, for R(beta) = |beta|^2 / 2.
    """

    learning_rate: StepDecay | Cosine | float = 1e-3
    beta_1: float = 0.5
    beta_2: float = 0.999
    weight_decay: float = 1e-3

    def __post_init__(self):
        _check_rate("adam", self.learning_rate)
        _check_no_negative("adam", weight_decay=self.weight_decay)

    def build(self, variables, steps_per_epoch, steps):
        """As `SGD.build`."""
        rate = _schedule(self.learning_rate, steps_per_epoch, steps)
        adam = keras.optimizers.Adam(rate, self.beta_1, self.beta_2, epsilon=1e-8)
        return Optimizer(adam, variables, self.weight_decay)


def check_recipe(optimizer):
    """Raises UserError unless `optimizer` is one of the above."""
    if not isinstance(optimizer, SGD | Adam):
        raise UserError(f"an optimizer is an SGD or an Adam of dfa_tf.training, not {optimizer!r}")


class Optimizer:
    """A Keras optimizer bound to its variables, with coupled weight decay.

    Keras' own `weight_decay` is decoupled: under a small learning rate it all but vanishes.
    """

    def __init__(self, optimizer, variables, weight_decay):
        optimizer.build(variables)
        self._optimizer = optimizer
        self._trained = variables
        self._weight_decay = weight_decay

    @property
    def state(self):
        """The optimizer's own tf.Variables."""
        return [variable.value for variable in self._optimizer.variables]

    @property
    def learning_rate(self):
        """What the next step will use: a float."""
        return float(tf.convert_to_tensor(self._optimizer.learning_rate))  # of any replica

    def apply(self, gradients):
        """One step. Call it on every replica, with the replica's share of the gradients.

        The shares are summed over the replicas. So each adds its share of the decay alone.
        """
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        decay = self._weight_decay / replicas
        if decay:
            gradients = [
                gradient + decay * tf.convert_to_tensor(variable)
                for gradient, variable in zip(gradients, self._trained, strict=True)
            ]
        self._optimizer.apply(gradients, self._trained)


def steps_of(epochs, examples, batch_size):
    """How many steps of `batch_size` the epochs make: whole steps, remainders carried over.

    40 epochs of CIFAR-100's 35,000 at batch 128 are 10,937. Raises UserError for none.
    """
    steps = int(epochs * examples / batch_size + 1e-9)
    if steps < 1:
        raise UserError(
            f"{epochs} epochs of {examples} examples make no batch of {batch_size}: bind more epochs or a smaller batch_size"
        )
    return steps
