"""``report.html`` of an evaluation: tables, a list of every photo, before/after sliders, pools, how it was made."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from realsr.evaluation.tables import MEASURES, Cells, Metric, Results
from realsr.reports.html import picture, write_page
from realsr.reports.pictures import Picture


@dataclass(frozen=True)
class Views:
    """The pictures of one photo.

    Attributes:
        name: of the photo in the results.
        pictures: ``(h, w, 3)`` uint8 of one size, by method, or by another name such as "ground truth".
        kernel: ``(h, w, 3)`` uint8, of the photo's estimated kernel, or None.
    """

    name: str
    pictures: Mapping[str, Picture]
    kernel: Picture | None = None


def report_evaluation(
    path: Path,
    title: str,
    tables: Sequence[Cells],
    notes: Sequence[str],
    views: Iterable[Views],
    results: Results,
    pools: Mapping[str, Sequence[Picture]],
    about: Mapping[str, str],
) -> None:
    """Write the page: one file, which needs no other and no network.

    Args:
        path: of the file.
        title: heading of the page.
        tables: of means and of differences.
        notes: sentences below the tables; ``code`` is between backticks, here and in ``about``.
        views: of the photos to show, taken one at a time to save memory.
        results: the others are compared with the first method. Values may be missing, infinite or NaN.
        pools: by heading, pictures of the kernels and noise tiles that a network was trained with.
        about: command, versions, hardware and time.
    """
    shown = [_photo(view, results) for view in views]
    write_page(
        path,
        "evaluation.html",
        title=title,
        tables=tables,
        notes=notes,
        lists=_lists(results),
        methods=list(results),
        photos=len(_photos(results)),
        shown=shown,
        anchors={view["name"]: f"photo-{number}" for number, view in enumerate(shown, 1)},
        pictured=list(dict.fromkeys([*results, *(method for view in shown for method in view["methods"])])),
        pools={name: [picture(p, f"{name}, {i}") for i, p in enumerate(tiles, 1)] for name, tiles in pools.items()},
        about=about,
    )


def _photo(view: Views, results: Results) -> dict[str, Any]:
    """The pictures of a photo with their metrics, for the template."""
    height, width = next(iter(view.pictures.values())).shape[:2]
    figures = []
    for method, pixels in view.pictures.items():
        values = results.get(method, {}).get(view.name, {})
        text = ", ".join(f"{MEASURES[key].name} {MEASURES[key].written(value)}" for key, value in values.items())
        figures.append((method, picture(pixels, f"{view.name}: {method}", photo=True), text))
    kernel = None if view.kernel is None else picture(view.kernel, f"{view.name}: estimated kernel")
    sizes = {"width": width, "height": height}
    return {"name": view.name, "methods": list(view.pictures), "figures": figures, "kernel": kernel, **sizes}


def _photos(results: Results) -> list[str]:
    return list(dict.fromkeys(photo for of_method in results.values() for photo in of_method))


def _lists(results: Results) -> list[dict[str, Any]]:
    """For every metric the rows of its table: a photo and its values by every method."""
    given = {key for of_method in results.values() for values in of_method.values() for key in values}
    lists = []
    for key, metric in MEASURES.items():
        if key in given:
            by_photo = {p: [column.get(p, {}).get(key) for column in results.values()] for p in _photos(results)}
            rows = [(photo, list(_numbers(values, metric))) for photo, values in by_photo.items()]
            lists.append({"key": key, "name": metric.name, "heading": metric.heading, "rows": rows})
    return lists


def _numbers(values: Sequence[float | None], metric: Metric) -> Iterator[dict[str, Any]]:
    """The first method's value, then of every other its value and its difference from the first."""
    known = [metric.better * value for value in values if value is not None and not math.isnan(value)]
    first = values[0]
    for i, value in enumerate(values):
        best = metric.better != 0 and value is not None and bool(known) and metric.better * value == max(known)
        yield {"value": _exact(value), "text": metric.written(value), "best": best, "look": ""}
        if i:
            difference = None if first is None or value is None else 0.0 if first == value else value - first
            gain = 0 if difference is None else metric.better * round(difference, metric.digits)
            look = "gain" if gain > 0 else "loss" if gain < 0 else "same"
            yield {"value": _exact(difference), "text": metric.written(difference, "+"), "best": False, "look": look}


def _exact(value: float | None) -> str:
    """As JavaScript reads it, which spells infinity out."""
    return f"{math.nan if value is None else value:.9g}".replace("inf", "Infinity")
