"""The losses of the methods as NumPy formulas of the papers, for each example.

t and s are maps or embeddings of the teacher and the student.
"""

import numpy as np

from tests.methods.numerics import flat, unit


def hint(t, s):
    return ((t - s) ** 2).reshape(len(t), -1).mean(1)


def at_paper(t, s):
    q = [unit(flat((m**2).mean(-1))) for m in (t, s)]
    return np.linalg.norm(q[1] - q[0], axis=-1) / (2 * q[0].shape[1])


def at_code(t, s):
    q = [unit(flat((m**2).mean(-1))) for m in (t, s)]
    return ((q[1] - q[0]) ** 2).mean(-1)


def jacobian(t, s):
    return ((unit(flat(s)) - unit(flat(t))) ** 2).mean(-1)


def ft(power):
    return lambda t, s: (np.abs(unit(flat(s)) - unit(flat(t))) ** power).mean(-1)


def ab(t, s):
    off = (s + 1) ** 2 * ((s > -1) & (t <= 0))
    on = (s - 1) ** 2 * ((s <= 1) & (t > 0))
    return flat(off + on).sum(1)


def above_margin(t, s):
    return flat((s - t) ** 2 * ((s > t) | (t > 0))).sum(1)


def nst(t, s):
    """Eqn 7 channel by channel, with the kernel (x . y)^2."""

    def kernel(x, y):
        return np.mean([[(a @ b) ** 2 for b in y] for a in x])

    losses = []
    for teacher, student in zip(t, s, strict=True):
        x, y = (unit(m.reshape(-1, m.shape[-1]).T) for m in (teacher, student))
        losses.append(kernel(x, x) + kernel(y, y) - 2 * kernel(x, y))
    return np.array(losses)


def gram(t, s):
    """Mean squared difference of the Gram matrices of the channels' normalized maps."""
    losses = []
    for teacher, student in zip(t, s, strict=True):
        x, y = (unit(m.reshape(-1, m.shape[-1]).T) for m in (teacher, student))
        losses.append(((y @ y.T - x @ x.T) ** 2).mean())
    return np.array(losses)


def hcl(t, s):
    """8x8 maps: themselves, 4x4, 2x2 and 1x1, weighing 1, 1/2, 1/4, 1/8 of 15/8."""
    total = 0
    for size, weight in ((8, 1), (4, 1 / 2), (2, 1 / 4), (1, 1 / 8)):
        parts = (8 // size,) * 2
        pooled = (t - s).reshape(len(t), size, parts[0], size, parts[1], -1).mean((2, 4))
        total += weight * (pooled**2).reshape(len(t), -1).mean(1)
    return total / (15 / 8)


def sp(t, s):
    g = [unit(flat(m) @ flat(m).T) for m in (t, s)]
    return ((g[0] - g[1]) ** 2).mean(-1)


def huber(x, y):
    d = np.abs(x - y)
    return np.where(d < 1, d**2 / 2, d - 0.5)


def rkd_distance(t, s):
    relative = []
    for e in (t, s):
        d = np.array([[np.linalg.norm(a - b) for b in e] for a in e])
        relative.append(d / d[d > 0].mean())
    return huber(*relative).mean(-1)


def rkd_angle(t, s):
    """By the vertex j: cosines of the angles between j to i and j to k."""
    cosines = []
    for e in (t, s):
        n = len(e)
        table = np.zeros((n, n, n))
        for j in range(n):
            for i in range(n):
                for k in range(n):
                    if j not in (i, k):
                        table[j, i, k] = unit(e[i] - e[j]) @ unit(e[k] - e[j])
        cosines.append(table)
    return huber(*cosines).mean((1, 2))
