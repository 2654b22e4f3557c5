"""Enlarges photo files: how long it will take is said first, and each result is written whole or not at all."""

from __future__ import annotations

import errno
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from itertools import chain
from pathlib import Path
from queue import Empty, Full, Queue
from typing import Any

import numpy.typing as npt
import torch
from rich.progress import Progress

from realsr.imaging import open_photo
from realsr.imaging.encoding import check_writes, write_rows
from realsr.imaging.opening import MOST_PIXELS
from realsr.networks.tiling import Part, Tiles
from realsr.runtime.errors import InputError, counted, one_line
from realsr.runtime.files import check_writable
from realsr.runtime.hardware import is_out_of_memory
from realsr.upscaling.backends import Network
from realsr.upscaling.library import photo_bands, result_size
from realsr.upscaling.output_paths import check_made_by, note_made_by, targets_of

log = logging.getLogger(__name__)

Band = npt.NDArray[Any]
Enlarge = Callable[..., Any]  # upscale_file with all but its files and report=
OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)  # errors that would fail every other photo too
PROBE = 48  # side of the trial in pixels; a second of the full network on a core
LONG = 60  # seconds from which on the estimate is logged
SLOW = 60  # seconds per megapixel from which on a smaller network is advised


def upscale_file(
    source: str | Path,
    target: str | Path,
    model: Network,
    scale: float | None = None,
    tiles: Tiles | None = None,
    keep_colours: bool = False,
    quality: int = 95,
    most_pixels: int = MOST_PIXELS,
    report: Callable[[float], Any] = lambda share: None,
    pace: float | None = None,
) -> None:
    """Upscale a file to a file, which appears whole or not at all; rows are read and written as they are computed.

    Gray, alpha, 16 bits, ICC profile, EXIF, XMP and resolution are kept where the format of ``target`` has them.

    Args:
        source: the photo.
        target: the result, in the format of its suffix.
        model: from :func:`realsr.load_model`.
        scale: of the result; None is the model's own.
        tiles: how the photo is cut.
        keep_colours: whether the result gets the photo's colours.
        quality: of JPEG and WebP, 1 to 100.
        most_pixels: larger photos are refused.
        report: is given the share of the photo that is done.
        pace: seconds per megapixel (:func:`seconds_a_megapixel`), to log the time of a slow photo.

    Raises:
        InputError: the photo cannot be read, the result cannot be written in that format, or the network fails.
        OSError: the folder cannot be written to, or the disk is full.
    """
    target = Path(target)
    if target.is_dir():
        raise InputError(f"{target}: is a folder, where the result of {source} would be; remove or rename it")
    photo = open_photo(source, most_pixels)
    height, width = result_size(photo.rgb.shape, model, scale)
    check_writes(target, height, width)
    if pace and (line := long_wait(pace, model, tiles or Tiles(), *photo.rgb.shape[:2])):
        log.info("%s: %s", source, line)
    bands = photo_bands(photo, model, scale, tiles, keep_colours, report)
    try:
        _write_behind(lambda rows: write_rows(target, rows, height, width, photo, quality), bands)
    except (RuntimeError, MemoryError) as e:  # such as a foreign network that does not take such a size
        reason = "there is no memory for it" if is_out_of_memory(e) else " ".join(str(e).split())[:200]
        raise InputError(f"{source}: cannot be upscaled ({reason or type(e).__name__}); try a smaller tile=") from e
    except InputError as e:
        if str(e).startswith(one_line(f"{source}: ")):  # the photo is damaged
            raise
        raise InputError(f"{source}: {e}") from e


