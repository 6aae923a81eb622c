"""Losses of the package against NumPy forms written from the papers' formulas: values, gradients."""

import numpy as np
import tensorflow as tf


def assert_equals_formula(ours, formula, *arrays, learnt=-1, rtol=2e-4, atol=1e-6, step=1e-6):
    """Asserts that `ours` of float32 tensors equals `formula` of float64 arrays, and so do the
    gradients of their sums over the examples for the array `learnt`, `formula`'s by differences.
    """
    arrays = [np.asarray(array) for array in arrays]
    exact = [a.astype(np.float64) if a.dtype.kind == "f" else a for a in arrays]
    tensors = [tf.constant(a, tf.float32 if a.dtype.kind == "f" else tf.int32) for a in arrays]
    with tf.GradientTape() as tape:
        tape.watch(tensors[learnt])
        values = ours(*tensors)
    np.testing.assert_allclose(values, formula(*exact), rtol=rtol, atol=atol)

    gradient = tape.gradient(values, tensors[learnt]).numpy()
    expected = np.zeros_like(exact[learnt])
    for place in np.ndindex(expected.shape):
        sums = []
        for sign in (1, -1):
            moved = [a.copy() for a in exact]
            moved[learnt][place] += sign * step
            sums.append(np.sum(formula(*moved)))
        expected[place] = (sums[0] - sums[1]) / (2 * step)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(gradient, expected, rtol=5e-3, atol=2e-3 * scale + 1e-7)


def softmax(z):
    odds = np.exp(z - z.max(-1, keepdims=True))
    return odds / odds.sum(-1, keepdims=True)


def unit(x, axis=-1):
    return x / np.linalg.norm(x, axis=axis, keepdims=True)


def flat(x):
    return x.reshape(len(x), -1)


def maps(seed, *shape):
    """Draws of N(0, 1), of both signs as maps before a ReLU are."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)
