"""How lines are told apart, in colour and in grey."""

import matplotlib
import matplotlib.figure

_DASHES = ("-", "--", ":", "-.")
_MARKERS = "os^vD*Px<>hd"


def line_style(place, count):
    """Arguments of `Axes.plot` for line `place` of `count`: shade, dashes and marker differ."""
    return {
        "linestyle": _DASHES[place % len(_DASHES)],
        "marker": _MARKERS[place % len(_MARKERS)],
        "color": matplotlib.colormaps["viridis"](0.85 * place / max(1, count - 1)),
        "markersize": 4,
        "linewidth": 1.3,
    }


def panels(rows, columns, width, height, extra=(1.0, 1.0)):
    """(figure, axes [rows][columns]). width, height: of a panel, extra: beside all, in inches."""
    size = (columns * width + extra[0], rows * height + extra[1])
    figure = matplotlib.figure.Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)