def upscale_files(
    enlarge: Sequence[Enlarge],
    source: Path,
    output: Path,
    suffix: str | None = ".png",
    overwrite: bool = False,
    made_by: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Upscale a file, or a folder with its sub-folders. A file that fails does not stop the others.

    Args:
        enlarge: :func:`upscale_file` with all but its files and ``report``, one for each device.
        source: photo, or folder of photos.
        output: folder of the results, with the sub-folders of ``source``; for a single photo also a file.
        suffix: of the results; None: each photo's own.
        overwrite: False leaves existing results.
        made_by: what the results depend on, recorded in a folder (:func:`realsr.upscaling.output_paths.check_made_by`).

    Returns:
        The files written.

    Raises:
        InputError: nothing to upscale, results that were made otherwise and would stay, or (after all others are done)
            files that failed.
    """
    targets = targets_of(source, output, suffix)
    is_there = os.path.isfile  # Path's fails at names that are too long
    todo = {path: target for path, target in targets.items() if overwrite or not is_there(target)}
    folder = output not in targets.values()
    if folder and made_by is not None:
        check_made_by([target for path, target in targets.items() if path not in todo], output, made_by)
    check_writable(output if folder else output.parent)
    written: list[Path] = []
    failed: list[str] = []
    stopped = threading.Event()
    devices: Queue[Enlarge] = Queue()
    for make in enlarge:
        devices.put(make)

    def fail(line: str) -> None:
        failed.append(line)
        log.error("%s", line)

    def work(path: Path, target: Path) -> None:
        done = 0.0

        def report(share: float) -> None:
            nonlocal done
            if stopped.is_set():
                raise InterruptedError
            progress.advance(bar, share - done)
            done = share

        make = devices.get()
        try:
            report(0)  # from now on the remaining time is estimated
            make(path, target, report=report)
            if folder and made_by is not None:
                note_made_by(target, output, made_by)
            written.append(target)
        except InputError as e:
            fail(str(e))
        except OSError as e:
            if isinstance(e, InterruptedError) or e.errno in OF_THE_DISK:
                raise
            fail(f"{path}: {target} cannot be written ({e.strerror or e})")  # such as a name that is too long
        finally:
            devices.put(make)
        progress.advance(bar, 1 - done)

    with Progress(disable=not todo, speed_estimate_period=3600) as progress:  # a tile may take a minute
        bar = progress.add_task("upscaling", total=len(todo))
        if len(enlarge) == 1:  # in this thread, so that Ctrl-C ends it at once
            for path, target in todo.items():
                work(path, target)
        else:
            with ThreadPoolExecutor(len(enlarge)) as pool:
                try:
                    for future in as_completed([pool.submit(work, *item) for item in todo.items()]):
                        future.result()
                except BaseException:
                    stopped.set()
                    raise
    skipped = len(targets) - len(todo)
    there = f", {skipped} were there already and stay as they are (overwrite=true makes them anew)" if skipped else ""
    fails = f", {len(failed)} failed" if failed else ""
    log.info("%s written to %s%s%s; open it in a file browser", counted(len(written), "photo"), output, there, fails)
    if failed:
        count = f"{len(failed)} of {len(targets)} files failed: " if len(targets) > 1 else ""
        raise InputError(f"{count}{failed[0]}")
    return sorted(written)


def _write_behind(write: Callable[[Iterator[Band]], None], bands: Iterator[Band]) -> None:
    """Write bands in another thread while the next one is made in this; an error in one ends both.

    ``write`` fails if bands are missing. No error is stored: its traceback refers to frames that hold the photo, which
    a reference cycle would keep alive.
    """
    queue: Queue[Band | None] = Queue(1)

    def queued() -> Iterator[Band]:
        while (band := queue.get()) is not None:
            yield band

    with ThreadPoolExecutor(1) as pool:
        running = [pool.submit(write, queued())]
        try:
            for band in chain(bands, [None]):
                while not running[0].done():
                    with suppress(Full):
                        queue.put(band, timeout=0.1)
                        break
                else:
                    break  # it has failed
        except BaseException:
            with suppress(Empty):
                queue.get_nowait()
            queue.put_nowait(None)  # without waiting: a second Ctrl-C would leave the other thread for ever
            raise
        running.pop().result()


def seconds_a_megapixel(network: Network) -> float:
    """Seconds per megapixel of LR of a network on its device, by a trial of a second or less."""
    lr, seconds = torch.rand(1, 3, PROBE, PROBE, device=network.device), 0.0
    for _ in range(2):  # the first call also prepares, and compiles for images of this size
        start = time.perf_counter()
        float(network(lr).sum())  # waits for a GPU to finish
        seconds = time.perf_counter() - start
    return 1e6 * seconds / PROBE**2


def long_wait(pace: float, network: Network, tiles: Tiles, height: int, width: int) -> str:
    """A line about a photo of ``height x width`` that will take more than :data:`LONG` seconds; else nothing.

    ``pace`` is that of :func:`seconds_a_megapixel`; the overlap of tiles is counted.
    """
    fitted = tiles.fitted(network, height, width, network.device)
    parts = fitted.split(Part(0, height, 0, width), 2 * fitted.overlap)
    seconds = pace * sum(math.prod(fitted.seen(part, height, width).shape) for part in parts) / 1e6
    if seconds < LONG:
        return ""
    wait = f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
    line = f"{height * width / 1e6:.1f} megapixels, about {wait} at {pace:.0f} s a megapixel, overlap of tiles counted"
    if pace > SLOW and network.device.type == "cpu":
        line += "; the compact network (experiment=laptop trains it) takes a thirtieth of the full one"
    return line
