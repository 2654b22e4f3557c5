"""The part of a page that shows a kernel pool: a row for every photo, the least sure first."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from realsr.entries import Entry
from realsr.errors import InputError
from realsr.interchange import checked_kernel
from realsr.kernel_sheet import chosen, kernel_on_fixed_scale, traffic_light, width_histogram, with_density
from realsr.kernels import widths_and_angle
from realsr.report.page import Html, bullets, element, picture, prose, table
from realsr.report.parts import Problems, count, read_pool, settings_of, settings_part, skipped_part

SHOWN = 48  # photos with pictures, which are nearly all of a page's bytes


@dataclass(frozen=True)
class _Kernel:
    """What a row says of a photo's kernel; ``confidence`` is infinite where it is not known."""

    path: Path
    photo: str
    scale: int
    widths: tuple[float, float]
    angle: float
    confidence: float
    reasons: list[str]
    settings: str


def kernel_part(folder: Path) -> Iterator[Html]:
    """What to know of the kernel pool in a folder, which may be missing."""
    found, skipped = read_pool(folder, _kernel)
    yield element("h2", "Kernels")
    if not found and not skipped:
        yield element("p", prose("There are none yet: `python -m realsr.estimate` makes them."))
        return
    yield element("p", f"{count(len(found), 'kernel')}; {count(len(skipped), 'photo')} without one.")
    if found:
        yield from _kernel_pictures(found)
    yield from skipped_part(skipped)
    yield from settings_part([kernel.settings for kernel in found])
    known = [kernel.confidence for kernel in found if kernel.confidence < math.inf]
    keep = ", ".join(f"{least} keeps {sum(c >= least for c in known)}" for least in (0.25, 0.5, 0.75))
    yield element("h3", "To change it")
    yield bullets(
        prose(line)
        for line in (
            f"`pool.min_confidence=0.5` trains without the less sure ones: of {len(known)}, {keep}.",
            "`estimator=kernelgan` is the paper's; `estimator.NAME=VALUE` changes a setting. "
            "`python -m realsr.estimate` makes anew what was made with others.",
            "`data.kernel_dir=DIR_OR_FILE` trains on the kernels of another program.",
        )
    )


def _kernel_pictures(found: Sequence[_Kernel]) -> Iterator[Html]:
    scale = Counter(kernel.scale for kernel in found).most_common(1)[0][0]
    widths = np.array([kernel.widths for kernel in found if kernel.scale == scale])
    order = chosen([kernel.confidence for kernel in found], len(found))
    shown = {order[i] for i in chosen([found[i].confidence for i in order], SHOWN)}
    yield picture(width_histogram(widths, scale), f"how wide the kernels for x{scale} are")
    few = f", {len(shown)} of them with pictures" if len(shown) < len(found) else ""
    yield element(
        "p",
        f"Every photo, the least sure first{few}. Orange is where the photo was looked at. A kernel is drawn by the "
        f"square root, black for 0 and white for 1/{scale**2} and more; blue is at two standard deviations. Its widths "
        "are standard deviations in HR pixels, the angle is that of the wider one, counter-clockwise.",
    )
    head = ("photo", "looked at", "kernel", "widths", "confidence", "what speaks against it")
    yield table(head, (_kernel_row(found[i], i in shown) for i in order), "cards")


def _kernel_row(kernel: _Kernel, with_pictures: bool) -> tuple[object, ...]:
    photo = drawn = Html("")
    if with_pictures:
        arrays = Entry.read(kernel.path).arrays
        drawn = picture(kernel_on_fixed_scale(arrays[f"x{kernel.scale}"], kernel.scale), f"kernel of {kernel.photo}")
        if "thumbnail" in arrays:
            photo = picture(with_density(arrays), kernel.photo, photo=True)
    sure = Html("")
    if kernel.confidence < math.inf:
        colour = "rgb({}, {}, {})".format(*traffic_light(kernel.confidence))
        sure = element("span", f"{kernel.confidence:.2f}", class_="pill", style=f"background: {colour}")
    wide, narrow = kernel.widths
    text = f"x{kernel.scale}: {wide:.2f} × {narrow:.2f} px, {kernel.angle:.0f}°"
    return kernel.photo, photo, drawn, text, sure, "; ".join(kernel.reasons)


def _kernel(entry: Entry, problems: Problems) -> list[_Kernel]:
    """The largest scale of an entry, or nothing and one problem more."""
    scales = [int(name[1:]) for name in entry.arrays if name[0] == "x" and name[1:].isdigit()]
    try:
        kernel = checked_kernel(entry.arrays[f"x{max(scales)}"], entry.path)
    except InputError as e:
        problems.append((entry.path.name, str(e).removeprefix(f"{entry.path}: ")))
        return []
    except ValueError:
        problems.append((entry.path.name, "has no kernel"))
        return []
    wide, narrow, angle = widths_and_angle(kernel)
    manifest = entry.manifest
    return [
        _Kernel(
            entry.path,
            str(manifest.get("photo", entry.path.stem)),
            max(scales),
            (wide, narrow),
            round(math.degrees(angle)) % 180,
            manifest.get("confidence", math.inf),
            manifest.get("reasons", []),
            settings_of(entry),
        )
    ]
