"""HR images in shards: sets that outgrow one machine, read from a folder or through a bounded cache from a server.

A set is what ``python -m realsr.pack`` writes: WebDataset's tar files of losslessly compressed pieces of photos, and
``index.json``, which is written last. webdataset is what downloads; its streams and shuffle buffers are not used, since
what they yield depends on the number of workers and cannot be resumed. litdata was slow with a bounded cache.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import logging
import mmap
import re
import shlex
import tarfile
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from realsr.data.datasets import draw_seed
from realsr.data.tiles import Pixels
from realsr.errors import InputError

log = logging.getLogger(__name__)

INDEX = "index.json"
TOGETHER = 4  # shards whose images are mixed
EPOCHS = 2**41  # keys of the walk's draws count from here on, others stay below


class Shard(NamedTuple):
    """A file of a set, as the index describes it.

    Attributes:
        name: of the file.
        images: in it.
        size: in bytes.
        least: the shortest side of its images in pixels.
    """

    name: str
    images: int
    size: int
    least: int


class ShardSet(NamedTuple):
    """The content of ``index.json``.

    Attributes:
        shards: of the set.
        factor: by which photos were scaled before they were cut.
    """

    shards: list[Shard]
    factor: float


class ShardedImages:
    """The images of a sharded set, as :class:`realsr.data.datasets.HRCrops` takes them.

    Uniform draws from a set larger than the cache would fetch a shard for nearly every image. So the images have a
    turn: each epoch, all of them once, ``TOGETHER`` shards at a time, drawn anew from the seed. A shard is then fetched
    once an epoch and machine. The price: a batch is of a few thousand neighbours; packing mixes the photos before.

    Args:
        where: folder, or URL that webdataset opens (http, https, gs, hf; s3 by the ``aws`` command).
        factor: that the photos have to have been scaled by.
        min_size: of the images' shorter sides in pixels.
        cache: folder for what is fetched from a URL.
        limit: GB that the folder may hold; while several processes fetch, a shard more for each but one.
        seed: of the order.

    Raises:
        InputError: there is no such set, it is damaged or does not fit; or webdataset, which fetches, is missing.
    """

    def __init__(self, where: str, factor: float, min_size: int, cache: Path, limit: float, seed: int) -> None:
        self.where, self.cache, self.limit, self.seed = where.rstrip("/"), cache, int(limit * 1e9), seed
        shards, made = read_index(self.where)
        if made != factor:
            raise InputError(
                f"{where}: was packed with factor={made:g}, and {factor:g} is needed here; pack it anew with "
                f"factor={factor:g} (the clean set takes 1, the source set data.cleanup)"
            )
        if (least := min(shard.least for shard in shards)) < min_size:
            raise InputError(
                f"{where}: has images of {least} pixels, smaller than the crop of {min_size}; lower data.crop_size, or "
                f"pack it anew with min_size={min_size}"
            )
        self.shards, self.remote = shards, is_url(where)
        self.starts = np.cumsum([0, *(shard.images for shard in shards)])
        need = 2 * TOGETHER * max(shard.size for shard in shards)
        if self.remote and self.limit < min(need, sum(shard.size for shard in shards)):
            raise InputError(
                f"data.shard_cache_limit={limit:g} GB: {need / 1e9:.2g} are needed for the shards of {where} that are "
                "read at a time"
            )
        if self.remote:
            webdataset()
        else:
            for shard in shards:
                if not (path := Path(self.where) / shard.name).exists():
                    raise InputError(f"{path}: is missing, though the index names it; {_MEND}")
                _checked(path, shard)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, index: int) -> Pixels:
        """Image ``index`` in the order of the files, ``(H, W, 3)``."""
        shard = int(np.searchsorted(self.starts, index, "right")) - 1
        return _opened(self, shard).image(index - int(self.starts[shard]))

    def name(self, index: int) -> str:
        """For messages."""
        return f"{self.where}, image {index} in the order of the files"

    def in_turn(self, number: int) -> int:
        """The index of the image whose turn it is at ``number``, a function of it and the seed alone."""
        epoch, number = divmod(number, len(self))
        ends = _shard_order(self, epoch)[1]
        group = int(np.searchsorted(ends, number, "right"))
        before = int(ends[group - 1]) if group else 0
        return int(_group_order(self, epoch, group)[number - before])

    def file(self, shard: int) -> Path:
        """The shard's file on this machine, fetched if need be; it may be gone again where the cache is full."""
        wanted = self.shards[shard]
        if not self.remote:
            return Path(self.where) / wanted.name
        return _fetched(_url(self.where, wanted.name), self.cache, self.limit, wanted)


class _File:
    """An open shard: where its images lie, mapped into memory."""

    def __init__(self, path: Path, shard: Shard) -> None:
        _checked(path, shard)
        self.path = path
        try:
            with path.open("rb") as file:
                with tarfile.open(fileobj=file, mode="r:") as tar:
                    self.places = [(m.name, m.offset_data, m.size) for m in tar if m.isreg()]
                self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (tarfile.TarError, ValueError) as e:
            raise InputError(f"{path}: is damaged ({e}); {_MEND}") from e
        if len(self.places) != shard.images:
            raise InputError(f"{path}: holds {len(self.places)} images, not the index's {shard.images}; {_MEND}")

    def image(self, index: int) -> Pixels:
        name, start, size = self.places[index]
        try:
            with Image.open(io.BytesIO(self.map[start : start + size])) as image:
                return np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError, ValueError) as e:
            raise InputError(f"{self.path}: {name} is damaged ({e}); {_MEND}") from e


