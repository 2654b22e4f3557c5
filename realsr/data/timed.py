"""A DataLoader that knows for how long its batches were waited for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader


class TimedLoader(DataLoader[Any]):
    """Counts the seconds, of which Lightning tells its profiler alone."""

    waited = 0.0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Batches."""
        batches = super().__iter__()
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - began
            if batch is None:
                return
            yield batch
