"""What is wrong with an image file, in one line."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import pyvips

from realsr.runtime.errors import InputError

_UNSUPPORTED = re.compile(r"[^;]*(?:support|configured|implement|annot handle)[^;]*")


def check_pixels(path: Path, height: int, width: int, most_pixels: int) -> None:
    """Refuse what would take too much memory once decoded.

    Raises:
        InputError: the image has no pixel, or more than ``most_pixels``.
    """
    if min(height, width) < 1:
        raise InputError(f"{path}: has {width} x {height} pixels, the file is damaged")
    if (pixels := height * width) > most_pixels:
        size = f"{pixels / 1e6:.0f} megapixels, at most {most_pixels / 1e6:.0f}"
        raise InputError(f"{path}: has {size} are read; cut it into parts or give max_megapixels")


@contextlib.contextmanager
def naming_damage(path: Path) -> Iterator[None]:
    """What a decoder raises in a damaged file, which may be anything, as an InputError that names the file."""
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
        told = e.detail if isinstance(e, pyvips.Error) else str(e)
        reason = "; ".join(dict.fromkeys(line.strip() for line in told.splitlines() if line.strip()))[:200]
        if isinstance(e, pyvips.Error) and (missing := _UNSUPPORTED.search(reason)):
            raise InputError(f"{path}: is of a kind that is not read ({missing[0].strip()}); save it in another") from e
        reason = (
            reason
            if isinstance(e, (pyvips.Error, OSError, SyntaxError, ValueError))
            else f"{type(e).__name__}: {reason}"
        )
        told = f" ({reason})" if reason else ""
        raise InputError(f"{path}: cannot be decoded, the file is damaged{told}") from e