_MEND = "delete the file: it will be fetched again, or made again by python -m realsr.pack"


@functools.lru_cache(4 * TOGETHER)  # open files of a process: two sets, each at the seam of two groups
def _opened(images: ShardedImages, shard: int) -> _File:
    for _ in range(10):  # another process may empty the cache between the fetching and the opening
        try:
            return _File(images.file(shard), images.shards[shard])
        except FileNotFoundError:
            if not images.remote:
                break
    raise InputError(f"{images.file(shard)}: is gone; data.shard_cache_limit may be too small for so many processes")


@functools.lru_cache(16)
def _shard_order(images: ShardedImages, epoch: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """The epoch's order of the shards, and how many images come before the end of each group of them."""
    order = np.random.default_rng(draw_seed(images.seed, EPOCHS + epoch, 0)).permutation(len(images.shards))
    counts = np.diff(images.starts)[order]
    return order, np.add.reduceat(counts, np.arange(0, len(counts), TOGETHER)).cumsum()


@functools.lru_cache(16)
def _group_order(images: ShardedImages, epoch: int, group: int) -> npt.NDArray[Any]:
    """The order of the images of one group of shards."""
    shards = _shard_order(images, epoch)[0][group * TOGETHER : (group + 1) * TOGETHER]
    indices = np.concatenate([np.arange(images.starts[s], images.starts[s + 1]) for s in shards])
    return np.random.default_rng(draw_seed(images.seed, EPOCHS + epoch, 1 + group)).permutation(indices)


def is_url(where: str) -> bool:
    """Whether it is a URL and no folder."""
    return "://" in where


def webdataset() -> Any:
    """The module.

    Raises:
        InputError: it is not installed.
    """
    try:
        import webdataset.cache
    except ImportError as e:
        raise InputError("sharded sets are written and fetched by webdataset: pip install 'realsr[shards]'") from e
    return webdataset


def read_index(where: str) -> ShardSet:
    """What a set consists of.

    Args:
        where: folder or URL.

    Raises:
        InputError: there is no set, or its index cannot be read.
    """
    try:
        if is_url(where):
            with webdataset().gopen(_url(where, INDEX)) as stream:
                text = stream.read()
        else:
            text = (Path(where) / INDEX).read_bytes()
    except InputError:
        raise
    except (OSError, ValueError) as e:
        reason = "is no sharded set, it has no index.json" if isinstance(e, FileNotFoundError) else _short(e)
        raise InputError(f"{where}: {reason}; make one with python -m realsr.pack input=PHOTOS output=DIR") from e
    try:
        content = json.loads(text)
        shards = [Shard(s["name"], int(s["images"]), int(s["size"]), int(s["least"])) for s in content["shards"]]
        factor = float(content["factor"])
    except (ValueError, TypeError, KeyError, AttributeError) as e:
        raise InputError(f"{where}/{INDEX}: is damaged or of another program ({e!r}); {_MEND}") from e
    if not shards:
        raise InputError(f"{where}: is an empty set; pack it anew")
    return ShardSet(shards, factor)


def _url(where: str, name: str) -> str:
    url = f"{where.rstrip('/')}/{name}"
    return f"pipe:aws s3 cp --quiet {shlex.quote(url)} -" if url.startswith("s3://") else url


def _fetched(url: str, cache: Path, limit: int, shard: Shard) -> Path:
    """The file of a URL in the cache, whole; one process fetches it, others wait."""
    import filelock

    wds = webdataset()
    name = f"{hashlib.sha256(url.encode()).hexdigest()[:12]}-{shard.name}"
    files = wds.cache.FileCache(str(cache), url_to_name=lambda _: name, validator=None)
    locks = cache.with_name(f"{cache.name}.locks")  # beside it, where they are not cleaned away while they are held
    try:
        locks.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(locks / name):
            if not (cache / name).exists():
                with filelock.FileLock(locks / "room"):
                    _make_room(cache, limit - shard.size)
            path = Path(files.get_file(url))
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as e:
        raise InputError(f"{url}: {_short(e)}; the run goes on with ckpt=auto once it can be fetched") from e
    if path.stat().st_size != shard.size:
        path.unlink(missing_ok=True)
        raise InputError(f"{url}: gave a file of another size than the index says; upload the set again")
    return path


def _make_room(cache: Path, limit: int) -> None:
    """Delete what was fetched first, until the cache holds no more than ``limit`` bytes.

    webdataset's own cleaning gives up when another process deletes a file before it does.
    """
    files = []
    for path in cache.glob("*"):
        with suppress(FileNotFoundError):
            files.append((path.stat().st_ctime_ns, path.stat().st_size, path))
    excess = sum(size for _, size, _ in files) - limit
    for _, size, path in sorted(files):
        if excess > 0:
            path.unlink(missing_ok=True)
            excess -= size


def _short(error: Exception) -> str:
    """What went wrong, without the whole command that webdataset shows."""
    code = re.search(r"exit (\d+)", str(error))
    return f"cannot be fetched (exit code {code.group(1)})" if code else " ".join(str(error).split())


def _checked(path: Path, shard: Shard) -> None:
    if (size := path.stat().st_size) != shard.size:
        raise InputError(f"{path}: has {size} bytes, not the {shard.size} of the index, it was cut off; {_MEND}")
