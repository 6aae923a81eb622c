"""Batch normalization with TensorFlow's fused kernel."""

import contextlib
import contextvars
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

_FAST_TANGENTS = contextvars.ContextVar("fast_tangents", default=False)


@contextlib.contextmanager
def fast_tangents() -> Iterator[None]:
    """Makes `BatchNormalization` use `normalize_with_fast_tangent` within this scope.

    Outside of it, TensorFlow can fuse the normalization with a ReLU that follows.
    """
    token = _FAST_TANGENTS.set(True)
    try:
        yield
    finally:
        _FAST_TANGENTS.reset(token)


@keras.saving.register_keras_serializable("dfa_tf")
class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` over the channels of `[B, H, W, C]` maps, in one kernel.

    Variables, names and config are those of Keras. These are the differences:

    - Maps stay in the compute dtype (bfloat16 or float32). Statistics and parameters are float32.
      Keras casts the maps to float32 and back.
    - The moving variance uses the unbiased variance of the batch, as in PyTorch.
    - Momentum and epsilon default to 0.9 and 1e-5, as in the wide-ResNet literature. Keras' defaults
      are 0.99 and 1e-3.
    - Under `tf.distribute`, each replica updates its own moving statistics. Outside of a replica
      (evaluation, checkpoints, saved models) their mean is read.
    """

    def __init__(self, momentum: float = 0.9, epsilon: float = 1e-5, **kwargs):
        super().__init__(momentum=momentum, epsilon=epsilon, **kwargs)

    def add_weight(self, *args, **kwargs):
        if not str(kwargs.get("name", "")).startswith("moving_"):
            return super().add_weight(*args, **kwargs)
        with tf.variable_creator_scope(_create_variable_per_replica):
            return super().add_weight(*args, **kwargs)

    def affine(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns scale and offset `[C]`: at inference the layer computes scale * x + offset."""
        gamma, beta, mean, variance = self.get_weights()
        scale = gamma / np.sqrt(variance + self.epsilon)
        return scale, beta - mean * scale

    def call(self, inputs, training=None, mask=None):
        use_batch_statistics = bool(training and self.trainable)
        x = tf.cast(inputs, self.compute_dtype)
        if not use_batch_statistics:
            statistics = self.moving_mean, self.moving_variance
            return _batch_norm_kernel(x, self.gamma, self.beta, self.epsilon, *statistics)[0]
        normalize = normalize_with_fast_tangent if _FAST_TANGENTS.get() else _batch_norm_kernel
        y, mean, variance = normalize(x, self.gamma, self.beta, self.epsilon)[:3]
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving.value * self.momentum + batch * (1.0 - self.momentum))
        return y


def normalize_with_fast_tangent(
    x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, epsilon: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Normalizes maps with the statistics of the batch, in a form whose tangent is fast.

    Values and gradients are those of TensorFlow's kernels. The tangent is the product of the Jacobian
    and a direction (dx, dgamma, dbeta). It is the derivative of the gradient with respect to the
    upstream gradient, which TensorFlow computes with about forty element-wise operations. With two
    kernels it is

        gradient of the normalization for dx, because the Jacobian for x is symmetric,
        + dgamma (x - mean) / sqrt(variance + epsilon) + dbeta

    Args:
        x: Tensor `[B, H, W, C]`, bfloat16 or float32.
        gamma: Float32 tensor `[C]`.
        beta: Float32 tensor `[C]`.
        epsilon: What is added to the variance.

    Returns:
        The normalized maps, and the mean and the unbiased variance of each channel, float32 `[C]`,
        through which no gradient flows.
    """

    @tf.custom_gradient
    def forward(x, gamma, beta):
        outputs = _batch_norm_kernel(x, gamma, beta, epsilon)

        @tf.custom_gradient
        def backward(upstream, x, gamma):
            def tangent(dx, dgamma, dbeta):
                # `for_x` and `for_gamma` are second derivatives. A graph that uses the first result
                # alone leaves them out.
                with tf.GradientTape() as tape:
                    tape.watch([x, gamma])
                    gradients = _gradients(upstream, x, gamma, outputs, epsilon)
                directions = [dx, dgamma, dbeta]
                for_x, for_gamma = tape.gradient(gradients, [x, gamma], directions)
                count = tf.cast(tf.size(x) // tf.size(gamma), tf.float32)
                statistics = outputs.batch_mean, outputs.batch_variance * (count - 1.0) / count
                for_upstream = _gradients(dx, x, gamma, outputs, epsilon)[0]
                for_upstream += _batch_norm_kernel(x, dgamma, dbeta, epsilon, *statistics).y
                return for_upstream, for_x, for_gamma

            return _gradients(upstream, x, gamma, outputs, epsilon), tangent

        return outputs[:3], lambda upstream, *_: backward(upstream, x, gamma)

    return forward(x, tf.convert_to_tensor(gamma), tf.convert_to_tensor(beta))


def _batch_norm_kernel(x, gamma, beta, epsilon, mean=None, variance=None):
    """Returns the outputs of the kernel: maps, mean, variance, ...; None for those of the batch."""
    return tf.raw_ops.FusedBatchNormV3(
        x=x,
        scale=gamma,
        offset=beta,
        mean=[] if mean is None else mean,
        variance=[] if variance is None else variance,
        epsilon=epsilon,
        is_training=mean is None,
    )


def _gradients(upstream, x, gamma, outputs, epsilon):
    """Returns the gradients for x, gamma and beta."""
    return tf.raw_ops.FusedBatchNormGradV3(
        y_backprop=upstream,
        x=x,
        scale=gamma,
        reserve_space_1=outputs.reserve_space_1,
        reserve_space_2=outputs.reserve_space_2,
        reserve_space_3=outputs.reserve_space_3,
        epsilon=epsilon,
        is_training=True,
    )[:3]


def _create_variable_per_replica(create, **kwargs):
    """Creates a variable that each replica updates by itself and whose mean is read."""
    kwargs["synchronization"] = tf.VariableSynchronization.ON_READ
    kwargs["aggregation"] = tf.VariableAggregation.MEAN
    return create(**kwargs)
