"""The layers that the networks of the literature share, with the literature's conventions."""

import random

import keras
import tensorflow as tf

from dfa_tf.fused import fused
from dfa_tf.models.normalization import BatchNormalization

# CIFAR-10's mean and deviation of pixels, per channel, as fractions of 255: what the networks
# normalize by where nothing else is known.
CIFAR_MEAN = (0.4914, 0.4824, 0.4467)
CIFAR_STD = (0.2471, 0.2435, 0.2616)


class Layers:
    """Applies layers of one precision whose initial weights follow from one seed.

    folded: makes the form for inference alone (see `Network.folded`).
    folds: {layer: normalization}, by name, for the layers that `folded` has the normalization in.

    Padding is PyTorch's: symmetric, (kernel - 1) / 2 on each side, also with a stride of 2, where
    Keras' "same" would pad the right and the bottom alone.
    """

    def __init__(self, precision="float32", seed=0, folded=False):
        self.precision = precision
        # Frozen kernels need no float32 original that is cast anew at each step.
        self.compute_dtype = keras.DTypePolicy(precision).compute_dtype
        self._kernel_precision = self.compute_dtype if folded else precision
        self._folded = folded
        self._seeds = random.Random(seed)
        self.folds = {}

    def _seed(self):
        return self._seeds.getrandbits(31)

    def image(self, shape, mean, std):
        """The input [B, H, W, C] with values 0..255, and its normalized float32 form.

        mean, std: per channel, as fractions of 255.
        """
        image = keras.Input(shape, name="image", dtype="float32")
        normalize = keras.layers.Rescaling(
            scale=[1 / (255 * s) for s in std],
            offset=[-m / s for m, s in zip(mean, std, strict=True)],
            name="normalize",
            dtype="float32",
        )
        return image, normalize(image)

    def convolution(self, x, filters, kernel, name, stride=1, use_bias=False):
        """Convolution with He's initialization by fan-out [He et al. 2015]."""
        common = self._of_convolution(kernel, name, stride, use_bias)
        initial = he_normal(self._seed())
        layer = keras.layers.Conv2D(filters, kernel_initializer=initial, **common)
        return layer(self._padded(x, kernel, name, stride))

    def _of_convolution(self, kernel, name, stride, use_bias):
        """What convolutions of all channels and of each by itself have alike."""
        return {
            "kernel_size": kernel,
            "strides": stride,
            "padding": "valid" if stride > 1 else "same",  # after `_padded`
            "use_bias": use_bias,
            "name": name,
            "dtype": self._kernel_precision,
        }

    def _padded(self, x, kernel, name, stride):
        if stride == 1 or kernel == 1:
            return x
        pad = (kernel - 1) // 2
        return keras.layers.ZeroPadding2D(pad, name=f"{name}_pad", dtype=self.precision)(x)

    def depthwise(self, x, kernel, name, stride=1, use_bias=False):
        """A convolution of each channel by itself."""
        common = self._of_convolution(kernel, name, stride, use_bias)
        initial = he_normal(self._seed())
        layer = keras.layers.DepthwiseConv2D(depthwise_initializer=initial, **common)
        return layer(self._padded(x, kernel, name, stride))

    def convolution_norm(
        self, x, filters, kernel, name, stride=1, *, norm=None, use_bias=False, depthwise=False
    ):
        """A convolution, and the batch normalization of what it gives and nothing else takes.

        name, norm: of the two layers; the second is `name`_norm by default. depthwise: of each
        channel by itself; `filters` is then not read.
        """
        norm = norm or f"{name}_norm"
        if not self._folded:
            self.folds[name] = norm
        bias = use_bias or self._folded
        if depthwise:
            x = self.depthwise(x, kernel, name, stride, bias)
        else:
            x = self.convolution(x, filters, kernel, name, stride, bias)
        return x if self._folded else self.normalization(x, norm)

    def normalization(self, x, name):
        """Batch normalization over all but the channels."""
        return BatchNormalization(name=name, dtype=self.precision)(x)

    def relu(self, x, name):
        """max(x, 0)."""
        kind = keras.layers.ReLU if self._folded else ReLU  # Keras' joins a convolution's kernel
        return kind(name=name, dtype=self.precision)(x)

    def normalization_and_relu(self, x, norm, relu):
        """Batch normalization, which is a feature, and the ReLU of it: both maps.

        norm, relu: names of the two layers.
        """
        self.folds[relu] = norm
        if self._folded:  # both from x, as not every use of the network reads the feature
            return (
                Affine(name=norm, dtype=self.precision)(x),
                Affine(rectify=True, name=relu, dtype=self.precision)(x),
            )
        normalized = self.normalization(x, norm)
        return normalized, self.relu(normalized, relu)

    def max_pooling(self, x, size, name):
        """The largest of each size x size window, at half the size. x: after a ReLU, so that
        padding with 0 is padding with nothing."""
        if size % 2:
            pad = (size - 1) // 2
            x = keras.layers.ZeroPadding2D(pad, name=f"{name}_pad", dtype=self.precision)(x)
        return keras.layers.MaxPooling2D(size, 2, name=name, dtype=self.precision)(x)

    def add(self, x, y, name):
        """x + y, of one shape."""
        return ResidualAdd(name=name, dtype=self.precision)([x, y])

    def classifier(self, x, num_classes):
        """Global average pooling and a dense layer: float32 logits [B, classes]."""
        x = keras.layers.GlobalAveragePooling2D(name="pool", dtype=self.precision)(x)
        uniform = keras.initializers.VarianceScaling(
            1 / 3, "fan_in", "uniform", seed=self._seed()
        )  # +- 1 / sqrt(fan_in), PyTorch's default
        return keras.layers.Dense(
            num_classes, kernel_initializer=uniform, name="logits", dtype="float32"
        )(x)


