"""One line that names an image file and says what is wrong with it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import pyvips

from realsr.runtime.errors import InputError

_UNSUPPORTED = re.compile(r"[^;]*(?:support|configured|implement|annot handle)[^;]*")


def check_pixels(path: Path, height: int, width: int, most_pixels: int) -> None:
    """Raise InputError for an image without a pixel, or with more than ``most_pixels``, which memory may not hold."""
    if min(height, width) < 1:
        raise InputError(f"{path}: has {width} x {height} pixels, the file is damaged")
    if (pixels := height * width) > most_pixels:
        size = f"{pixels / 1e6:.0f} megapixels, at most {most_pixels / 1e6:.0f}"
        raise InputError(f"{path}: has {size} are read; cut it into parts or give max_megapixels")


@contextlib.contextmanager
def naming_damage(path: Path) -> Iterator[None]:
    """Raise any exception of a decoder, which a damaged file may cause, as an InputError that names the file."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError as e:
        raise InputError(f"{path}: no such file") from e
    except (PermissionError, IsADirectoryError) as e:
        raise InputError(f"{path}: cannot be read ({e.strerror})") from e
    except MemoryError as e:
        raise InputError(f"{path}: does not fit into memory, or its file is damaged") from e
    except Exception as e:
        text = e.detail if isinstance(e, pyvips.Error) else str(e)
        reason = "; ".join(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))[:200]
        if isinstance(e, pyvips.Error) and (missing := _UNSUPPORTED.search(reason)):
            raise InputError(f"{path}: is of a kind that is not read ({missing[0].strip()}); save it in another") from e
        raise InputError(f"{path}: cannot be decoded, the file is damaged ({reason or type(e).__name__})") from e
