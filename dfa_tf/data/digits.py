"""Real handwritten digits that come with scikit-learn: no download, 8x8 grey pixels, 10 classes."""

import numpy as np
from sklearn.datasets import load_digits

from dfa_tf.data.dataset import Dataset, pixel_statistics
from dfa_tf.data.examples import Examples, stratified_split
from dfa_tf.data.pipeline import Augmentation

TEST_EXAMPLES = 500


def digits():
    """1,297 training and 500 test images: the test part of the UCI optical digits [Alpaydin and
    Kaynak 1998], cut by class, always in the same way."""
    data = load_digits()
    images = np.round(data.images[..., np.newaxis] * (255 / 16)).astype(np.uint8)
    train, test = stratified_split(
        Examples(images, data.target), TEST_EXAMPLES / len(images), seed=0
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
