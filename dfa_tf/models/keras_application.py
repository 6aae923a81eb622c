"""The networks of keras.applications, with a new head for the classes of a data set."""

import contextlib
import inspect
import os
import pathlib
import random
import re
import sys
from collections.abc import Sequence

import keras
import numpy as np

from dfa_tf.errors import UserError, first_line
from dfa_tf.models.from_keras import from_keras
from dfa_tf.models.network import Network
from dfa_tf.validation import checked_arguments

IMAGENET = "imagenet"
MOMENTUM = 0.9  # of the moving statistics of batch normalization
APPLICATIONS = sorted(
    name
    for name, function in vars(keras.applications).items()
    if inspect.isfunction(function) and name[0].isupper()
)


@checked_arguments("keras_application")
def keras_application(
    name: str = "MobileNetV3Small",
    weights: str | os.PathLike | None = IMAGENET,
    groups: Sequence[Sequence[str]] | None = None,
    num_classes: int = 1000,
    image_shape: Sequence[int] = (224, 224, 3),
    seed: int = 0,
) -> Network:
    """Builds a network of keras.applications whose classifier is new.

    The classifier is a dense layer on the spatial average of the last map. The network receives
    pixels 0..255 and scales them as the `preprocess_input` of the application does.

    The momentum of batch normalization is 0.9. With the 0.99 or 0.999 of the applications, the
    moving statistics would lag behind the weights at the end of a short training.

    Args:
        name: Name of the application: "EfficientNetV2B0", for instance.
        weights: "imagenet" for the pretrained weights, which Keras downloads once; a file of weights
            of the application without its top; or None for initial weights.
        groups: See `from_keras`.
        num_classes: Number of classes.
        image_shape: (height, width, channels). Pretrained weights need three channels.
        seed: Seed of the initial weights.

    Raises:
        UserError: If the application is unknown, does not support the image shape, or its weights
            cannot be downloaded or read.
    """
    if name not in APPLICATIONS:
        raise UserError(
            f"keras_application.name: expected one of {', '.join(APPLICATIONS)}, got {name!r}"
        )
    function = getattr(keras.applications, name)
    with _seeded_initial_weights(seed):
        backbone = _backbone(function, name, weights, tuple(image_shape))
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = MOMENTUM
    scale, offset, is_reversed = pixel_scaling(function, image_shape[-1])
    if is_reversed:
        _reverse_input_channels(backbone)
    return from_keras(backbone, groups, scale, offset, num_classes, seed)


def pixel_scaling(application, channels: int = 3) -> tuple[list[float], list[float], bool]:
    """Returns the scaling of pixels that an application expects, read from its `preprocess_input`.

    Args:
        application: A function of keras.applications.
        channels: Number of channels of the images. Others than 3 are scaled as the first channel is.

    Returns:
        Factor and offset of each channel of the image, and whether the application expects the
        channels in reverse order (BGR).
    """
    preprocess = sys.modules[application.__module__].preprocess_input
    probes = np.zeros([4, 1, 1, 3], np.float32)
    probes[[1, 2, 3], 0, 0, [0, 1, 2]] = 255
    zero, *responses = np.asarray(preprocess(probes), np.float64)[:, 0, 0]
    matrix = (np.stack(responses, 1) - zero[:, np.newaxis]) / 255  # [output, input channel]
    is_reversed = not matrix[0, 0]
    if is_reversed:
        matrix, zero = matrix[::-1], zero[::-1]
    scale, offset = np.diag(matrix), zero
    if channels != 3:
        scale, offset = np.repeat(scale[0], channels), np.repeat(offset[0], channels)
    return np.round(scale, 12).tolist(), np.round(offset, 12).tolist(), is_reversed


def _backbone(function, name, weights, image_shape):
    """Returns the application without its top."""
    if weights == IMAGENET and image_shape[-1] != 3:
        raise UserError(
            f"keras_application.weights: expected None for images of {image_shape[-1]} channels, "
            "because the weights of ImageNet are for 3; bind keras_application.weights=None"
        )
    downloaded = IMAGENET if weights == IMAGENET else None
    try:
        backbone = function(include_top=False, weights=downloaded, input_shape=image_shape)
    except Exception as error:
        raise _build_error(name, image_shape, error) from error
    if weights is not None and weights != IMAGENET:
        _load(backbone, name, pathlib.Path(weights).expanduser())
    return backbone


def _build_error(name, image_shape, error):
    fetched = re.search(r"https?://\S+?([\w.-]+\.h5)", str(error))
    if not fetched:
        return UserError(
            f"keras_application.name: {name} cannot be built for images of shape {image_shape} "
            f"({first_line(error)}); bind dataset.image_size"
        )
    folder = pathlib.Path(os.environ.get("KERAS_HOME", "~/.keras")) / "models"
    return UserError(
        f"keras_application.weights: the weights of {name} cannot be downloaded; put "
        f"{fetched[0]} in {folder}, or bind the path of the file"
    )


def _load(backbone, name, path):
    if not path.is_file():
        raise UserError(
            f"keras_application.weights: {path} is not a file; expected 'imagenet', None or a file"
        )
    try:
        backbone.load_weights(path)
    except Exception as error:
        raise UserError(
            f"keras_application.weights: {path} does not have the weights of {name} without its "
            f"top ({first_line(error)})"
        ) from error


def _reverse_input_channels(model):
    """Makes a model of BGR images a model of RGB images: it reverses the first kernel."""
    first = next(layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D))
    kernel, *bias = first.get_weights()
    first.set_weights([kernel[:, :, ::-1], *bias])


@contextlib.contextmanager
def _seeded_initial_weights(seed):
    """Within the block, layers without a seed get seeds that follow from `seed`.

    Keras draws them from Python's generator (tried with Keras 3.12 and 3.15).
    """
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)
