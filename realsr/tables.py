"""What an evaluation says in numbers: means with their intervals, differences, the paper's figures beside them."""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from realsr.errors import InputError
from realsr.files import atomic_write
from realsr.intervals import bootstrap_interval, paired_interval
from realsr.metrics import MEASURES

Results = dict[str, dict[str, dict[str, float]]]  # method -> photo -> metric -> value
FEWEST = 4  # photos that an interval takes: of fewer it would be from the worst to the best


def common_photos(results: Results) -> list[str]:
    """The photos that every method has results of, on which alone they compare; methods without any do not count."""
    columns = [column for column in results.values() if column]
    return [photo for photo in (columns[0] if columns else ()) if all(photo in column for column in columns)]


def measured(results: Results) -> list[str]:
    """Metrics that any photo has, in the order of tables."""
    found = {key for column in results.values() for values in column.values() for key in values}
    return [key for key in MEASURES if key in found]


def values_of(results: Results, method: str, key: str) -> list[float]:
    """One metric of a method, of the common photos of which every method has it (there may be no edge to measure)."""
    if not results[method]:
        return []
    every = [of for of in results.values() if of]
    return [
        results[method][photo][key]
        for photo in common_photos(results)
        if not any(math.isnan(of[photo].get(key, math.nan)) for of in every)
    ]


def means(results: Results) -> dict[str, dict[str, float]]:
    """Mean over the common photos of every metric of every method."""
    return {m: {key: statistics.fmean(v) for key, v in keys.items() if v} for m, keys in _by_metric(results).items()}


def intervals(results: Results) -> dict[str, dict[str, tuple[float, float]]]:
    """95 % bootstrap intervals of the means; none of fewer than four photos."""
    found = _by_metric(results).items()
    return {m: {key: bootstrap_interval(v) for key, v in keys.items() if len(v) >= FEWEST} for m, keys in found}


def _by_metric(results: Results) -> dict[str, dict[str, list[float]]]:
    return {m: {key: values_of(results, m, key) for key in measured(results)} for m in results}


def summary(results: Results, paper: Mapping[str, Any]) -> list[list[str]]:
    """Cells of the table: a head, then a row a method, then the paper's methods that are not among ours.

    Args:
        results: by method and photo.
        paper: ``rows`` of a paper's figures by method and metric; may be empty.
    """
    mean, spread, rows = means(results), intervals(results), paper.get("rows", {})
    keys = [key for key in measured(results) if any(key in m for m in mean.values())]
    cited = [key for key in MEASURES if any(key in row for row in rows.values())]
    cells = [["method", *(MEASURES[key].name for key in keys), *(f"paper's {MEASURES[key].name}" for key in cited)]]
    for method in [*results, *(row for row in rows if row not in results)]:
        ours = [with_interval(key, mean.get(method, {}), spread.get(method, {})) for key in keys]
        theirs = [MEASURES[key].written(row[key]) if key in (row := rows.get(method, {})) else "" for key in cited]
        cells.append([method, *ours, *theirs])
    return cells


def check_paper(paper: Mapping[str, Any]) -> None:
    """Raise InputError if a paper's figures are not ``source``, and ``rows`` of numbers by method and metric."""
    rows = paper.get("rows", {})
    whole = isinstance(rows, Mapping) and all(
        isinstance(row, Mapping) and all(type(value) in (int, float) for value in row.values()) for row in rows.values()
    )
    if not whole or (rows and not isinstance(paper.get("source"), str)):
        raise InputError("data.paper: give source, a text, and rows, numbers by method and metric, as in df2k_val.yaml")
    if unknown := {key for row in rows.values() for key in row} - MEASURES.keys():
        raise InputError(f"data.paper: {min(map(str, unknown))} is none of the metrics {', '.join(MEASURES)}")


def with_interval(key: str, mean: Mapping[str, float], spread: Mapping[str, tuple[float, float]]) -> str:
    """``26.78 (26.10 to 27.40)``, or the mean alone, or nothing."""
    if key not in mean:
        return ""
    bounds = " to ".join(MEASURES[key].written(bound) for bound in spread.get(key, ()))
    return MEASURES[key].written(mean[key]) + (f" ({bounds})" if bounds else "")


def differences(results: Results) -> list[list[str]]:
    """Cells of a second table: how far from the first method every other is, and on how many photos it is better.

    Empty where there is only one method, or nothing of which one direction is better.
    """
    keys = _compared(results)
    if not keys:
        return []
    (first, base), *others = results.items()
    photos = common_photos(results)
    cells = [[f"against {first}", *(MEASURES[key].name for key in keys)]]
    for method, of in others:
        if of:
            cells.append([method, *(_difference(key, [(of[p], base[p]) for p in photos]) for key in keys)])
    return cells


