"""Camera models of photos, by their EXIF."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from realsr.imaging.extras import open_file
from realsr.imaging.opening import MOST_PIXELS
from realsr.imaging.tags import Tags, camera_name
from realsr.runtime.errors import InputError
from realsr.runtime.files import warn_once


def camera_model(path: Path) -> str:
    """The camera's name, for example ``NIKON D800``; empty for files that do not name it or cannot be read."""
    try:
        return camera_name(Tags(open_file(path, MOST_PIXELS).notes["exif"] or b""))
    except (InputError, OSError):
        return ""  # reading the photo reports what is wrong with it


def tell_cameras(photos: Sequence[Path], limit: int = 5) -> None:
    """Warn once if photos come from several cameras, with the number of photos of each."""
    models = Counter(filter(None, map(camera_model, photos))).most_common()
    if len(models) > 1:
        names = [f"{model} ({count} photo{'s' if count > 1 else ''})" for model, count in models[:limit]]
        named = ", ".join([*names, "..."] if len(models) > limit else names)
        folder = os.path.commonpath([photo.parent for photo in photos])
        warn_once(
            f"{folder}: photos of {len(models)} cameras: {named}; a model learns one camera best, give a folder of each"
        )
