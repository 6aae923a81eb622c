"""Batch normalization through TensorFlow's fused kernel."""

import keras
import numpy as np
import tensorflow as tf


@keras.saving.register_keras_serializable("dfa_tf")
class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` over the channels of [B, H, W, C] maps, as one fused kernel.

    Variables, names and config are Keras' own; what differs:

    - the maps stay in the layer's compute dtype (bfloat16 or float32) while statistics and
      parameters are float32, where Keras casts the maps to float32 and back;
    - the moving variance takes the unbiased batch variance, as in PyTorch;
    - momentum and epsilon default to the 0.9 and 1e-5 of the wide-ResNet literature
      (Keras: 0.99 and 1e-3);
    - under `tf.distribute` each replica keeps its own moving statistics, and whoever reads them
      outside of a replica (evaluation, a checkpoint, a saved model) gets their mean.
    """

    def __init__(self, momentum=0.9, epsilon=1e-5, **kwargs):
        super().__init__(momentum=momentum, epsilon=epsilon, **kwargs)

    def add_weight(self, *args, **kwargs):
        if not str(kwargs.get("name", "")).startswith("moving_"):
            return super().add_weight(*args, **kwargs)
        with tf.variable_creator_scope(_one_per_replica):
            return super().add_weight(*args, **kwargs)

    def affine(self):
        """(scale, offset) [C] NumPy arrays: at inference this layer gives scale x + offset."""
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


def _one_per_replica(create, **kwargs):
    """Makes a variable that each replica writes alone and that is averaged when read."""
    kwargs["synchronization"] = tf.VariableSynchronization.ON_READ
    kwargs["aggregation"] = tf.VariableAggregation.MEAN
    return create(**kwargs)