def _compared(results: Results) -> list[str]:
    """Metrics by which some method is better or worse than the first."""
    first, *others = results
    if not any(results[method] for method in others):
        return []
    return [key for key in measured(results) if MEASURES[key].better and values_of(results, first, key)]


def _difference(key: str, photos: Sequence[tuple[Mapping[str, float], Mapping[str, float]]]) -> str:
    """``+1.10 (+0.20 to +1.90), 3 of 4`` of two methods' values of the same photos."""
    pairs = [(a.get(key, math.nan), b.get(key, math.nan)) for a, b in photos]
    pairs = [(a, b) for a, b in pairs if math.isfinite(a) and math.isfinite(b)]
    if not pairs:
        return ""
    of, (ours, others) = MEASURES[key], zip(*pairs, strict=True)
    change = of.written(statistics.fmean(ours) - statistics.fmean(others), "+")
    bounds = " to ".join(of.written(bound, "+") for bound in paired_interval(ours, others))
    spread = f" ({bounds})" if len(pairs) >= FEWEST else ""
    return f"{change}{spread}, {sum(of.better * (a - b) > 0 for a, b in pairs)} of {len(pairs)}"


def footnotes(results: Results, paper: Mapping[str, Any], notes: Sequence[str] = ()) -> list[str]:
    """What has to be known to read the tables; ``notes`` come first."""
    photos, every = common_photos(results), {photo for column in results.values() for photo in column}
    notes = list(notes)
    if len(photos) >= FEWEST:
        notes.append("In brackets: 95 % bootstrap interval of the mean over images.")
    if _compared(results):
        notes.append(f"n of {len(photos)}: on how many images it is better than {next(iter(results))}.")
    if len(photos) < len(every):
        notes.append(f"Means over the {len(photos)} of {len(every)} images that all methods have.")
    if paper.get("rows"):
        notes.append(f"The paper's figures: {paper['source'].rstrip('.')}.")
    if "noise" in measured(results):
        notes.append("Noise left: in calm places, in levels of 255. Width of edges: median, in pixels of the result.")
    return notes


def print_table(results: Results, title: str, paper: Mapping[str, Any], notes: Sequence[str] = ()) -> None:
    """Both tables on the terminal, intervals below the means, and what they mean."""
    console = Console(markup=False, emoji=False)  # titles and sources are text

    def fitting(text: str) -> str:
        """As the terminal can show it, which may know neither the minus sign nor infinity."""
        try:
            return text.encode(console.encoding).decode(console.encoding)
        except UnicodeError:
            plain = text.replace("−", "-").replace("∞", "inf")
            return plain.encode(console.encoding, "replace").decode(console.encoding)

    for name, (head, *rows) in zip((fitting(title), None), tables(results, paper), strict=False):
        table = Table(title=name)
        for number, heading in enumerate(head):
            table.add_column(fitting(heading), justify="right" if number else "left")
        for row in rows:
            table.add_row(*(fitting(cell).replace(" (", "\n(").replace(", ", "\n") for cell in row))
        console.print(table)
    for line in footnotes(results, paper, notes):
        console.print(fitting(line), highlight=False)


def tables(results: Results, paper: Mapping[str, Any]) -> list[list[list[str]]]:
    """The :func:`summary`, and the :func:`differences` where there are some."""
    return [cells for cells in (summary(results, paper), differences(results)) if cells]


def write_tables(results: Results, folder: Path, paper: Mapping[str, Any], notes: Sequence[str] = ()) -> None:
    """``table.md``, ``images.csv`` (a line for every method and photo) and ``metrics.json`` (all of it).

    JSON has no name for what is not finite: there it is null.
    """
    texts = []
    for head, *rows in tables(results, paper):
        lines = [head, ["---"] * len(head), *rows]
        texts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    texts.append("\n".join(f"- {line}" for line in footnotes(results, paper, notes)))
    everything = {"mean": means(results), "interval": intervals(results), "images": results}
    contents = {
        "table.md": "\n\n".join(filter(None, texts)) + "\n",
        "images.csv": _csv(results),
        "metrics.json": json.dumps(_finite(everything), indent=1, allow_nan=False),
    }
    for name, content in contents.items():
        with atomic_write(folder / name) as file:
            file.write(content.encode("utf-8", "replace"))  # names of files that are no text


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _csv(results: Results) -> str:
    keys = measured(results)
    lines: list[Sequence[Any]] = [["method", "image", *keys]]
    for method, photos in results.items():
        lines += [[method, photo, *(values.get(key, "") for key in keys)] for photo, values in photos.items()]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()
