"""What W&B leaves on disk of an offline run, read back."""

import json
import struct
import time
from pathlib import Path

import numpy as np
from PIL import Image
from wandb.proto.wandb_internal_pb2 import Record


def read_records(file: Path) -> list[Record]:
    """Of LevelDB's log format, in which W&B writes: a protobuf in each entry, an entry in one part or more."""
    data, at, entry, records = file.read_bytes(), 7, b"", []
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # no head fits at the end of a block
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        entry += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4) and at <= len(data):  # whole, or the last part
            records.append(Record.FromString(entry))
            entry = b""
    return records


class OfflineRun:
    """What a folder ``offline-run-*`` holds. W&B may still be writing there when a run is over, in its own process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (file,) = folder.glob("run-*.wandb")
        for _ in range(200):
            records = read_records(file)
            if any(record.HasField("exit") for record in records):
                break
            time.sleep(0.05)
        (self.run,) = [record.run for record in records if record.HasField("run")]
        self.rows = [_values(record.history.item) for record in records if record.HasField("history")]
        self.artifacts = [record.artifact for record in records if record.HasField("artifact")]
        updates = [_values(record.config.update) for record in records if record.HasField("config")]
        self.config = {key: value for update in updates for key, value in update.items()}

    def logged(self, key: str) -> dict[int, object]:
        """What was logged under a key, by generator step."""
        return {row["trainer/global_step"]: row[key] for row in self.rows if key in row}

    def pictures(self, key: str) -> dict[int, np.ndarray]:
        """The picture of a key, by generator step."""
        return {step: read_picture(self.folder / "files" / v["filenames"][0]) for step, v in self.logged(key).items()}

    def tables(self) -> list[list[dict[str, object]]]:
        """Each table's rows; pictures as arrays."""
        tables = []
        for artifact in self.artifacts:
            files = {entry.path: Path(entry.local_path) for entry in artifact.manifest.contents}
            content = json.loads(files["val/photos.table.json"].read_text())
            cells = [
                [read_picture(files[cell["path"]]) if isinstance(cell, dict) else cell for cell in row]
                for row in content["data"]
            ]
            tables.append([dict(zip(content["columns"], row, strict=True)) for row in cells])
        return tables


def _values(items) -> dict[str, object]:
    values: dict[str, object] = {}
    for item in items:
        *path, last = item.nested_key or [item.key]
        node = values
        for key in path:
            node = node.setdefault(key, {})
        node[last] = json.loads(item.value_json)
    return values


def read_picture(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))
