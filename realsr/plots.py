"""Panels of curves, drawn with Pillow: a few lines on common axes, with their names."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from realsr.pictures import Picture

COLOURS = ((0, 0, 0), (31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189), (140, 86, 75))
SIZE, LEFT, TOP, RIGHT, BOTTOM = (460, 320), 56, 46, 12, 44  # of a panel, and its borders, in pixels
FONT = ImageFont.load_default(12)
Curve = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]


def line_panel(title: str, x_label: str, curves: Mapping[str, Curve]) -> Picture:
    """Draw curves ``(x, y)`` by their names, the first in black; points that are not finite are left out.

    Returns:
        ``(320, 460, 3)`` uint8.
    """
    points = {n: np.stack([x, y], 1)[np.isfinite(x) & np.isfinite(y)] for n, (x, y) in curves.items()}
    everything = np.concatenate([*points.values(), np.zeros((0, 2))])
    low, high = (everything.min(0), everything.max(0)) if len(everything) else (np.zeros(2), np.ones(2))
    span = np.where(high > low, high - low, 1.0)
    area = np.array([SIZE[0] - LEFT - RIGHT, SIZE[1] - TOP - BOTTOM])

    def place(xy: npt.NDArray[np.float64]) -> list[tuple[float, float]]:
        part = (xy - low) / span * area
        return [(LEFT + x, TOP + area[1] - y) for x, y in part]

    panel = Image.new("RGB", SIZE, "white")
    draw = ImageDraw.Draw(panel)
    draw.text((LEFT, 6), title, "black", FONT)
    for axis in (0, 1):
        for value in _ticks(low[axis], low[axis] + span[axis]):
            at = low.copy()
            at[axis] = value
            [(x, y)] = place(at[None])
            end = (x, TOP) if axis == 0 else (SIZE[0] - RIGHT, y)
            draw.line([(x, y), end], (225, 225, 225))
            where = (x, y + 4) if axis == 0 else (x - 6, y)
            draw.text(where, f"{value:g}", (90, 90, 90), FONT, anchor="ma" if axis == 0 else "rm")
    draw.text((SIZE[0] - RIGHT, SIZE[1] - 18), x_label, (90, 90, 90), FONT, anchor="ra")
    beside = float(LEFT)  # of the names, in a line of their own where no curve is
    for index, (name, xy) in enumerate(points.items()):
        colour = COLOURS[index % len(COLOURS)]
        if len(xy) > 1:
            draw.line(place(xy), colour, 3 if index == 0 else 2)
        for x, y in place(xy):
            draw.ellipse((x - 2, y - 2, x + 2, y + 2), colour)
        draw.text((beside, 24), name, colour, FONT)
        beside += draw.textlength(name, FONT) + 12
    return np.asarray(panel)


def interval_panel(title: str, intervals: Mapping[str, tuple[float, float, float]]) -> Picture:
    """Draw values in [0, 1] with their intervals, ``(value, low, high)`` by name, one under the other.

    The line is at 0.5. Returns ``(320, 460, 3)`` uint8.
    """
    panel = Image.new("RGB", SIZE, "white")
    draw = ImageDraw.Draw(panel)
    draw.text((LEFT, 6), title, "black", FONT)
    left, width = 150, SIZE[0] - 150 - 60
    for tick in (0, 0.25, 0.5, 0.75, 1):
        x = left + tick * width
        draw.line([(x, TOP), (x, SIZE[1] - BOTTOM)], (90, 90, 90) if tick == 0.5 else (225, 225, 225))
        draw.text((x, SIZE[1] - BOTTOM + 4), f"{tick:g}", (90, 90, 90), FONT, anchor="ma")
    step = (SIZE[1] - TOP - BOTTOM) / max(len(intervals), 1)
    for index, (name, (value, low, high)) in enumerate(intervals.items()):
        y, colour = TOP + (index + 0.5) * step, COLOURS[(index + 1) % len(COLOURS)]
        draw.line([(left + low * width, y), (left + high * width, y)], colour, 3)
        draw.ellipse((left + value * width - 5, y - 5, left + value * width + 5, y + 5), colour)
        draw.text((left - 8, y), name, colour, FONT, anchor="rm")
        draw.text((SIZE[0] - 8, y), f"{value:.3f}", colour, FONT, anchor="rm")
    return np.asarray(panel)


def _ticks(low: float, high: float, most: int = 6) -> npt.NDArray[np.float64]:
    """Round numbers in an interval."""
    raw = (high - low) / most
    step = 10 ** math.floor(math.log10(raw))
    step *= next(m for m in (1, 2, 5, 10) if m * step >= raw - 1e-12)
    return np.arange(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1) * step
