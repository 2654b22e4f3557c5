"""The weights that a training starts from: a file, or published ones, which are downloaded once."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlparse

import torch

from realsr.runtime.errors import InputError
from realsr.runtime.files import file_hash

log = logging.getLogger(__name__)


def start_file(weights: str) -> Path:
    """The file with the weights; those with an address are downloaded into torch's hub cache once.

    The SHA-256 of the first download is kept beside the file and compared from then on.

    >>> start_file("compact_x4").name
    'compact_x4.safetensors'

    Args:
        weights: a path, an address of http or https, or the name of weights that come with the package.

    Raises:
        InputError: the file cannot be downloaded, or differs from the first download.
    """
    if not weights.startswith(("http://", "https://")):
        shipped = Path(__file__).parent / f"{weights}.safetensors"
        return shipped if shipped.parent == Path(__file__).parent and shipped.exists() else Path(weights)
    address = hashlib.sha256(weights.encode()).hexdigest()[:8]  # two publishers may use one name
    folder = Path(torch.hub.get_dir()) / "checkpoints" / f"realsr-{address}"
    file = folder / Path(urlparse(weights).path).name
    kept = file.with_name(f"{file.name}.sha256")
    if not file.exists():
        log.info("%s -> %s", weights, file)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(weights, str(file), kept.read_text() if kept.exists() else None)
        except (URLError, OSError, RuntimeError) as e:  # RuntimeError: another hash
            raise InputError(f"{weights}: cannot be downloaded ({e}); fetch it elsewhere and give start=FILE") from e
    found = file_hash(file)
    if not kept.exists():
        kept.write_text(found)
    if kept.read_text() != found:
        raise InputError(f"{file}: is not what was downloaded first (SHA-256 {kept.read_text()[:12]}...); delete it")
    return file
