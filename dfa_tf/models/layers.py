"""The layers that the literature's networks share, with the literature's conventions."""

import random
from typing import Annotated

import keras
import tensorflow as tf

from dfa_tf import kernels
from dfa_tf.models.normalization import BatchNormalization
from dfa_tf.validation import Interval

Depth = Annotated[int, Interval(1, 1300)]  # in layers; ResNet-1202 is the deepest published

# Mean and standard deviation of CIFAR-10's pixels, per channel, as fractions of 255.
CIFAR_MEAN = (0.4914, 0.4824, 0.4467)
CIFAR_STD = (0.2471, 0.2435, 0.2616)


class Layers:
    """Applies layers of one precision whose initial weights follow from one seed.

    Padding is PyTorch's: (kernel - 1) / 2 on each side, also with a stride of 2, where Keras'
    "same" would pad the right and the bottom only.

    Args:
        precision: Keras dtype policy.
        seed: Seed of the initial weights.
        folded: Whether to build the form for inference only, see `Network.folded`.

    Attributes:
        precision: The dtype policy.
        compute_dtype: Its compute dtype.
        folds: `{layer: normalization}` by name: the normalizations that `folded` folds into layers.
    """

    def __init__(self, precision: str = "float32", seed: int = 0, folded: bool = False):
        self.precision = precision
        self.compute_dtype = keras.DTypePolicy(precision).compute_dtype
        # Frozen kernels need no float32 original, which would be cast again at each step.
        is_stored = folded and not _broadcasts_variables()
        self._kernel_precision = self.compute_dtype if is_stored else precision
        self._folded = folded
        self._seeds = random.Random(seed)
        self.folds = {}

    def _seed(self):
        return self._seeds.getrandbits(31)

    def image(self, shape, mean, std):
        """Returns the input and its normalized form.

        Args:
            shape: (height, width, channels).
            mean: Mean of each channel, as a fraction of 255.
            std: Standard deviation of each channel, as a fraction of 255.

        Returns:
            The input `[B, H, W, C]` with values 0..255, and the normalized float32 map.
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
        """Applies a convolution, with He initialization by fan-out (He et al., ICCV 2015)."""
        arguments = self._convolution_arguments(kernel, name, stride, use_bias)
        initial = he_normal(self._seed())
        layer = keras.layers.Conv2D(filters, kernel_initializer=initial, **arguments)
        return layer(self._padded(x, kernel, name, stride))

    def depthwise(self, x, kernel, name, stride=1, use_bias=False):
        """Applies a depthwise convolution, initialized as in `convolution`."""
        arguments = self._convolution_arguments(kernel, name, stride, use_bias)
        initial = he_normal(self._seed())
        layer = keras.layers.DepthwiseConv2D(depthwise_initializer=initial, **arguments)
        return layer(self._padded(x, kernel, name, stride))

    def _convolution_arguments(self, kernel, name, stride, use_bias):
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

    def convolution_norm(
        self, x, filters, kernel, name, stride=1, *, norm=None, use_bias=False, depthwise=False
    ):
        """Applies a convolution and the batch normalization that alone reads its output.

        Args:
            x: Tensor `[B, H, W, C]`.
            filters: Output channels; ignored if `depthwise`.
            kernel: Height and width of the kernel.
            name: Name of the convolution.
            stride: Stride of the convolution.
            norm: Name of the normalization, `name`_norm by default.
            use_bias: Whether the convolution has a bias.
            depthwise: Whether the convolution is depthwise.
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
        """Applies batch normalization over the channels."""
        return BatchNormalization(name=name, dtype=self.precision)(x)

    def relu(self, x, name):
        """Computes max(x, 0)."""
        # TensorFlow fuses Keras' ReLU with the preceding convolution.
        kind = keras.layers.ReLU if self._folded else ReLU
        return kind(name=name, dtype=self.precision)(x)

    def normalization_and_relu(self, x, norm, relu):
        """Applies a batch normalization whose output is a feature, and its ReLU.

        Args:
            x: Tensor `[B, H, W, C]`.
            norm: Name of the normalization.
            relu: Name of the ReLU.

        Returns:
            The feature before the ReLU, and the map after it.
        """
        self.folds[relu] = norm
        if self._folded:  # Both are computed from x, because not every caller needs the feature.
            return (
                Affine(name=norm, dtype=self.precision)(x),
                Affine(rectify=True, name=relu, dtype=self.precision)(x),
            )
        normalized = self.normalization(x, norm)
        return normalized, self.relu(normalized, relu)

    def max_pooling(self, x, size, name):
        """Computes the maximum of size x size windows with stride 2.

        Args:
            x: Tensor `[B, H, W, C]` after a ReLU, so that padding with 0 changes no maximum.
            size: Height and width of a window.
            name: Name of the layer.
        """
        if size % 2:
            pad = (size - 1) // 2
            x = keras.layers.ZeroPadding2D(pad, name=f"{name}_pad", dtype=self.precision)(x)
        return keras.layers.MaxPooling2D(size, 2, name=name, dtype=self.precision)(x)

    def add(self, x, y, name):
        """Computes x + y, see `ResidualAdd`."""
        return ResidualAdd(name=name, dtype=self.precision)([x, y])

    def classifier(self, x, num_classes):
        """Applies global average pooling and a dense layer.

        Returns:
            The float32 logits `[B, classes]`.
        """
        x = keras.layers.GlobalAveragePooling2D(name="pool", dtype=self.precision)(x)
        uniform = keras.initializers.VarianceScaling(
            1 / 3, "fan_in", "uniform", seed=self._seed()
        )  # +- 1 / sqrt(fan_in), PyTorch's default
        return keras.layers.Dense(
            num_classes, kernel_initializer=uniform, name="logits", dtype="float32"
        )(x)


