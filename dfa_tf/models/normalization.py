"""Batch normalization with TensorFlow's fused kernel."""

import keras
import numpy as np
import tensorflow as tf


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
        outputs = tf.raw_ops.FusedBatchNormV3(
            x=tf.cast(inputs, self.compute_dtype),
            scale=self.gamma,
            offset=self.beta,
            mean=[] if use_batch_statistics else self.moving_mean,
            variance=[] if use_batch_statistics else self.moving_variance,
            epsilon=self.epsilon,
            is_training=use_batch_statistics,
        )
        if use_batch_statistics:
            for moving, batch in (
                (self.moving_mean, outputs.batch_mean),
                (self.moving_variance, outputs.batch_variance),
            ):
                moving.assign(moving.value * self.momentum + batch * (1.0 - self.momentum))
        return outputs.y


def _create_variable_per_replica(create, **kwargs):
    """Creates a variable that each replica updates by itself and whose mean is read."""
    kwargs["synchronization"] = tf.VariableSynchronization.ON_READ
    kwargs["aggregation"] = tf.VariableAggregation.MEAN
    return create(**kwargs)
