"""The layers that the networks of the literature share, with the literature's conventions."""

import random

import keras

from dfa_tf.models.normalization import BatchNormalization


class Layers:
    """Applies layers of one precision whose initial weights follow from one seed.

    folded: makes the form for inference alone (see `Network.folded`).
    folds: {convolution: normalization}, by name, for those that `folded` makes one.

    Padding is PyTorch's: symmetric, (kernel - 1) / 2 on each side, also with a stride of 2, where
    Keras' "same" would pad the right and the bottom alone.
    """

    def __init__(self, precision="float32", seed=0, folded=False):
        self.precision = precision
        # Frozen kernels need no float32 original that is cast anew at each step.
        compute = keras.DTypePolicy(precision).compute_dtype
        self._kernel_precision = compute if folded else precision
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
        if stride > 1 and kernel > 1:
            pad = (kernel - 1) // 2
            x = keras.layers.ZeroPadding2D(pad, name=f"{name}_pad", dtype=self.precision)(x)
            padding = "valid"
        else:
            padding = "same"
        return keras.layers.Conv2D(
            filters,
            kernel,
            strides=stride,
            padding=padding,
            use_bias=use_bias,
            kernel_initializer=he_normal(self._seed()),
            name=name,
            dtype=self._kernel_precision,
        )(x)

    def normalized_convolution(self, x, filters, kernel, name, norm, stride=1):
        """A convolution, and the batch normalization `norm` of what it gives and nothing else takes."""
        if self._folded:
            return self.convolution(x, filters, kernel, name, stride, use_bias=True)
        self.folds[name] = norm
        return self.normalization(self.convolution(x, filters, kernel, name, stride), norm)

    def normalization(self, x, name):
        """Batch normalization over all but the channels."""
        return BatchNormalization(name=name, dtype=self.precision)(x)

    def relu(self, x, name):
        """max(x, 0)."""
        return keras.layers.ReLU(name=name, dtype=self.precision)(x)

    def add(self, x, y, name):
        """x + y, of one shape."""
        return keras.layers.Add(name=name, dtype=self.precision)([x, y])

    def classifier(self, x, num_classes):
        """Global average pooling and a dense layer: float32 logits [B, classes]."""
        x = keras.layers.GlobalAveragePooling2D(name="pool", dtype=self.precision)(x)
        uniform = keras.initializers.VarianceScaling(
            1 / 3, "fan_in", "uniform", seed=self._seed()
        )  # +- 1 / sqrt(fan_in), PyTorch's default
        return keras.layers.Dense(
            num_classes, kernel_initializer=uniform, name="logits", dtype="float32"
        )(x)


def he_normal(seed):
    """He initialization by fan-out, not truncated."""
    return keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal", seed=seed)
