"""A pool on disk: a folder of ``<photo>-<hash>.npz`` files, one for each photo.

A file holds arrays and, as the JSON text ``manifest``, how they were made: the photo's name and SHA-256, settings,
version. One file a photo makes every write atomic, every run resumable and every pool mergeable: copy the files
together.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from realsr.pools.interchange import checked_kernel, is_foreign, kernel_files, read_kernels
from realsr.runtime.errors import InputError
from realsr.runtime.files import atomic_write, file_hash

Arrays = dict[str, npt.NDArray[Any]]
FIELDS: dict[str, tuple[str, Callable[[Any], bool]]] = {  # of a manifest; a file made by hand may hold anything
    "manifest": ("a dictionary", lambda value: isinstance(value, dict)),
    "photo": ("a name", lambda value: isinstance(value, str)),
    "sha256": ("a text", lambda value: isinstance(value, str)),
    "settings": ("a dictionary", lambda value: isinstance(value, dict)),
    "confidence": ("0 to 1", lambda value: 0 <= value <= 1),
    "reasons": ("a list of texts", lambda value: isinstance(value, list) and {*map(type, value)} <= {str}),
    "blur": (
        "a covariance (2, 2)",
        lambda value: np.shape(value) == (2, 2) and bool(np.isfinite(np.linalg.cholesky(value)).all()),
    ),
}


@dataclass(frozen=True)
class Entry:
    """One file of a pool: kernels, tiles, tables and more by name; as plain JSON values, how they were made."""

    path: Path
    arrays: Arrays
    manifest: dict[str, Any]

    @property
    def settings(self) -> dict[str, Any]:
        """What the entry was made with besides its photo."""
        return self.manifest.get("settings", {})

    @property
    def confidence(self) -> float:
        """The estimator's, in [0, 1]; infinity where it is not known."""
        return self.manifest.get("confidence", math.inf)

    @property
    def photo(self) -> str:
        """The photo's name, or the file's if it has none."""
        return self.manifest.get("photo", self.path.stem)

    @classmethod
    def read(cls, path: Path) -> Entry:
        """Read one file; raises InputError if it is damaged, is no pool file or cannot be read."""
        if path.exists() and not path.is_file():  # reading a pipe would wait for ever
            raise InputError(f"{path}: is no file; delete it, and it will be made again")
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files if name != "manifest"}
                manifest = json.loads(str(file["manifest"])) if "manifest" in file.files else {}
            for name, array in arrays.items():
                if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
                    raise ValueError(f"{name} is no array of real numbers")
        except PermissionError as e:
            raise InputError(f"{path}: cannot be read ({e.strerror}); give yourself the permission") from e
        except (OSError, ValueError, EOFError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as e:
            raise InputError(f"{path}: is damaged or no pool file ({e}); delete it, it will be made again") from e
        fields = manifest if isinstance(manifest, dict) else {"manifest": manifest}
        for name, (what, fits) in FIELDS.items():
            with suppress(TypeError, ValueError):
                if name not in fields or fits(fields[name]):
                    continue
            value = f"{fields[name]!r:.40}"
            raise InputError(f"{path}: in its manifest {name} is {value}, not {what}; delete the file or mend it")
        return cls(path, arrays, manifest)

    def write(self) -> None:
        """Write the file, whole or not at all."""
        with atomic_write(self.path) as file:
            np.savez(file, manifest=np.array(json.dumps(self.manifest)), **self.arrays)  # type: ignore[arg-type]


def read_entries(folder: str | Path, kind: str) -> Iterator[Entry]:
    """The files of a ``kernel``, ``noise`` or ``JPEG`` pool by their names; only the first of each photo.

    Raises:
        InputError: there is no file, or one is damaged.
    """
    folder = Path(folder)
    paths = sorted(folder.glob("*.npz"))
    if not paths:
        state = "is empty" if folder.is_dir() else "does not exist"
        fill = f"python -m realsr.{'estimate' if kind == 'kernel' else 'collect'} data.source_dir=PHOTOS"
        raise InputError(f"{folder}: the {kind} pool {state}; fill it with {fill} pool_dir={folder.parent}")
    seen: set[str | None] = set()  # a photo that was renamed, or copied from one pool to another, has several files
    for entry in map(Entry.read, paths):
        digest = entry.manifest.get("sha256")
        if digest is None or digest not in seen:
            yield entry
        seen.add(digest)


def kernel_entries(folder: str | Path, scale: int) -> Iterator[Entry]:
    """The files of a kernel pool, or each kernel of another program, with a checked ``x<scale>``."""
    if is_foreign(folder):
        for path, photo, kernel in read_kernels(folder, scale):
            yield Entry(path, {f"x{scale}": kernel}, {"photo": photo})
        return
    for entry in read_entries(folder, "kernel"):
        if f"x{scale}" not in entry.arrays:
            have = ", ".join(sorted(name for name in entry.arrays if name.startswith("x"))) or "nothing"
            raise InputError(f"{entry.path}: has no x{scale} kernel, only {have}; estimate with that scale")
        for name in {f"x{scale}", "response"} & set(entry.arrays):
            entry.arrays[name] = checked_kernel(entry.arrays[name], entry.path)
        yield entry


def pool_record(folder: str | Path) -> dict[str, Any]:
    """The content of a pool, or of a path with kernels of another program, in few plain bytes, for a checkpoint.

    Returns:
        ``files``: for each file by its name the manifest, and as ``content`` the CRC-32 of the arrays (for a file of
        another program its SHA-256). ``shared``: the fields that are the same in all manifests.
    """
    folder = Path(folder)
    if is_foreign(folder):
        top = folder if folder.is_dir() else folder.parent
        files = {str(path.relative_to(top)): {"content": file_hash(path)} for path in kernel_files(folder)}
        return {"shared": {}, "files": files}
    files = {}
    for path in sorted(folder.glob("*.npz")):
        with np.load(path, allow_pickle=False) as file:  # which reads an array only when it is asked for it
            manifest = json.loads(str(file["manifest"])) if "manifest" in file.files else {}
            sums = [f"{item.CRC:08x}" for item in file.zip.infolist() if item.filename != "manifest.npy"]
        files[path.name] = {**manifest, "content": "".join(sums)}
    first = next(iter(files.values()), {})
    shared = {name: value for name, value in first.items() if all(f.get(name) == value for f in files.values())}
    rest = {path: {k: v for k, v in file.items() if k not in shared} for path, file in files.items()}
    # read anew as one text, the files have one string for a field's name between them, which is saved once
    return json.loads(json.dumps({"shared": shared, "files": rest}))


def pool_changes(was: dict[str, dict[str, Any]], now: dict[str, dict[str, Any]]) -> list[str]:
    """Files that differ between two states of the pools, each ``pool/file (gone)``, ``(new)`` or ``(changed)``.

    Both states have a :func:`pool_record` by pool. A pool that only one of them has is left out: the configs differ.

    >>> was, now = ({"kernels": {"shared": {}, "files": {name: {"content": "1"}}}} for name in ("a.npz", "b.npz"))
    >>> pool_changes(was, now)
    ['kernels/a.npz (gone)', 'kernels/b.npz (new)']
    """
    changes = []
    for pool in sorted(was.keys() & now.keys()):
        old, new = ({k: {**of["shared"], **file} for k, file in of["files"].items()} for of in (was[pool], now[pool]))
        for name in sorted({*old, *new}):
            if old.get(name) != new.get(name):
                state = "gone" if name not in new else "new" if name not in old else "changed"
                changes.append(f"{pool}/{name} ({state})")
    return changes
