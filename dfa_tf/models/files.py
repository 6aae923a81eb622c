"""Networks as `.keras` files."""

import os
import zipfile

import keras

from dfa_tf import files
from dfa_tf.errors import UserError, first_line
from dfa_tf.models.from_keras import from_keras
from dfa_tf.models.network import Network


def load(path, groups=None, scale=1.0, offset=0.0):
    """The network in a `.keras` file: one that this package saved, or any functional Keras model.

    groups, scale, offset: of a model that this package did not save, as in `from_keras`.
    Raises UserError where the file is missing, damaged or holds something else.
    """
    if not os.path.exists(path):
        raise UserError(f"there is no file {path}: give a .keras file of a network")
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path} cannot be read as a network: it is cut short, or no .keras file")
    try:
        model = keras.saving.load_model(path, compile=False)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path} cannot be read as a network ({first_line(error)})") from error
    if not isinstance(model, Network):
        try:
            return from_keras(model, groups, scale, offset)
        except UserError as error:
            raise UserError(f"{path} holds no network with groups: {error}") from error
    if groups is not None or (scale, offset) != (1.0, 0.0):
        raise UserError(f"{path} has its groups and its scale inside: unbind those of keras_file")
    return model


def save(network, path):
    """Saves a network as a `.keras` file, at once."""
    with files.replacing(path) as part:
        network.save(part)