class ReLU(keras.layers.Layer):
    """max(x, 0), whose gradient is one pass over bfloat16 maps too."""

    def call(self, inputs):
        if inputs.dtype != tf.bfloat16:
            return tf.nn.relu(inputs)
        return _relu(inputs)


@tf.custom_gradient
def _relu(x):
    y = tf.nn.relu(x)
    return y, lambda upstream: _relu_gradient(upstream, y)


@fused
def _relu_gradient(upstream, y):
    return tf.where(y > 0, upstream, tf.zeros_like(upstream))


class Affine(keras.layers.Layer):
    """scale x + offset, channel by channel, as batch normalization does at inference.

    rectify: cut below 0 what comes of it.
    """

    def __init__(self, rectify=False, **kwargs):
        super().__init__(**kwargs)
        self._rectify = rectify

    def build(self, shape):
        self.scale, self.offset = (
            self.add_weight(shape=shape[-1:], name=name, dtype="float32", autocast=False)
            for name in ("scale", "offset")
        )

    def call(self, inputs):
        return _affine(inputs, self.scale.value, self.offset.value, self._rectify)


@fused
def _affine(x, scale, offset, rectify):
    y = tf.cast(x, tf.float32) * scale + offset
    return tf.cast(tf.nn.relu(y) if rectify else y, x.dtype)


class ResidualAdd(keras.layers.Layer):
    """shortcut + y, of [shortcut, y], where y comes from a convolution and goes nowhere else."""

    def call(self, inputs):
        shortcut, y = inputs
        if not tf.config.list_physical_devices("GPU"):
            # A CPU's convolution adds to what is there already, but only with a bias between,
            # which TensorFlow must not see to be zero.
            zeros = tf.zeros([y.shape[-1]], y.dtype)
            y = tf.nn.bias_add(y, tf.raw_ops.PlaceholderWithDefault(input=zeros, shape=zeros.shape))
        return shortcut + y


@keras.saving.register_keras_serializable("dfa_tf")
class ChannelShuffle(keras.layers.Layer):
    """Two halves of the channels interleaved: 0, C/2, 1, C/2 + 1, ... [B, H, W, C] to the same.

    In 4-D steps of static shape, as TF Lite wants them.
    """

    def call(self, inputs):
        height, width, channels = inputs.shape[1:]
        x = tf.reshape(inputs, [-1, height * width, 2, channels // 2])
        return tf.reshape(tf.transpose(x, [0, 1, 3, 2]), [-1, height, width, channels])


def he_normal(seed):
    """He initialization by fan-out, not truncated; of a depthwise kernel [k, k, C, 1] that is k^2."""
    return keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal", seed=seed)
