"""Pictures for people: contact sheets, grids that compare methods, a photo before and after; curves by matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyvips
from PIL import Image, ImageDraw

from realsr.imaging import read_image
from realsr.imaging.detail import detailed_window
from realsr.runtime.evenly import evenly
from realsr.runtime.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curve = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
Picture = npt.NDArray[np.uint8]
GAP, LABEL_HEIGHT = 4, 14
WHOLE, DETAIL = "whole photo", "detail, pixel by pixel"  # views of a result
MOST, SIDE = 2048, 768  # longer side in pixels of the view of a whole photo, and of the detail


def save(path: Path, picture: Picture) -> None:
    """Write a ``(H, W, 3)`` uint8 picture as PNG by Pillow: libvips hangs in forked processes."""
    with atomic_write(path) as file:
        Image.fromarray(picture).save(file, "PNG", compress_level=3)


def grid(cells: Sequence[Sequence[Picture]], labels: Sequence[Sequence[str]] | None = None) -> Picture:
    """Rows of ``(h, w, 3)`` uint8 pictures on white, ``(H, W, 3)`` uint8; all cells have the size of the largest.

    Labels stand above the pictures; lines that are too long lose their middle. Pillow draws it, since matplotlib
    resamples pixels.

    >>> grid([[np.zeros((20, 30, 3), np.uint8)] * 3], [["a", "b", "c"]]).shape
    (42, 106, 3)
    """
    height = max(cell.shape[0] for row in cells for cell in row)
    width = max(cell.shape[1] for row in cells for cell in row)
    label_height = LABEL_HEIGHT * (1 + max(label.count("\n") for row in labels for label in row)) if labels else 0
    step_y, step_x = height + label_height + GAP, width + GAP
    sheet = Image.new("RGB", (max(len(row) for row in cells) * step_x + GAP, len(cells) * step_y + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for r, row in enumerate(cells):
        for c, cell in enumerate(row):
            x, y = GAP + c * step_x, GAP + r * step_y
            sheet.paste(Image.fromarray(cell), (x, y + label_height))
            for number, line in enumerate(labels[r][c].split("\n") if labels else ()):
                draw.text((x, y + number * LABEL_HEIGHT), _fit(draw, line, width), fill="black")
    return np.asarray(sheet)


def contact_sheet(
    items: Sequence[Any] | npt.NDArray[Any],
    draw: Callable[[Any], Picture],
    labels: Sequence[str],
    columns: int = 8,
    limit: int = 64,
) -> Picture:
    """A :func:`grid` of up to ``limit`` items, evenly picked and drawn, with their labels, in rows of ``columns``."""
    picked = evenly(limit, len(items))
    rows = [picked[i : i + columns] for i in range(0, len(picked), columns)]
    return grid([[draw(items[i]) for i in row] for row in rows], [[labels[i] for i in row] for row in rows])


def noise_picture(tile: Picture, side: int = 128, gain: float = 4.0) -> Picture:
    """A noise tile, cropped to at most ``side`` pixels: its mean becomes mid-gray, and deviations grow by ``gain``.

    A smaller tile is enlarged by nearest neighbour until its longer side has ``side`` pixels.
    """
    tile = tile[:side, :side]
    return enlarge(np.clip((tile - tile.mean((0, 1))) * gain + 128, 0, 255).round().astype(np.uint8), side)


def enlarge(picture: Picture, side: int) -> Picture:
    """Enlarge by nearest neighbour until the longer side has ``side`` pixels."""
    height, width = (max(round(length * side / max(picture.shape[:2])), 1) for length in picture.shape[:2])
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.NEAREST))


def sharpest_crop(image: Picture, side: int) -> tuple[int, int]:
    """Top-left ``(y, x)``, multiples of 4, of the ``side x side`` window with most gradient: methods differ there."""
    rows, columns = detailed_window(image, side, step=1)
    return rows.start // 4 * 4, columns.start // 4 * 4


def before_and_after(source: Path, target: Path) -> tuple[tuple[int, int], list[str]]:
    """Write views of a photo enlarged by bicubic and of its result to :func:`view_files` in the result's folder.

    The whole of a result larger than :data:`MOST` is reduced by means over squares; a second view of it is the part
    with most edges. Returns width and height of the result, and the names of the views.
    """
    read = partial(pyvips.Image.new_from_file, str(target), access="sequential")
    result = read()
    width, height, factor = result.width, result.height, -(-max(result.width, result.height) // MOST)
    whole = _on_white(result.shrink(min(factor, width), min(factor, height)))
    shown = {WHOLE if factor == 1 else f"{WHOLE}, reduced to 1/{factor}": ((0, 0, width, height), whole)}
    if factor > 1:
        y, x = sharpest_crop(np.asarray(whole), max(SIDE // factor, 1))
        left, top = max(min(x * factor, width - SIDE), 0), max(min(y * factor, height - SIDE), 0)
        box = left, top, min(width, SIDE), min(height, SIDE)
        shown[DETAIL] = box, _on_white(read().crop(*box))
    photo = read_image(source)
    pixels = photo.rgb if photo.alpha is None else np.dstack((photo.rgb, photo.alpha))
    kind = "rgb16" if pixels.dtype == np.uint16 else "srgb"
    before = _on_white(pyvips.Image.new_from_array(pixels, interpretation=kind))
    x, y = before.width / width, before.height / height
    for number, ((left, top, w, h), after) in enumerate(shown.values()):
        seen = before.resize(after.size, Image.Resampling.BICUBIC, (left * x, top * y, (left + w) * x, (top + h) * y))
        for image, file in zip((seen, after), view_files(target.parent, number), strict=True):
            image.save(file, compress_level=1, icc_profile=photo.icc_profile)
    return (width, height), list(shown)


def view_files(folder: Path, number: int) -> tuple[str, str]:
    """Files of a view before and after."""
    return str(folder / f"view{number}_before.png"), str(folder / f"view{number}_after.png")


def _on_white(image: pyvips.Image) -> Image.Image:
    """Any image to 8-bit RGB, with transparency on white."""
    image = image.colourspace("srgb")
    return Image.fromarray((image.flatten(background=255) if image.hasalpha() else image).numpy())


def _fit(draw: ImageDraw.ImageDraw, text: str, width: int) -> str:
    """The text, without its middle where it is wider than ``width`` pixels."""
    shown = text = " ".join(text.split())
    keep = len(text)
    while draw.textlength(shown) > width and keep > 4:
        keep -= 1
        shown = f"{text[: (keep + 1) // 2]}..{text[-(keep // 2) :]}"
    return shown


def drawn(paint: Callable[[Figure], object], width: int, height: int) -> Picture:
    """The picture ``(height, width, 3)`` uint8 that ``paint`` draws on a figure of its own: pyplot has global state."""
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
        axes.plot(x, y, ".-", color=f"C{number - 1}" if number else "black", label=name)
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
