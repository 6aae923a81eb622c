"""Pictures drawn for tests, in folders by split and class."""

import numpy as np
import tensorflow as tf


def draw(folder, classes, counts, size=(8, 8)):
    """FOLDER/SPLIT/CLASS/0000.png and so on: noise, whose brightness tells the class.

    counts: {split: images of each class}. size: (height, width).
    """
    draws = np.random.default_rng(0)
    for split, count in counts.items():
        for place, name in enumerate(classes):
            (folder / split / name).mkdir(parents=True, exist_ok=True)
            level = 40 + 150 * place / len(classes)
            for k in range(count):
                pixels = np.clip(draws.normal(level, 20, (*size, 3)), 0, 255).astype(np.uint8)
                path = folder / split / name / f"{k:04}.png"
                path.write_bytes(tf.io.encode_png(pixels).numpy())
