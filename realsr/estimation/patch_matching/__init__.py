"""The default estimator: one photo's blur kernel by patches of the photo that look alike at two scales."""

from realsr.estimation.patch_matching.module import PatchMatching

__all__ = ["PatchMatching"]
