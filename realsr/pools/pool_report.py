"""``report.html`` beside a camera's pools: pictures, a row for each photo, and reasons of rejected ones."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from realsr.estimation.kernels import widths_and_angle
from realsr.estimation.noise import IN_POOL, REASONS, count_reasons, in_pool
from realsr.pools import kernel_sheet
from realsr.pools.builder import read_skipped, shows_all
from realsr.pools.folder import Entry
from realsr.pools.interchange import checked_kernel
from realsr.reports.html import picture, write_page
from realsr.reports.pictures import noise_picture
from realsr.runtime.errors import InputError
from realsr.runtime.evenly import evenly

log = logging.getLogger(__name__)

SHOWN = 48  # kernels, and noise tiles, with pictures, which are nearly all of a page's bytes

Record = dict[str, Any]  # of an entry, or of a pool, by the names in the template


def report_pools(kernels: Path, noise: Path, redo: bool = True) -> None:
    """Write ``report.html`` beside the folders of the kernel and the noise pool, of which either may be missing.

    A page that shows what they hold stays as it is with ``redo=False``.
    """
    path = kernels.parent / "report.html"
    if not redo and shows_all(path, kernels, noise):
        log.info("report: %s", path)
        return
    title, pools = f"Pools of {path.parent.resolve().name}", {"kernels": _kernels(kernels), "noise": _noise(noise)}
    try:
        write_page(path, "pools.html", title=title, **pools)
    except OSError as e:
        log.warning("no report: %s", e)  # the pools are there all the same
    else:
        log.info("report: %s", path)


def _read(folder: Path, describe: Callable[[Entry], Record]) -> tuple[list[Record], Record]:
    """Records of all entries by ``describe``, and that of the pool; one entry at a time is in memory."""
    found: list[Record] = []
    skipped = read_skipped(folder)
    made = Counter[str]()
    for path in sorted(folder.glob("*.npz")):
        try:
            entry = Entry.read(path)
            found.append({"path": path, "photo": entry.photo, **describe(entry)})
        except InputError as e:
            skipped.append((path.name, str(e).removeprefix(f"{path}: ")))
            continue
        settings = {**entry.settings, "realsr": entry.manifest.get("realsr", "?")}
        made[", ".join(f"{key}={value}" for key, value in settings.items())] += 1
    return found, {"skipped": skipped, "settings": sorted(made.items(), key=lambda item: (-item[1], item[0]))}


def _kernels(folder: Path) -> Record:
    """Record of a kernel pool, with a row for every photo, the least confident first."""
    found, pool = _read(folder, _kernel)
    found.sort(key=lambda record: record["confidence"])
    sure = [record["confidence"] for record in found]
    rated = [confidence for confidence in sure if confidence < math.inf]
    keeps = [(least, sum(confidence >= least for confidence in rated)) for least in (0.25, 0.5, 0.75)]
    shown = kernel_sheet.chosen(sure, SHOWN)
    for record in (found[i] for i in shown):
        arrays, photo = Entry.read(record["path"]).arrays, record["photo"]
        kernel = kernel_sheet.kernel_on_fixed_scale(arrays[f"x{record['scale']}"], record["scale"])
        record["kernel"] = picture(kernel, f"kernel of {photo}")
        if "thumbnail" in arrays:
            record["thumbnail"] = picture(kernel_sheet.with_density(arrays), photo, photo=True)
    if found:
        scale = Counter(record["scale"] for record in found).most_common(1)[0][0]
        sizes = np.array([record["sizes"] for record in found if record["scale"] == scale])
        histogram = picture(kernel_sheet.width_histogram(sizes, scale), f"how wide the kernels for x{scale} are")
        pool |= {"scale": scale, "histogram": histogram}
    return pool | {"rows": found, "shown": len(shown), "rated": len(rated), "keeps": keeps}


def _kernel(entry: Entry) -> Record:
    """Record of an entry's kernel for its largest scale; an unknown confidence is infinite."""
    scales = [int(name[1:]) for name in entry.arrays if name[0] == "x" and name[1:].isdigit()]
    if not scales:
        raise InputError("has no kernel")
    kernel = checked_kernel(entry.arrays[f"x{max(scales)}"], entry.path)
    return {
        "scale": max(scales),
        "sizes": widths_and_angle(kernel)[:2],
        "widths": f"x{max(scales)}: {kernel_sheet.measured(kernel, '×')}",
        "confidence": entry.confidence,
        "colour": "rgb({}, {}, {})".format(*kernel_sheet.traffic_light(entry.confidence))
        if entry.confidence < math.inf
        else "",
        "reasons": entry.manifest.get("reasons", []),
        **{"kernel": "", "thumbnail": ""},
    }


def _noise(folder: Path) -> Record:
    """Record of a noise pool, with a row for every photo: how many tiles were taken, and rejected by reason."""
    found, pool = _read(folder, _tiles)
    totals = {name: sum(record["counts"][name] for record in found) for name in REASONS}
    reasons = [name for name in REASONS if name and totals[name]]
    total, first, pictures = sum(record["taken"] for record in found), 0, []
    wanted = np.array(evenly(SHOWN, total), int)
    for record in found:
        mine = wanted[(wanted >= first) & (wanted < first + record["taken"])] - first
        first += record["taken"]
        for tile in Entry.read(record["path"]).arrays["tiles"][mine] if len(mine) else ():
            pictures.append(picture(noise_picture(tile, 96), record["photo"], photo=True))
    return pool | {
        "total": total,
        "gave": sum(record["taken"] > 0 for record in found),
        "pictures": pictures,
        "reasons": [(name, totals[name], REASONS[name]) for name in reasons],
        "head": ["photo", "tiles", "taken", *reasons, "noise level", "brightness"],
        "rows": [
            [row["photo"], sum(row["counts"].values()), row["taken"], *map(row["counts"].get, reasons), *row["shown"]]
            for row in found
        ],
    }


def _tiles(entry: Entry) -> Record:
    """Record of a photo's tiles: their number by reason, and level and brightness of those in the pool."""
    arrays = entry.arrays
    if not {"tiles", "reason", "mean", "detrended"} <= set(arrays):
        raise InputError("is not of this version of realsr.collect: what was rejected is not known")
    taken = in_pool(arrays["reason"])
    if taken.sum() != len(arrays["tiles"]):  # realsr.collect is at work, was interrupted, or kept another rule's tiles
        raise InputError("its tiles are not chosen yet: python -m realsr.collect goes on")
    counts = count_reasons(arrays["reason"])
    mean, level, shown = arrays["mean"][taken], arrays["detrended"][taken], ("", "")
    if len(mean):
        shown = f"{math.sqrt(level.mean()):.1f}", f"{mean.min():.0f} to {mean.max():.0f}"
    return {"counts": counts, "taken": sum(counts[name] for name in IN_POOL), "shown": shown}
