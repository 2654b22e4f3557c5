"""The contact sheet of a kernel pool: each photo with the places of its crops, its kernel and its confidence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from realsr.estimation.estimate import KernelEstimate
from realsr.estimation.kernels import Kernel, centre_of_mass, framed, widths_and_angle
from realsr.pools.folder import Entry, kernel_entries
from realsr.reports.pictures import GAP, Picture, drawn, grid
from realsr.runtime.evenly import evenly

PHOTO, KERNEL, BAR = 160, 132, 8  # sides of a thumbnail and of a kernel; width of the bar that shows the confidence
PANEL, COLUMNS = 640, 4  # width of the histogram, and the least of a sheet; cells in a row
BLUE, CROPS = (90, 160, 255), (255, 110, 0)
EXPLAINED = """
Kernels are drawn by the square root from 0 (black) to 1/scale² and more (white), with blue at two standard deviations.
Text: standard deviations along both axes in HR pixels, angle of the wider one from the x axis, counter-clockwise.
Orange: where crops were drawn. Bar and number: confidence from 0 (red) to 1 (green), and what speaks against it."""
Widths = npt.NDArray[np.float64]


def kernel_sheet(
    folder: str | Path, scale: int, min_confidence: float = 0.0, limit: int = 48
) -> tuple[Picture, Widths]:
    """Draw a kernel pool, the least confident first, in cells that :data:`EXPLAINED` describes.

    A histogram on top shows the widths of the kernels that ``min_confidence`` keeps. Fields that a pool has not are
    left out.

    Args:
        folder: of the pool, or files of another program, as for ``KernelPool.load``.
        scale: of the kernels.
        min_confidence: kernels of less are marked.
        limit: cells at most; of a larger pool half of them are the least confident, the others an even choice.

    Returns:
        The sheet, ``(H, W, 3)`` uint8; and the widths ``(N, 2)`` of the kernels that are kept, wider axis first.
    """
    entries = list(kernel_entries(folder, scale))
    widths = np.array([widths_and_angle(entry.arrays[f"x{scale}"])[:2] for entry in entries])
    kept = widths[[entry.confidence >= min_confidence for entry in entries]]
    shown = [entries[i] for i in chosen([entry.confidence for entry in entries], limit)]
    photos, rated = any("thumbnail" in e.arrays for e in shown), any(e.confidence < math.inf for e in shown)
    rows = [shown[i : i + COLUMNS] for i in range(0, len(shown), COLUMNS)]
    cells = [[_cell(entry, scale, photos) for entry in row] for row in rows]
    sheet = grid(cells, [[_label(entry, scale, min_confidence, rated) for entry in row] for row in rows])
    sheet = np.pad(sheet, ((0, 0), (0, max(PANEL - sheet.shape[1], 0)), (0, 0)), constant_values=255)
    choice = "half of these the least confident" if rated else "evenly chosen"
    title = f"{len(entries)} kernel{'s' if len(entries) > 1 else ''} for x{scale}"
    title += f", {len(shown)} of them shown, {choice}" if len(shown) < len(entries) else ""
    title += f"; min_confidence={min_confidence:g} keeps {len(kept)}" if min_confidence > 0 else ""
    return np.vstack((width_histogram(kept, scale, title + EXPLAINED, sheet.shape[1]), sheet)), kept


def thumbnails(rgb: npt.NDArray[Any], estimate: KernelEstimate) -> tuple[Picture, Picture]:
    """The photo and its density of crops (255: most), ``(h, w, 3)`` and ``(h, w)`` uint8, h and w at most 160.

    ``rgb`` is ``(H, W, 3)`` uint8 or uint16, the photo that the estimate was made of.
    """
    eight_bit = (rgb >> 8).astype(np.uint8) if rgb.dtype == np.uint16 else rgb
    density = np.zeros(rgb.shape[:2], np.float32)
    rows, columns = (slice(a.start, a.start + n) for a, n in zip(estimate.window, estimate.density.shape, strict=True))
    density[rows, columns] = estimate.density  # which may lack the window's last row or column
    height, width = (max(round(side * PHOTO / max(rgb.shape[:2])), 1) for side in rgb.shape[:2])
    thumbnail, heat = (cv2.resize(a, (width, height), interpolation=cv2.INTER_AREA) for a in (eight_bit, density))
    peak = max(float(np.quantile(heat, 0.99)), 1e-9)
    return thumbnail.astype(np.uint8), (255 * np.clip(heat / peak, 0, 1)).round().astype(np.uint8)


def kernel_on_fixed_scale(kernel: Kernel, scale: int) -> Picture:
    """The middle ``8 * scale + 1`` pixels of a kernel, by the square root from 0 (black) to ``1 / scale**2`` (white).

    White is the value of a plain mean over an LR pixel. The square root shows wide kernels too, whose values are small.
    The blue ellipse is at two standard deviations.
    """
    frame = 8 * scale + 1
    shown = np.sqrt(np.clip(framed(kernel, frame) * scale**2, 0, 1))
    zoom = max(KERNEL // frame, 1)
    picture = (255 * shown).round().astype(np.uint8).repeat(zoom, 0).repeat(zoom, 1)[..., None].repeat(3, 2)
    wide, narrow, angle = widths_and_angle(kernel)
    y, x = zoom * (centre_of_mass(kernel) - kernel.shape[0] // 2 + frame // 2 + 0.5)
    cv2.ellipse(picture, ((x, y), (4 * zoom * wide, 4 * zoom * narrow), -math.degrees(angle)), BLUE)
    return picture


def chosen(sure: Sequence[float], limit: int) -> list[int]:
    """Indices of the kernels to show, the least confident first; those of unknown confidence (infinity) last.

    >>> chosen([0.9, 0.1, 0.5, 0.7, 0.8], 4)
    [1, 2, 3, 0]
    """
    order = sorted(range(len(sure)), key=lambda i: sure[i])
    worst = limit // 2 if min(sure, default=math.inf) < math.inf else 0
    rest = order[worst:]
    return order[:worst] + [rest[i] for i in evenly(limit - worst, len(rest))]


def _cell(entry: Entry, scale: int, photos: bool) -> Picture:
    """A bar in the confidence's colour, the photo (if any cell of the sheet has one), and the kernel."""
    height = PHOTO if photos else KERNEL
    bar = np.full((height, BAR, 3), traffic_light(entry.confidence), np.uint8)
    photo = with_density(entry.arrays) if "thumbnail" in entry.arrays else np.zeros((0, 0, 3), np.uint8)
    kernel = kernel_on_fixed_scale(entry.arrays[f"x{scale}"], scale)
    parts = [(photo, PHOTO, 235), (kernel, KERNEL + GAP, 255)][not photos :]
    return np.hstack((bar, *(_centred(picture, (height, width), gray) for picture, width, gray in parts)))


