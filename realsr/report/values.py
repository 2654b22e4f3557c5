"""Values of metrics as people read them, and the lists of a page that hold one for every photo and method."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape

from realsr.metrics import MEASURES, Metric, Results
from realsr.report.page import Html, element, table


def metric(key: str) -> Metric:
    """Of this key; one that is not known is written with four digits."""
    return MEASURES.get(key, Metric(key, 4, 0))


def photos_of(results: Results) -> list[str]:
    """Every photo that a method has values of."""
    return list(dict.fromkeys(photo for of_method in results.values() for photo in of_method))


def value_lists(results: Results, anchors: Mapping[str, str]) -> Iterator[Html]:
    """A table for every metric, of which a picker shows one: a row for every photo, a column for every method.

    Args:
        results: the first method is the one that others are compared with.
        anchors: by photo, where it is on this page.
    """
    given = {key for of_method in results.values() for values in of_method.values() for key in values}
    keys = [key for key in MEASURES if key in given] + sorted(given - set(MEASURES))
    if not keys:
        return
    first, *others = results
    yield element("h2", "Every photo", id="list")
    difference = f" Δ is the difference from {first}." if others else ""
    yield element("p", f"The best value of a photo is bold.{difference}")
    yield element("p", "A click on a column's head sorts by it, a second click the other way round.", class_="scripted")
    options = (element("option", metric(key).name, value=key) for key in keys)
    yield element("p", element("label", "Metric ", element("select", *options, id="metric")), class_="scripted")
    head = ["photo", _breaking(first)]
    for method in others:
        of = element("span", f" of {method} from {first}", class_="unseen")
        head += [_breaking(method), element("span", "Δ", of, title=f"{method} − {first}")]
    for key in keys:
        rows = []
        for photo in photos_of(results):
            name = element("a", photo, href=f"#{anchors[photo]}") if photo in anchors else photo
            rows.append((name, *_cells([of.get(photo, {}).get(key) for of in results.values()], metric(key))))
        heading, listed = element("h3", metric(key).heading), table(head, rows, "numbers sortable")
        yield element("div", heading, listed, class_="metric", data_key=key)


def _breaking(method: str) -> Html:
    """A name as ``edsr:file.pth``, on two lines where there is little room."""
    return Html(escape(method).replace(":", ":<wbr>"))


def _cells(values: Sequence[float | None], of: Metric) -> Iterator[Html]:
    """The first method's value, then every other's and how much it differs."""
    known = [of.better * value for value in values if value is not None and not math.isnan(value)]
    first = values[0]
    for i, value in enumerate(values):
        best = of.better != 0 and value is not None and bool(known) and of.better * value == max(known)
        yield _exact(value, element("b", of.written(value)) if best else of.written(value))
        if i:
            difference = None if first is None or value is None else 0.0 if first == value else value - first
            gain = 0 if difference is None else of.better * round(difference, of.digits)
            look = "gain" if gain > 0 else "loss" if gain < 0 else "same"
            yield _exact(difference, of.written(difference, "+"), look)


def _exact(value: float | None, text: str, look: str = "") -> Html:
    """A number that is sorted by its value, not by its text; JavaScript's name of infinity is its own."""
    exact = f"{math.nan if value is None else value:.9g}".replace("inf", "Infinity")
    return element("data", text, value=exact, class_=look)
