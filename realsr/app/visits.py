"""What a page that is open in a browser has on this machine: a private folder, gone when the page is closed."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from realsr.errors import InputError

Pair = tuple[str, str]  # the files of the pictures before and after


class Visit:
    """An open page.

    Attributes:
        folder: of its files, for this user alone.
        source: its photo, None before there is one.
        views: the pictures to look at, by what they show.
        stop: set when the work that was begun last is no longer wanted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source: Path | None = None
        self.views: dict[str, Pair] = {}
        self.stop = threading.Event()

    def begin(self) -> None:
        """Have new work wanted, and what went before not any more."""
        self.stop.set()
        self.stop = threading.Event()

    def take(self, upload: Path) -> Path:
        """Make an uploaded file its photo, moved into its folder; what was there before is deleted.

        Raises:
            InputError: it is gone, since it is old or another page took the same one just now.
        """
        self.clear()
        try:
            self.source = upload.replace(self.folder / upload.name)
        except OSError as e:
            raise InputError(f"{upload.name}: the upload is not there any more; drop it again") from e
        return self.source

    def new_results(self) -> Path:
        """An empty folder for what is made of the photo; results of before are deleted."""
        self.views = {}
        folder = self.folder / "results"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    def clear(self) -> None:
        """Delete its files."""
        self.stop.set()
        self.source, self.views = None, {}
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


class Visits:
    """All open pages, by the name that each browser gave to its session.

    Args:
        root: a private folder that is deleted in the end.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._open: dict[str, Visit] = {}
        self._lock = threading.Lock()
        self._working: set[Visit] = set()

    def visit(self, session: str) -> Visit:
        """The visit of a session, opened if need be."""
        with self._lock:
            if session not in self._open:
                # the session's name is the browser's, and may be anything: it is not in the folder's
                self._open[session] = Visit(Path(tempfile.mkdtemp(dir=self._root)))
            return self._open[session]

    def leave(self, session: str) -> None:
        """Stop a session's work and delete its files."""
        with self._lock:
            visit = self._open.pop(session, None)
        if visit is not None:
            visit.stop.set()
            shutil.rmtree(visit.folder, ignore_errors=True)

    @contextmanager
    def work(self, session: str) -> Iterator[Visit]:
        """A visit during long work, after which nothing is left of it if the page was closed meanwhile.

        Raises:
            InputError: it has no photo (any more).
        """
        visit = self.visit(session)
        self._working.add(visit)
        try:
            if visit.source is None or not visit.source.exists():
                raise InputError("the photo was deleted, since the page was closed or long unused; drop it again")
            visit.source.touch()
            yield visit
        finally:
            self._working.discard(visit)
            if self._open.get(session) is not visit:
                shutil.rmtree(visit.folder, ignore_errors=True)

    def sweep(self, seconds: float) -> None:
        """Delete files of any visit, and uploads that no visit took, once they are so old."""
        for folder, _, names in os.walk(self._root):  # which minds no folder that its visit deletes just now
            for path in (Path(folder, name) for name in names):
                with suppress(OSError):  # likewise, or in use
                    if time.time() - path.stat().st_mtime > seconds:
                        path.unlink()

    def close(self, seconds: float = 3) -> bool:
        """Stop all work, delete all files and the root.

        Args:
            seconds: to wait for work to stop, which it does after the tile in hand.

        Returns:
            Whether it has stopped.
        """
        for visit in list(self._open.values()):
            visit.stop.set()
        end = time.monotonic() + seconds
        while self._working and time.monotonic() < end:
            time.sleep(0.05)
        shutil.rmtree(self._root, ignore_errors=True)
        return not self._working
