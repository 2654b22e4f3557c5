"""``python -m realsr.app ckpt=FILE``: a page on this machine to try a model on photos; nothing of them is kept."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

from omegaconf import DictConfig

from realsr.imaging.encoding import check_quality
from realsr.runtime.config import command
from realsr.runtime.errors import InputError, at_least
from realsr.upscaling.server import DELETED, serve

log = logging.getLogger(__name__)


def _run(cfg: DictConfig) -> None:
    check_quality(cfg.quality)
    at_least(1, max_megabytes=cfg.max_megabytes, keep_minutes=cfg.keep_minutes)
    if cfg.auth is not None and not all(str(cfg.auth).partition(":")):
        raise InputError("auth: give NAME:PASSWORD, or nothing for a page without one")
    log.info("loading %s and a page to try it on photos", cfg.ckpt)
    with tempfile.TemporaryDirectory(prefix="realsr-app-", ignore_cleanup_errors=True) as root:
        serve(cfg, Path(root).resolve())


main = command("app", then=DELETED)(_run)

if __name__ == "__main__":
    main()
