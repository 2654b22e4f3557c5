"""Tables of an evaluation: means with their intervals, differences, and the paper's figures beside them."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Column, Table
from scipy import stats

from realsr.runtime.errors import InputError
from realsr.runtime.files import write_file

Cells = list[list[str]]  # a head, then rows
FEWEST = 4  # images that an interval needs: with fewer it would reach from the worst to the best


@dataclass(frozen=True)
class Metric:
    """A metric's name, digits and unit; ``better`` is 1 where higher is better, -1 where lower is, 0 where neither is.

    >>> psnr = Metric("PSNR", 2, 1, "dB")
    >>> psnr.heading, psnr.written(26.784), psnr.written(0.5, "+", (0.1, 0.9)), psnr.written(math.inf)
    ('PSNR in dB, higher is better', '26.78', '+0.50 (+0.10 to +0.90)', '∞')
    """

    name: str
    digits: int
    better: int
    unit: str = ""

    @property
    def heading(self) -> str:
        """Name, unit and direction."""
        better = {1: ", higher is better", -1: ", lower is better", 0: ""}[self.better]
        return self.name + (f" in {self.unit}" if self.unit else "") + better

    def written(self, value: float | None, sign: str = "", bounds: tuple[float, float] | None = None) -> str:
        """The value, with ``sign="+"`` also where it is positive, and its interval; a dash where it is missing."""
        if bounds is not None:
            return f"{self.written(value, sign)} ({' to '.join(self.written(bound, sign) for bound in bounds)})"
        if value is None:
            return "–"
        if math.isnan(value):
            return "NaN"
        rounded = round(value, self.digits) + 0.0  # without the sign of a zero
        return f"{rounded:{sign}.{self.digits}f}".replace("inf", "∞").replace("-", "−")


Results = Mapping[str, Mapping[str, Mapping[str, float]]]  # method -> image -> metric -> value
MEASURES = {  # in the order of tables; the last three are of photos without truth (evaluation/no_reference.py)
    "psnr": Metric("PSNR", 2, 1, "dB"),
    "psnr_y": Metric("PSNR-Y", 2, 1, "dB"),
    "ssim": Metric("SSIM", 4, 1),
    "ssim_y": Metric("SSIM-Y", 4, 1),
    "lpips": Metric("LPIPS", 4, -1),
    "niqe": Metric("NIQE", 2, -1),
    "noise": Metric("noise left", 2, 0, "levels"),
    "edges": Metric("width of edges", 2, 0, "pixels"),
}


class Tables(NamedTuple):
    """The cells of the means and, where there are some, of the differences; sentences that explain them; the figures.

    The mean is by method and metric, and so is its interval, where there are enough images.
    """

    cells: list[Cells]
    notes: list[str]
    mean: dict[str, dict[str, float]]
    interval: dict[str, dict[str, tuple[float, float]]]


def tabulate(results: Results, paper: Mapping[str, Any] | None = None, notes: Sequence[str] = ()) -> Tables:
    """Compare methods with the first on the images for which all have a value; those without any result are left out.

    ``paper`` has the ``source`` and ``rows`` of published figures, by method and metric; ``notes`` are the first notes.

    >>> results = {"bicubic": {"a": {"psnr": 25.0}, "b": {"psnr": 27.0}}, "mine": {"a": {"psnr": 26.0}}}
    >>> means, differences = tabulate(results).cells
    >>> means, differences[1]
    ([['method', 'PSNR'], ['bicubic', '25.00'], ['mine', '26.00']], ['mine', '+1.00, 1 of 1'])
    """
    paper, table, notes = paper or {}, frame(results), list(notes)
    compared = [method for method in results if results[method]]
    wide = {key: table.pivot(index="image", columns="method", values=key)[compared] for key in table.columns[2:]}
    values = {key: whole for key, of in wide.items() if len(whole := of.dropna())}
    mean = {m: {key: float(v[m].mean()) for key, v in values.items() if m in v} for m in results}
    many = {key: v for key, v in values.items() if len(v) >= FEWEST}
    interval = {m: {key: bootstrap_interval(v[m]) for key, v in many.items() if m in v} for m in results}
    cells = [summary(mean, interval, paper.get("rows", {})), differences(values, list(results))]
    images = table.groupby("image").size()
    common, every = (images == len(compared)).sum(), len(images)
    if many:
        notes.append("In brackets: 95 % bootstrap interval of the mean over images.")
    if cells[1]:
        notes.append(f"n of {common}: on how many images it is better than {next(iter(results))}.")
    if common < every:
        notes.append(f"Means over the {common} of {every} images that all methods have.")
    if paper.get("rows"):
        notes.append(f"The paper's figures: {paper['source'].rstrip('.')}.")
    if "noise" in values:
        notes.append("Noise left: in calm places, in levels of 255. Width of edges: median, in pixels of the result.")
    return Tables([table for table in cells if table], notes, mean, interval)


def frame(results: Results) -> pd.DataFrame:
    """A row for every method and image, a column for every metric; NaN where there is no value."""
    rows = [{"method": m, "image": image, **values} for m, of in results.items() for image, values in of.items()]
    keys = [key for key in MEASURES if any(key in row for row in rows)]
    return pd.DataFrame(rows, columns=["method", "image", *keys], dtype=object).astype(dict.fromkeys(keys, float))


def bootstrap_interval(values: Sequence[float] | pd.Series[float]) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over images, by percentiles (Efron and Tibshirani 1993, chapter 13).

    The same images are drawn for every method. The variance of training a method again is not in it. An infinite value,
    the PSNR of equal images, may make bounds infinite. The interval of a difference of two methods is much narrower
    than their own intervals, since the difficulty of the photos cancels.

    >>> bootstrap_interval([25.0, 26.0, 27.0, 30.0])
    (25.5, 29.0)
    """
    with np.errstate(invalid="ignore"):  # inf - inf
        found = stats.bootstrap((np.asarray(values),), np.mean, n_resamples=10_000, method="percentile", rng=0)
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def summary(
    mean: Mapping[str, Mapping[str, float]],
    interval: Mapping[str, Mapping[str, tuple[float, float]]],
    paper: Mapping[str, Mapping[str, float]],
) -> Cells:
    """A head, a row for each method, and a row for each of the paper's methods that is not among ours."""
    ours, cited = ([key for key in MEASURES if any(key in row for row in rows.values())] for rows in (mean, paper))
    cells = [["method", *(MEASURES[key].name for key in ours), *(f"paper's {MEASURES[key].name}" for key in cited)]]
    for method in dict.fromkeys([*mean, *paper]):
        cells.append([method])
        for keys, values, bounds in ((ours, mean, interval.get(method, {})), (cited, paper, {})):
            row = values.get(method, {})
            cells[-1] += [MEASURES[key].written(row[key], "", bounds.get(key)) if key in row else "" for key in keys]
    return cells