def _centred(picture: Picture, size: tuple[int, int], background: int) -> Picture:
    """The picture in the middle of a larger one."""
    pads = [((n - m) // 2, (n - m + 1) // 2) for n, m in zip(size, picture.shape[:2], strict=True)]
    return np.pad(picture, (*pads, (0, 0)), constant_values=background)


def _label(entry: Entry, scale: int, min_confidence: float, rated: bool) -> str:
    """The photo's name, the kernel's widths and angle, and the confidence, if any cell of the sheet has one."""
    lines = [entry.photo, measured(entry.arrays[f"x{scale}"], "x")]
    if rated:
        remarks = ["left out"] if entry.confidence < min_confidence else []
        remarks += entry.manifest.get("reasons", [])[:1]
        lines.append(f"{entry.confidence:.2f} {': '.join(remarks)}" if entry.confidence < math.inf else "")
    return "\n".join(" ".join(line.split()) for line in lines)  # a file's name may have line breaks


def measured(kernel: Kernel, times: str) -> str:
    """A kernel's widths, with a sign ``times`` between them, and its angle."""
    wide, narrow, angle = widths_and_angle(kernel)
    return f"{wide:.2f} {times} {narrow:.2f} px, {round(math.degrees(angle)) % 180}°"


def traffic_light(confidence: float) -> tuple[int, ...]:
    """RGB of a confidence: red for 0, amber for 0.5, green for 1, blended in between; white for infinity (unknown)."""
    channels = ((200, 205, 30, 255), (40, 140, 140, 255), (40, 0, 60, 255))
    return tuple(int(np.interp(min(confidence, 2), (0, 0.5, 1, 2), channel)) for channel in channels)


def with_density(arrays: dict[str, npt.NDArray[Any]]) -> Picture:
    """The thumbnail, pale and with the crops in orange if their density is known."""
    photo = arrays["thumbnail"]
    if "density" not in arrays:
        return photo
    pale = 0.7 * (0.35 * photo + 0.65 * photo.mean(2, keepdims=True))
    alpha = 0.85 * arrays["density"][..., None] / 255
    return (pale * (1 - alpha) + np.array(CROPS) * alpha).round().astype(np.uint8)


def width_histogram(widths: Widths, scale: int, title: str = "", width: int = PANEL) -> Picture:
    """Histogram of the kernels' widths along their wider and narrower axes, ``(H, width, 3)`` uint8."""
    names = [
        f"width along the {name} axis" + (f", median {np.median(column):.2f} px" if len(column) else "")
        for name, column in zip(("wider", "narrower"), widths.T, strict=True)
    ]
    most = max(scale, math.ceil(widths.max(initial=0)))

    def paint(figure: Any) -> None:
        axes = figure.subplots()
        axes.hist(widths, 40, range=(0, most), color=("C0", "C4"), label=names)
        axes.set_xlim(0, most)
        axes.set_title(title, loc="left")
        axes.yaxis.get_major_locator().set_params(integer=True)
        figure.legend(loc="outside lower left", ncols=2, frameon=False)

    return drawn(paint, width, 150 + 16 * len(title.splitlines()))
