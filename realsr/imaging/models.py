"""Which cameras photos are of, told by their headers."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from realsr.imaging.damage import naming_damage
from realsr.imaging.heif import heif_exif
from realsr.imaging.opening import open_image
from realsr.imaging.tags import Tags, camera_name
from realsr.runtime.errors import InputError
from realsr.runtime.files import HEIC, RAW, warn_once


def camera_model(path: Path) -> str:
    """The camera's name by EXIF, such as ``NIKON D800``; empty for files that do not say, or cannot be read."""
    try:
        if path.suffix.lower() in HEIC:
            with naming_damage(path):
                return camera_name(Tags(heif_exif(path)))
        if path.suffix.lower() in RAW:
            with path.open("rb") as file:
                return camera_name(Tags(file))
        return camera_name(Tags(open_image(path).exif or b""))
    except (InputError, OSError):
        return ""  # what reads the photo says what is wrong with it


def tell_cameras(photos: Sequence[Path], limit: int = 5) -> None:
    """Warn, once, where photos are of several cameras, with how many are of each."""
    models = Counter(filter(None, map(camera_model, photos))).most_common()
    if len(models) > 1:
        names = [f"{model} ({count} photo{'s' if count > 1 else ''})" for model, count in models[:limit]]
        named = ", ".join([*names, "..."] if len(models) > limit else names)
        folder = os.path.commonpath([photo.parent for photo in photos])
        warn_once(
            f"{folder}: photos of {len(models)} cameras: {named}; a model learns one camera best, give a folder of each"
        )