def differences(values: Mapping[str, pd.DataFrame], methods: Sequence[str]) -> Cells:
    """Differences from the first method, and the number of photos on which a method is better; may be empty."""
    first, *others = methods
    ranked = {MEASURES[key]: v for key, v in values.items() if MEASURES[key].better and first in v}
    cells = [[f"against {first}", *(metric.name for metric in ranked)]]
    for method in (method for method in others if any(method in v for v in ranked.values())):
        cells.append([method])
        for metric, v in ranked.items():
            gained = (v[method] - v[first])[np.isfinite]
            bounds = bootstrap_interval(gained) if len(gained) >= FEWEST else None
            count = f"{(metric.better * gained > 0).sum()} of {len(gained)}"
            cells[-1].append(f"{metric.written(gained.mean(), '+', bounds)}, {count}" if len(gained) else "")
    return cells if len(cells) > 1 else []


def check_paper(paper: Mapping[str, Any]) -> None:
    """Raise InputError if a paper's figures are not ``source``, and ``rows`` of numbers by method and metric."""
    rows = paper.get("rows", {})
    whole = isinstance(rows, Mapping) and all(isinstance(row, Mapping) for row in rows.values())
    kinds = {type(value) for row in rows.values() for value in row.values()} if whole else {str}
    if not kinds <= {int, float} or (rows and not isinstance(paper.get("source"), str)):
        raise InputError("testset.paper: give source, a text, and rows, numbers by method and metric (df2k_val.yaml)")
    for key in (key for row in rows.values() for key in row):
        if key not in MEASURES:
            raise InputError(f"testset.paper: {key} is none of the metrics {', '.join(MEASURES)}")


def print_tables(tables: Tables, title: str) -> None:
    """Both tables on the terminal, intervals below the means, and the notes."""
    for number, cells in enumerate(tables.cells):
        narrow = [[cell.replace(" (", "\n(").replace(", ", "\n") for cell in row] for row in cells]
        print_cells(narrow, "" if number else title, tables.notes if number == len(tables.cells) - 1 else ())


def print_cells(cells: Cells, title: str = "", lines: Sequence[str] = ()) -> None:
    """Print a table with lines below it; 160 columns wide where the output is no terminal."""
    console = Console(markup=False, emoji=False, highlight=False, width=None if sys.stdout.isatty() else 160)
    (first, *others), *rows = cells
    table = Table(first, *(Column(heading, justify="right") for heading in others), title=title or None)
    for row in rows:
        table.add_row(*row)
    with console.capture() as shown:
        console.print(table, *lines, sep="\n")
    text, encoding = shown.get(), console.encoding
    try:
        text.encode(encoding)
    except UnicodeError:  # a terminal that knows neither the minus sign nor infinity
        text = text.replace("−", "-").replace("∞", "inf").encode(encoding, "replace").decode(encoding)
    sys.stdout.write(text)


def markdown(cells: Cells) -> str:
    """The table in Markdown.

    >>> markdown([["run", "PSNR"], ["a", "25.00"]]).splitlines()
    ['| run | PSNR |', '| --- | --- |', '| a | 25.00 |']
    """
    rows = [[cell.replace("|", r"\|") for cell in row] for row in cells]
    return "\n".join(f"| {' | '.join(row)} |" for row in (rows[0], ["---"] * len(rows[0]), *rows[1:]))


def write_tables(tables: Tables, results: Results, folder: Path) -> None:
    """Write ``table.md``, ``images.csv`` (a line for every method and image) and ``metrics.json`` (all figures)."""
    parts = [*map(markdown, tables.cells), "\n".join(f"- {line}" for line in tables.notes)]
    figures = json.dumps({"mean": tables.mean, "interval": tables.interval, "images": results})
    strict = json.loads(figures, parse_constant=lambda name: None)  # JSON has no NaN and no infinity
    contents = {
        "table.md": "\n\n".join(filter(None, parts)) + "\n",
        "images.csv": frame(results).to_csv(index=False, na_rep="nan"),
        "metrics.json": json.dumps(strict, indent=1, allow_nan=False),
    }
    for name, content in contents.items():
        write_file(folder / name, content)
