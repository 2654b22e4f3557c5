"""Curves and intervals by matplotlib, on separate figures: pyplot has global state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from realsr.reports.pictures import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curve = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
FIRST = "black"  # of the curves; the others have matplotlib's colours in turn


def drawn(paint: Callable[[Figure], object], width: int, height: int) -> Picture:
    """The picture ``(height, width, 3)`` uint8 that ``paint`` draws on a figure; matplotlib is imported here."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"font.size": 8, "text.parse_math": False}):  # names may have dollars in them
        figure = Figure((width / 100, height / 100), 100, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        paint(figure)
        canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]


def draw_lines(axes: Axes, title: str, x_label: str, curves: Mapping[str, Curve]) -> None:
    """Draw curves ``(x, y)`` by name, the first in black; points that are not finite are left out."""
    for number, (name, (x, y)) in enumerate(curves.items()):
        axes.plot(x, y, ".-", color=f"C{number - 1}" if number else FIRST, label=name)
    axes.set_title(title)
    axes.set_xlabel(x_label)
    axes.grid(alpha=0.3)


def draw_intervals(axes: Axes, title: str, intervals: Mapping[str, tuple[float, float, float]]) -> None:
    """Draw values in [0, 1] with intervals, ``(value, low, high)`` by name, below each other, and a line at 0.5."""
    for number, (name, (value, low, high)) in enumerate(intervals.items()):
        axes.plot([low, high], [name, name], color=f"C{number}", linewidth=3)
        axes.plot(value, name, "o", color=f"C{number}")
        axes.annotate(f"{value:.3f}", (value, name), (0, 6), textcoords="offset points", ha="center")
    axes.set_title(title)
    axes.set_xlim(0, 1.05)
    axes.axvline(0.5, color="gray")
    axes.margins(y=0.15)
    axes.invert_yaxis()
    axes.grid(alpha=0.3)
