"""Preprocessing: from a picture of any size to an image of the size that a network receives."""

import dataclasses
from typing import Annotated, Literal

import tensorflow as tf

from dfa_tf.errors import UserError
from dfa_tf.validation import Interval, Settings

ASPECT_RATIOS = (3 / 4, 4 / 3)  # of random crops (Szegedy et al., CVPR 2015)


@dataclasses.dataclass(frozen=True)
class Preprocessing(Settings):
    """How a picture becomes an image of the size of the network's input, for evaluation and use.

    Args:
        resize: "crop" resizes the largest centred window with the aspect ratio of the result, which
            is the same as to resize the short side and to crop the long one. "stretch" resizes the
            whole picture.
        crop_fraction: Side of the window of "crop", as a fraction of the largest one. ImageNet's
            256 pixels, of which 224 are used, are 0.875.

    Raises:
        UserError: If an argument is invalid, or a crop fraction is given for "stretch".
    """

    resize: Literal["crop", "stretch"] = "crop"
    crop_fraction: Annotated[float, Interval(0, 1, open=True)] = 1.0

    name = "dataset"

    def __post_init__(self):
        super().__post_init__()
        if self.resize == "stretch" and self.crop_fraction != 1:
            raise UserError(
                f"dataset.crop_fraction: expected 1.0 with dataset.resize='stretch', got "
                f"{self.crop_fraction}"
            )

    def __call__(self, picture: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
        """Resizes a picture.

        Args:
            picture: uint8 [H, W, C].
            size: (height, width) of the result.

        Returns:
            uint8 [height, width, C].
        """
        if self.resize == "crop":
            top, left, height, width = self.window(tf.shape(picture), size)
            picture = picture[top : top + height, left : left + width]
        return resized(picture, size)

    def window(self, shape: tf.Tensor, size: tuple[int, int]) -> tuple[tf.Tensor, ...]:
        """Returns (top, left, height, width) of the centred window, in pixels.

        The programs in examples/ compute the same numbers.

        Args:
            shape: int [2 or more], with the height and width of the picture.
            size: (height, width) of the result.
        """
        height, width = tf.cast(shape[0], tf.float64), tf.cast(shape[1], tf.float64)
        scale = self.crop_fraction * tf.minimum(height / size[0], width / size[1])
        rows, columns = (tf.maximum(tf.cast(scale * side + 0.5, tf.int32), 1) for side in size)
        return (shape[0] - rows) // 2, (shape[1] - columns) // 2, rows, columns


def random_window(
    shape: tf.Tensor, areas: tuple[float, float], seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Draws the window of a random resized crop (Szegedy et al., CVPR 2015).

    Args:
        shape: int [3], (height, width, channels) of the picture.
        areas: Least and greatest area of the window, as fractions of the picture's. ImageNet
            trainings use (0.08, 1.0).
        seed: int [2].

    Returns:
        int32 [3] each: first and number of rows, columns and channels; -1 for all channels.
    """
    begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
        shape,
        tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),  # the object to cover is the whole picture
        seed,
        min_object_covered=0.0,
        aspect_ratio_range=ASPECT_RATIOS,
        area_range=areas,
    )
    return begin, extent


def resized(picture: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Resizes a uint8 picture [H, W, C] bilinearly, with antialiasing, to uint8 [*size, C]."""
    values = tf.image.resize(picture, size, antialias=True)
    return tf.cast(tf.round(tf.clip_by_value(values, 0, 255)), tf.uint8)
