"""The contact sheet of a kernel pool: what was looked at in each photo, what came out, and how sure it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from realsr.entries import Entry, kernel_entries
from realsr.estimators.estimate import KernelEstimate
from realsr.kernels import Kernel, centre_of_mass, framed, widths_and_angle
from realsr.pictures import GAP, Picture, fit, grid

PHOTO, KERNEL, LINE, MARGIN = 160, 132, 16, 10  # sides of a thumbnail and of a kernel; a line of text; between cells
PANEL = 640  # width of the histogram, and the least of a sheet
FONT = ImageFont.load_default(12)
WIDE, NARROW, CROPS, GRAY = (31, 119, 180), (150, 80, 190), (255, 110, 0), (110, 110, 110)
Widths = npt.NDArray[np.float64]


def kernel_sheet(
    folder: str | Path, scale: int, min_confidence: float = 0.0, columns: int = 4, limit: int = 48
) -> tuple[Picture, Widths]:
    """Draw a kernel pool; the least confident first.

    A cell has the photo, with the places where crops were drawn in orange, its kernel on one gray scale for all
    sheets of the scale, the kernel's widths and angle, the confidence and what speaks against it. Above them is a
    histogram of the widths of the kernels that ``min_confidence`` keeps. What a pool does not say is left out.

    Args:
        folder: of the pool, or files of another program, as for ``KernelPool.load``.
        scale: of the kernels.
        min_confidence: kernels of less are marked.
        columns: cells in a row.
        limit: cells at most; of a larger pool half of them are the least confident, the others an even choice.

    Returns:
        The sheet, ``(H, W, 3)`` uint8; and the widths ``(N, 2)`` of the kernels that are kept, wider axis first.
    """
    keys, widths, sure = [], [], []
    for entry in kernel_entries(folder, scale):
        keys.append((entry.path, entry.manifest["photo"]))
        widths.append(widths_and_angle(entry.arrays[f"x{scale}"])[:2])
        sure.append(entry.manifest.get("confidence", math.inf))
    kept = np.array(widths)[np.array(sure) >= min_confidence]
    rank = {keys[i]: n for n, i in enumerate(chosen(sure, limit))}
    # read again, since memory does not hold the thumbnails of thousands; others may write to the pool meanwhile
    found = {rank.get((entry.path, entry.manifest["photo"]), -1): entry for entry in kernel_entries(folder, scale)}
    shown = [found[n] for n in sorted(found) if n >= 0]
    photos, rated = any("thumbnail" in e.arrays for e in shown), any("confidence" in e.manifest for e in shown)
    cells = [_cell(entry, scale, min_confidence, photos, rated) for entry in shown]
    names = [str(entry.manifest["photo"]) for entry in shown]
    rows = range(0, len(shown), columns)
    sheet = grid([cells[i : i + columns] for i in rows], [names[i : i + columns] for i in rows])
    head = _head(scale, len(sure), len(kept), len(shown), min_confidence, photos, rated)
    return _stacked([head, width_histogram(kept, scale), sheet]), kept


def thumbnails(rgb: npt.NDArray[Any], estimate: KernelEstimate) -> tuple[Picture, Picture]:
    """The photo, and where crops were drawn in it (255 = most): ``(h, w, 3)`` and ``(h, w)`` uint8, h, w <= 160.

    Args:
        rgb: ``(H, W, 3)`` uint8 or uint16.
        estimate: that was made of it.
    """
    height, width = rgb.shape[:2]
    step = max(height, width) // (4 * PHOTO) + 1
    thin = rgb[::step, ::step]
    density = np.zeros(thin.shape[:2])
    rows, columns = estimate.window
    part = estimate.density[-rows.start % step :: step, -columns.start % step :: step]
    top, left = -(-rows.start // step), -(-columns.start // step)
    density[top : top + part.shape[0], left : left + part.shape[1]] = part
    factor = PHOTO / max(thin.shape[:2])
    size = tuple(max(round(side * factor), 1) for side in thin.shape[1::-1])
    eight_bit = (thin >> 8).astype(np.uint8) if thin.dtype == np.uint16 else thin
    heat = np.asarray(Image.fromarray(density.astype(np.float32)).resize(size, Image.Resampling.BOX))
    peak = max(float(np.quantile(heat, 0.99)), 1e-9)
    return (
        np.asarray(Image.fromarray(eight_bit).resize(size, Image.Resampling.BOX)),
        (255 * np.clip(heat / peak, 0, 1)).round().astype(np.uint8),
    )


def kernel_on_fixed_scale(kernel: Kernel, scale: int) -> Picture:
    """The middle ``8 * scale + 1`` pixels, by the square root from 0 (black) to ``1 / scale**2`` and more (white).

    White is the height of a plain mean over an LR pixel. The square root shows wide kernels too, whose values are
    small. The blue ellipse is at two standard deviations.
    """
    frame = 8 * scale + 1
    shown = np.sqrt(np.clip(framed(kernel, frame) * scale**2, 0, 1))
    zoom = max(KERNEL // frame, 1)
    picture = Image.fromarray((255 * shown).round().astype(np.uint8)).resize((frame * zoom,) * 2, Image.Resampling.BOX)
    wide, narrow, angle = widths_and_angle(kernel)
    y0, x0 = centre_of_mass(kernel) - kernel.shape[0] // 2 + frame // 2
    turn = np.linspace(0, 2 * math.pi, 73)
    along, across = 2 * wide * np.cos(turn), 2 * narrow * np.sin(turn)
    x = x0 + along * math.cos(angle) - across * math.sin(angle)
    y = y0 - along * math.sin(angle) - across * math.cos(angle)
    picture = picture.convert("RGB")
    ImageDraw.Draw(picture).line(
        [(zoom * (u + 0.5), zoom * (v + 0.5)) for u, v in zip(x, y, strict=True)], (90, 160, 255)
    )
    return np.asarray(picture)


def chosen(sure: Sequence[float], limit: int) -> list[int]:
    """Indices of what is shown, the least confident first; those of no confidence (infinity) last."""
    order = sorted(range(len(sure)), key=lambda i: sure[i])
    if len(order) <= limit:
        return order
    worst = limit // 2 if min(sure) < math.inf else 0
    return order[:worst] + [order[i] for i in np.linspace(worst, len(order) - 1, limit - worst).round().astype(int)]


def _cell(entry: Entry, scale: int, min_confidence: float, photos: bool, rated: bool) -> Picture:
    """The photo (if any cell of the sheet has one), the kernel beside it, the confidence (likewise) below."""
    left, height = (PHOTO + GAP, PHOTO) if photos else (0, KERNEL + GAP + LINE)
    below = GAP + LINE if rated else 0
    cell = Image.new("RGB", (left + KERNEL + MARGIN, height + below + MARGIN), "white")
    draw = ImageDraw.Draw(cell)
    if photos:
        draw.rectangle((0, 0, PHOTO - 1, PHOTO - 1), (235, 235, 235))
    if "thumbnail" in entry.arrays:
        photo = Image.fromarray(with_density(entry.arrays))
        cell.paste(photo, ((PHOTO - photo.width) // 2, (PHOTO - photo.height) // 2))
    kernel = entry.arrays[f"x{scale}"]
    cell.paste(Image.fromarray(kernel_on_fixed_scale(kernel, scale)), (left, 0))
    wide, narrow, angle = widths_and_angle(kernel)
    text = f"{wide:.2f} x {narrow:.2f} px,  {round(math.degrees(angle)) % 180}°"
    draw.text((left, KERNEL + GAP), text, "black", FONT)
    if (confidence := entry.manifest.get("confidence")) is not None:
        draw.rectangle((0, height + GAP, 31, height + below), traffic_light(confidence))
        draw.text((4, height + GAP + 1), f"{confidence:.2f}", "white", FONT)
        remarks = ["left out"] if confidence < min_confidence else []
        remarks += entry.manifest.get("reasons", [])[:1]
        text = fit(draw, ": ".join(remarks), left + KERNEL - 38, FONT)
        draw.text((38, height + GAP + 1), text, "black", FONT)
    return np.asarray(cell)


def traffic_light(confidence: float) -> tuple[int, ...]:
    """Red, amber, green for 0, 0.5, 1, and what lies between."""
    channels = ((200, 205, 30), (40, 140, 140), (40, 0, 60))
    return tuple(int(np.interp(confidence, (0, 0.5, 1), channel)) for channel in channels)


def with_density(arrays: dict[str, npt.NDArray[Any]]) -> Picture:
    """The thumbnail; pale, and orange where crops were drawn, if that is known."""
    photo = arrays["thumbnail"]
    if "density" not in arrays:
        return photo
    pale = 0.7 * (0.35 * photo + 0.65 * photo.mean(2, keepdims=True))
    alpha = 0.85 * arrays["density"][..., None] / 255
    return (pale * (1 - alpha) + np.array(CROPS) * alpha).round().astype(np.uint8)


def _head(scale: int, count: int, kept: int, shown: int, min_confidence: float, photos: bool, rated: bool) -> Picture:
    """What is on the sheet and how it is drawn."""
    title = f"{count} kernel{'s' if count > 1 else ''} for x{scale}"
    if min_confidence > 0:
        title += f"; min_confidence={min_confidence:g} keeps {kept}"
    choice = "half of them the least confident, half an even choice of the others" if rated else "an even choice"
    lines = [
        title,
        *([f"{shown} of {count} are shown, {choice}."] if shown < count else []),
        f"Kernel: {8 * scale + 1} pixels square, by the square root from 0 (black) to 1/{scale**2} and more (white).",
        "Blue: two standard deviations. Text: standard deviations along both axes in HR pixels,",
        "angle of the wider one from the x axis, counter-clockwise.",
        *(["Photo: orange where crops were drawn."] if photos else []),
        *(["Colour: confidence from 0 to 1, and what speaks against the kernel."] if rated else []),
    ]
    head = Image.new("RGB", (PANEL, len(lines) * LINE + 2 * GAP), "white")
    for i, line in enumerate(lines):
        ImageDraw.Draw(head).text((GAP, GAP + i * LINE), line, GRAY if i else "black", FONT)
    return np.asarray(head)


def width_histogram(widths: Widths, scale: int, bins: int = 40) -> Picture:
    """Two bars a bin: how many kernels are so wide along their wider and along their narrower axis."""
    height, left, base = 150, 40, 120
    panel = Image.new("RGB", (PANEL, height), "white")
    draw = ImageDraw.Draw(panel)
    top = max(scale, math.ceil(widths.max(initial=0)))
    step = (PANEL - left - GAP) // bins
    counts = [np.histogram(column, bins, (0, top))[0] for column in widths.T]
    most = max(int(np.max(counts)), 1)
    for k, (name, colour, column) in enumerate(zip(("wider", "narrower"), (WIDE, NARROW), widths.T, strict=True)):
        for i, count in enumerate(counts[k]):
            if count:
                x = left + i * step + 1 + k * (step // 2)
                draw.rectangle((x, base - round(90 * count / most), x + step // 2 - 2, base - 1), colour)
        x = left + 8 + k * 290
        draw.rectangle((x, 4, x + 9, 13), colour)
        median = f", median {np.median(column):.2f} px" if len(column) else ""
        draw.text((x + 14, 2), f"width along the {name} axis{median}", "black", FONT)
    draw.line((left, base, left + bins * step, base), GRAY)
    for tick in range(0, top + 1, max(top // 10, 1)):
        x = left + tick * bins * step // top
        draw.line((x, base, x, base + 4), GRAY)
        draw.text((x, base + 6), f"{tick}", GRAY, FONT, anchor="ma")
    draw.text((PANEL - GAP, base + 6), "px", GRAY, FONT, anchor="ra")
    draw.text((left - 6, base - 90), f"{most}", GRAY, FONT, anchor="rm")
    draw.text((left - 6, base), "0", GRAY, FONT, anchor="rm")
    return np.asarray(panel)


def _stacked(parts: Sequence[Picture]) -> Picture:
    """One under the other, on white."""
    width = max(part.shape[1] for part in parts)
    pads = [((0, 0), (0, width - part.shape[1]), (0, 0)) for part in parts]
    return np.concatenate([np.pad(part, pad, constant_values=255) for part, pad in zip(parts, pads, strict=True)])
