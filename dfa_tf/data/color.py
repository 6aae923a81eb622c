"""Changes of the colours of images: blends of an image with a simpler version of it.

    blend(degenerate, image, f) = degenerate + f (image - degenerate)

With factor 1 the image is unchanged, with 0 it is the degenerate one, and above 1 the difference
grows. Pillow's ImageEnhance defines the four changes.

Images are float32 tensors [..., H, W, C] with values 0..255. Factors broadcast against them.
"""

import tensorflow as tf

LUMA = (0.299, 0.587, 0.114)  # weights of red, green and blue (ITU-R BT.601)
_SMOOTHING = ((1, 1, 1), (1, 5, 1), (1, 1, 1))  # / 13, Pillow's ImageFilter.SMOOTH


def brightness(images: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Blends with black."""
    return _blend(tf.zeros_like(images), images, factor)


def contrast(images: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Blends with the mean luma of the image."""
    mean = tf.reduce_mean(luma(images), [-3, -2, -1], keepdims=True)
    return _blend(tf.round(mean), images, factor)


def saturation(images: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Blends with the grayscale image."""
    return _blend(luma(images), images, factor)


def sharpness(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Blends with a smoothed image, except at the border. The image has the shape [H, W, C]."""
    kernel = tf.constant(_SMOOTHING, tf.float32)[:, :, tf.newaxis, tf.newaxis] / 13
    kernels = tf.tile(kernel, [1, 1, image.shape[-1], 1])
    smooth = tf.nn.depthwise_conv2d(image[tf.newaxis], kernels, [1, 1, 1, 1], "SAME")[0]
    rows, columns = (_is_inside(side) for side in tf.unstack(tf.shape(image)[:2]))
    is_inside = (rows[:, tf.newaxis] & columns)[..., tf.newaxis]
    return _blend(tf.where(is_inside, tf.round(smooth), image), image, factor)


def luma(images: tf.Tensor) -> tf.Tensor:
    """Returns the brightness of each pixel: [..., H, W, C] to [..., H, W, 1], rounded."""
    if images.shape[-1] == 1:
        return images
    return tf.round(tf.reduce_sum(images * tf.constant(LUMA), -1, keepdims=True))


def _is_inside(side):
    """Returns for each position whether it is between the first and the last one."""
    positions = tf.range(side)
    return (positions > 0) & (positions < side - 1)


def _blend(degenerate, images, factor):
    return tf.clip_by_value(degenerate + factor * (images - degenerate), 0, 255)