class ReLU(keras.layers.Layer):
    """max(x, 0), with a gradient that is one pass over bfloat16 maps too."""

    def call(self, inputs):
        return kernels.relu(inputs)


class Affine(keras.layers.Layer):
    """scale * x + offset for each channel, as batch normalization computes it at inference.

    Args:
        rectify: Whether to apply a ReLU to the result.
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    def __init__(self, rectify: bool = False, **kwargs):
        super().__init__(**kwargs)
        self._rectify = rectify

    def build(self, shape):
        self.scale, self.offset = (
            self.add_weight(shape=shape[-1:], name=name, dtype="float32", autocast=False)
            for name in ("scale", "offset")
        )

    def call(self, inputs):
        return kernels.affine(inputs, self.scale.value, self.offset.value, self._rectify)


class ResidualAdd(keras.layers.Layer):
    """shortcut + y for inputs [shortcut, y], where nothing else reads y, a convolution's output."""

    def call(self, inputs):
        shortcut, y = inputs
        if not tf.config.list_physical_devices("GPU"):
            # On a CPU, TensorFlow fuses a convolution with a following addition only if a bias is
            # added in between. The placeholder hides from TensorFlow that this bias is zero.
            zeros = tf.zeros([y.shape[-1]], y.dtype)
            y = tf.nn.bias_add(y, tf.raw_ops.PlaceholderWithDefault(input=zeros, shape=zeros.shape))
        return shortcut + y


@keras.saving.register_keras_serializable("dfa_tf")
class ChannelShuffle(keras.layers.Layer):
    """Interleaves the two halves of the channels: 0, C/2, 1, C/2 + 1, ...

    TF Lite requires steps on 4-D tensors of static shape.
    """

    def call(self, inputs):
        height, width, channels = inputs.shape[1:]
        x = tf.reshape(inputs, [-1, height * width, 2, channels // 2])
        return tf.reshape(tf.transpose(x, [0, 1, 3, 2]), [-1, height, width, channels])


def he_normal(seed: int) -> keras.Initializer:
    """Returns He's initializer by fan-out, not truncated.

    The fan-out of a depthwise kernel `[k, k, C, 1]` is k^2.
    """
    return keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal", seed=seed)


def _broadcasts_variables():
    """Returns whether new variables are sent to other workers, which fails for bfloat16."""
    resolver = tf.distribute.get_strategy().cluster_resolver
    return resolver is not None and bool(resolver.task_type)
