"""Where results go: never over a photo, never two to one name, never outside the output folder; how they were made."""

from __future__ import annotations

import json
import mimetypes
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image

from realsr.imaging.encoding import FORMATS
from realsr.runtime.errors import InputError
from realsr.runtime.files import EXTRAS, find_images

MADE_BY = ".made_by.jsonl"  # in a folder of results: by which network and options each was made


def targets_of(source: Path, output: Path, suffix: str | None) -> dict[Path, Path]:
    """The result's file of each photo; files in an ``output`` inside ``source`` are results of an earlier run.

    ``source`` is a photo, or a folder of photos; ``output`` a folder, or for a single photo a file, recognised by its
    suffix. Results have the ``suffix``, or each photo's own. Photos whose results would have the same name, since their
    own differ in the suffix alone, keep it in the name.

    Raises:
        InputError: nothing to upscale, a result would overwrite a photo, or lie outside ``output``.
    """
    if not (source.is_file() or source.is_dir()):
        what = "is neither a file nor a folder" if source.exists() else "no such file or folder"
        raise InputError(f"{source}: {what}")
    if _is_picture(output):
        if source.is_dir():
            raise InputError(f"output={output}: is the name of a picture, and {source} a folder; give a folder")
        if output.suffix.lower() not in FORMATS:
            known = " ".join(FORMATS)
            raise InputError(f"output={output}: cannot write {output.suffix}; use one of {known}, or a folder")
        if output.exists() and output.samefile(source):
            raise InputError(f"output={output}: is the photo itself, which would be overwritten; choose another")
        return {source: output}
    root, files = (source.parent, [source]) if source.is_file() else (source, find_images(source))
    own, inside = root.resolve(), output.resolve()
    if output.exists() and output.samefile(root):  # also where disks ignore the case of names
        raise InputError(f"output={output}: holds the photos themselves, which would be overwritten; choose another")
    if source.is_dir() and inside.is_relative_to(own):
        files = [path for path in files if not path.parent.resolve().is_relative_to(inside)]
        if not files:
            raise InputError(f"{source}: holds no photos but earlier results, those in {output}")
    targets = _named(files, root, output, suffix)
    for target in targets.values():
        folder = target.parent.resolve()
        if not folder.is_relative_to(inside):
            raise InputError(f"{target.parent}: is a link that leads out of {output}; remove it")
        if source.is_dir() and own.is_relative_to(inside) and folder.is_relative_to(own):
            raise InputError(f"output={output}: the result {target} would lie among the photos; choose another")
    return targets


def _is_picture(output: Path) -> bool:
    """Whether ``output`` is the name of a picture, of any format, and not of a folder.

    >>> _is_picture(Path("x.svg")), _is_picture(Path("large.v2"))
    (True, False)
    """
    suffix, (kind, _) = output.suffix.lower(), mimetypes.guess_type(output.name)
    known = suffix in {*EXTRAS, *Image.registered_extensions()} or (kind or "").startswith("image/")
    return known and not output.is_dir()


def _named(photos: Sequence[Path], root: Path, output: Path, suffix: str | None) -> dict[Path, Path]:
    """Results by photo, of different names even where disks ignore their case."""
    whole: set[Path] = set()  # photos that keep their suffix in the name
    while True:
        targets = {}
        for path in photos:
            own = path.suffix.lower()
            ending = suffix or (own if own in FORMATS else ".png")
            plain = output / path.relative_to(root).with_suffix(ending)
            targets[path] = plain.with_name(path.name + ending) if path in whole else plain
        uses = Counter(str(target).lower() for target in targets.values())
        alike = {path for path, target in targets.items() if uses[str(target).lower()] > 1}
        if alike <= whole:
            return targets
        whole |= alike  # whose longer names may collide again


def note_made_by(target: Path, output: Path, made_by: Mapping[str, Any]) -> None:
    """Append to the record of ``output`` how a result in it was made."""
    line = json.dumps({str(target.relative_to(output)): made_by})
    with (output / MADE_BY).open("a", encoding="utf-8") as file:  # so that of several programs none loses a line
        file.write(f"\n{line}")  # after one that may be cut off


def check_made_by(targets: Iterable[Path], output: Path, made_by: Mapping[str, Any]) -> None:
    """Raise InputError if some results in the folder ``output`` are recorded as made otherwise.

    Results without a record pass. The ``ckpt`` of ``made_by``, which a result depends on, is told, but not compared.
    """
    record: dict[str, Any] = {}
    with suppress(FileNotFoundError, NotADirectoryError):
        for line in (output / MADE_BY).read_text("utf-8", "replace").splitlines():
            with suppress(ValueError, AttributeError):  # a line that was cut off, or made by hand
                record |= {name: made for name, made in json.loads(line).items() if isinstance(made, dict)}
    found = [record.get(str(target.relative_to(output)), made_by) for target in targets]
    if others := [was for was in found if any(was.get(key) != made_by[key] for key in made_by if key != "ckpt")]:
        told = " ".join(
            f"{key}={value}" for key, value in others[0].items() if key == "ckpt" or value != made_by.get(key)
        )
        raise InputError(
            f"{output}: holds {len(others)} results that were made otherwise, with {told}; choose another output=, or "
            "make them anew with overwrite=true"
        )
