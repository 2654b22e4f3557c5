"""The table at the end of a Hydra multirun: a row for every run, from the metrics that it left."""

from __future__ import annotations

import csv
import io
import json
import logging
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from realsr.evaluate import HEADINGS, print_table
from realsr.images import atomic_write

log = logging.getLogger(__name__)


class SweepTable(Callback):
    """Prints the table and writes it as ``table.csv`` and ``table.md`` into the sweep's folder."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Collect ``metrics.json`` of every run of the sweep."""
        folder = Path(config.hydra.sweep.dir)
        rows = {
            path.parent.name: {key.removeprefix("val/"): value for key, value in json.loads(path.read_text()).items()}
            for path in sorted(folder.glob("*/metrics.json"), key=lambda path: path.stat().st_mtime)
        }
        if not any(rows.values()):
            log.warning("%s: no run left metrics, so there is no table", folder)
            return
        print_table(rows, f"validation of {len(rows)} runs")
        keys = [key for key in HEADINGS if any(key in row for row in rows.values())]
        cells = [["run", *(HEADINGS[key] for key in keys)]]
        cells += [[name, *(f"{row[key]:.4f}" if key in row else "" for key in keys)] for name, row in rows.items()]
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(cells)
        lines = ["| " + " | ".join(row) + " |" for row in cells]
        lines.insert(1, "|" + " --- |" * len(cells[0]))
        for name, content in (("table.csv", text.getvalue()), ("table.md", "\n".join(lines) + "\n")):
            with atomic_write(folder / name) as file:
                file.write(content.encode())
        print(f"table: {folder / 'table.md'}")
