"""Photos as HR images: cleaned up, decoded once, cut into crops for training."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import albumentations as A

from realsr.data.datasets import HRCrops
from realsr.data.store import StoredImage, prepare_hr, stored_hr
from realsr.runtime.errors import InputError, at_least
from realsr.runtime.files import find_images


@dataclass(frozen=True)
class HRPhotos:
    """HR images of the camera's photos (source) and of clean ones.

    Args:
        store_dir: folder for decoded images.
        augment: of the crops, see :class:`realsr.data.datasets.HRCrops`.
        store_limit: GB that ``store_dir`` may hold; None: 95 % of the free space.
        cleanup: factor by which source photos are downscaled, which takes noise and blur away (RealSR, section 3.2).
        source_share: share of the crops that come from source photos, where there are clean ones too; with 0 source
            photos are not decoded.
    """

    store_dir: str
    augment: A.Compose
    store_limit: float | None = None
    cleanup: float = 0.5
    source_share: float = 0.5

    def __post_init__(self) -> None:
        at_least(0, "data.photos.", store_limit=self.store_limit or 0)
        if not 0 <= self.source_share <= 1:
            raise InputError(f"data.photos.source_share={self.source_share} is no share, give 0 to 1")
        if not 0 < self.cleanup <= 1:
            raise InputError(
                f"data.photos.cleanup={self.cleanup}: source photos are cleaned by making them smaller, give 0 to 1"
            )

    def prepare(self, source_dir: str | None, clean_dir: str | None, crop_size: int, workers: int) -> None:
        """Decode the photos of both folders, but those too small for a crop; goes on where it was interrupted.

        Raises:
            InputError: a folder holds no photo, or there is no room for the images.
        """
        sets = [(photos, factor) for photos, factor in self._sets(source_dir, clean_dir) if photos]
        prepare_hr(sets, Path(self.store_dir), crop_size, self.store_limit, workers)

    def stored(
        self, source_dir: str | None, clean_dir: str | None, crop_size: int
    ) -> tuple[list[StoredImage], list[StoredImage]]:
        """The source and the clean images that :meth:`prepare` has made; raises InputError if there is none."""
        store = Path(self.store_dir)
        sets = self._sets(source_dir, clean_dir)
        source, clean = (stored_hr(photos, store, factor, crop_size) for photos, factor in sets)
        if not source and not clean:
            raise InputError(
                f"no photo is large enough for HR crops of {crop_size} pixels (source photos are scaled by "
                f"{self.cleanup:g} first); lower data.crop_size, or give larger photos"
            )
        return source, clean

    def _sets(self, source_dir: str | None, clean_dir: str | None) -> list[tuple[list[Path], float]]:
        """Source and clean photos, each with the factor that they are scaled by."""
        folders = None if clean_dir and not self.source_share else source_dir, clean_dir
        source, clean = ([] if folder is None else find_images(folder) for folder in folders)
        return [(source, self.cleanup), (clean, 1.0)]

    def crops(self, source: Sequence[StoredImage], clean: Sequence[StoredImage], side: int, seed: int) -> HRCrops:
        """Random crops of ``side`` pixels of these images."""
        return HRCrops(source, clean, self.source_share, side, seed, self.augment)
