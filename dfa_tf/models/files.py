"""Networks as `.keras` files."""

import os
import zipfile
from collections.abc import Sequence
from typing import Literal

import keras

from dfa_tf import files
from dfa_tf.errors import UserError, first_line
from dfa_tf.models.from_keras import Scaling, from_keras
from dfa_tf.models.network import Network, from_spec
from dfa_tf.validation import checked_arguments


@checked_arguments("keras_file")
def load(
    path: str | os.PathLike,
    groups: Sequence[Sequence[str]] | None = None,
    scale: Scaling = 1.0,
    offset: Scaling = 0.0,
    features: Literal["normalized", "raw"] | None = None,
    head: Literal["own", "new"] = "own",
    num_classes: int | None = None,
    image_shape: Sequence[int] | None = None,
    seed: int = 0,
) -> Network:
    """Loads a network from a `.keras` file.

    Args:
        path: A file that this package saved, or one of any functional Keras model.
        groups, scale, offset: See `from_keras`; for files that this package did not save.
        features: The features of a wide ResNet, see `wide_resnet`; those of the file by default.
            The weights are the file's in either case.
        head: "own" for the file's. "new" for a new head of `num_classes` classes, see `from_keras`;
            the network is then to be trained further.
        num_classes: Classes of a new head.
        image_shape: (height, width, channels) of a network with a new head, if this package saved
            the file. Other models keep theirs.
        seed: Seed of a new head.

    Raises:
        UserError: If the file is missing or damaged, or if it is not a network.
    """
    if not os.path.exists(path):
        raise UserError(f"{path}: file not found; give the .keras file of a network")
    if not os.path.isfile(path):  # a device could be read forever
        raise UserError(f"{path}: expected the .keras file of a network, got a folder or a device")
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path}: file is truncated or not a .keras file; delete or replace it")
    try:
        model = keras.saving.load_model(path, compile=False)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path}: Keras cannot load the file ({first_line(error)})") from error
    if features is not None:
        if not isinstance(model, Network) or "features" not in model.spec["arguments"]:
            raise UserError(
                f"keras_file.features: expected the file of a wide_resnet, but {path} contains "
                f"{model.name}; remove the binding"
            )
        model = model.copy(features=features)
    if head == "own":
        num_classes = None
    if not isinstance(model, Network):
        try:
            return from_keras(model, groups, scale, offset, num_classes, seed)
        except UserError as error:
            raise UserError(f"{path}: the model is not a network with groups: {error}") from error
    if groups is not None or (scale, offset) != (1.0, 0.0):
        raise UserError(
            f"{path}: the file contains its groups and scale; remove the bindings of "
            "keras_file.groups, keras_file.scale and keras_file.offset"
        )
    return model if num_classes is None else _with_new_head(model, num_classes, image_shape, seed)


def _with_new_head(network, num_classes, image_shape, seed):
    """Returns the network with a new classifier. Its other weights are copied."""
    spec = network.spec
    changes = {"num_classes": num_classes, "seed": seed}
    if image_shape is not None and "image_shape" in spec["arguments"]:
        if image_shape[-1] != network.image_shape[-1]:
            raise UserError(
                f"keras_file.path: expected a network for images of {image_shape[-1]} channels, got "
                f"one for {network.image_shape[-1]}"
            )
        changes["image_shape"] = list(image_shape)
    spec["arguments"] |= changes
    twin = from_spec(spec, network.precision)
    new = twin.classifier
    for layer in twin.layers:
        if layer.weights and layer is not new:
            layer.set_weights(network.get_layer(layer.name).get_weights())
    return twin


def save(network: Network, path: str | os.PathLike) -> None:
    """Saves a network as a `.keras` file, which appears complete or not at all."""
    with files.replacing(path) as part:
        network.save(part)
