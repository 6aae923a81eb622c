"""Handwritten digits from scikit-learn: no download, 8x8 grey pixels, 10 classes."""

import numpy as np
from sklearn.datasets import load_digits

from dfa_tf.data.augmentation import Augmentation
from dfa_tf.data.dataset import Dataset, pixel_statistics
from dfa_tf.data.examples import Examples
from dfa_tf.data.splits import stratified_split

TEST_EXAMPLES = 500


def digits() -> Dataset:
    """Loads the test part of the UCI optical digits [Alpaydin and Kaynak 1998].

    Returns:
        1,297 training and 500 test images, split by class with a fixed seed.
    """
    data = load_digits()
    images = np.round(data.images[..., np.newaxis] * (255 / 16)).astype(np.uint8)
    train, test = stratified_split(
        Examples(images, data.target, origin=""), TEST_EXAMPLES / len(images), seed=0
    )
    mean, std = pixel_statistics(train)
    return Dataset(
        name="digits",
        train=train,
        test=test,
        class_names=tuple(str(name) for name in data.target_names),
        mean=mean,
        std=std,
        augmentation=Augmentation(pad=1, flip=False),
    )
