"""The page of an evaluation: table, list of every photo, before/after sliders, what was trained on, how it was made.

The sliders are plain HTML, a range input over two stacked pictures, and a little JavaScript. Components that are well
kept (img-comparison-slider, MIT; @cloudfour/image-compare, ISC) compare two given pictures; zoom and the choice of
methods would be ours all the same, and what is left, a line that moves, a range input does by itself with its keys and
its name for screen readers. They come by npm, too, which nothing else here needs. Without JavaScript, and on paper, the
pictures stand side by side.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from realsr.metrics import Results
from realsr.pictures import Picture
from realsr.report.page import Html, bullets, element, picture, prose, table, write_page
from realsr.report.values import metric, photos_of, value_lists


@dataclass(frozen=True)
class Views:
    """What is shown of one photo.

    Attributes:
        name: as the results name it.
        pictures: by method, ``(h, w, 3)`` uint8, all of one size; others than the methods of the results may be among
            them, as "ground truth".
        kernel: ``(h, w, 3)`` uint8, the blur that was estimated for this photo, or None.
    """

    name: str
    pictures: Mapping[str, Picture]
    kernel: Picture | None = None


def report_evaluation(
    path: Path,
    title: str,
    tables: Sequence[Sequence[Sequence[str]]],
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
        tables: of means, of differences: of each its head, then a row for every method.
        notes: sentences that belong to the table, as warnings; ``code`` is between backticks, here and in ``about``.
        views: photos to look at. They are taken one at a time, so that memory need not hold them all.
        results: of every method, of which the others are compared with the first; values may be missing, infinite or
            NaN. The sliders open with the first and the last method.
        pools: by heading, pictures of kernels and noise tiles that a checkpoint was trained with.
        about: what made this page: command, versions, hardware, time.

    Raises:
        ValueError: the pictures of a photo differ in size.
    """
    shown: list[Html] = []
    anchors: dict[str, str] = {}  # by photo
    methods = dict.fromkeys(results)
    for view in views:
        anchors[view.name] = f"photo-{len(shown) + 1}"
        methods |= dict.fromkeys(view.pictures)
        shown.append(_photo(view, anchors[view.name], results))
    parts = [
        *(table(head, rows, "numbers") for head, *rows in tables),
        bullets(prose(note) for note in notes) if notes else Html(""),
        *value_lists(results, anchors),
        *_photos(shown, list(methods), results),
        *_pools(pools),
        element("h2", "How this was made"),
        element("dl", *(element("div", element("dt", key), element("dd", prose(text))) for key, text in about.items())),
    ]
    files = resources.files("realsr.report")
    style, script = (files.joinpath(f"evaluation.{kind}").read_text("utf-8") for kind in ("css", "js"))
    write_page(path, title, parts, style, script)


def _photos(shown: Sequence[Html], methods: Sequence[str], results: Results) -> Iterator[Html]:
    if not shown:
        return
    of = len(photos_of(results))
    few = f"{len(shown)} of {of} photos. " if len(shown) < of else ""
    yield element("h2", "Pictures")
    yield element("p", few, "Pictures are WebP at quality 90 here; the values are those of the exact ones.")
    help_ = (
        "Drag the line, or move it with the arrow keys. Zoom with the buttons, `+`, `-` and `0`, or with the wheel "
        "once a picture was clicked. Drag a zoomed picture, or use `Shift` and the arrow keys, to move it."
    )
    yield element("p", prose(help_), class_="scripted")
    left, *_, right = [*results, *results]  # the first and the last, also of one
    together = element("label", element("input", type="checkbox", id="together"), " zoom all together")
    pickers = (_picker(side, methods, chosen) for side, chosen in (("left", left), ("right", right)))
    bar = element("div", element("b", "All photos"), *pickers, together, class_="bar scripted", id="all")
    yield element("div", bar, *shown)  # the bar stays in sight within


def _photo(view: Views, anchor: str, results: Results) -> Html:
    """Pickers and zoom, the pictures, which the script stacks, and what was measured of the two that are seen."""
    height, width = next(iter(view.pictures.values())).shape[:2]
    figures = []
    for method, pixels in view.pictures.items():
        if pixels.shape[:2] != (height, width):
            raise ValueError(f"{view.name}: {method} has {pixels.shape[:2]} pixels, not {(height, width)}")
        values = results.get(method, {}).get(view.name, {})
        text = ", ".join(f"{metric(key).name} {metric(key).written(value)}" for key, value in values.items())
        caption = element("figcaption", element("b", method), " ", text)
        shown = picture(pixels, f"{view.name}: {method}", photo=True)
        figures.append(element("figure", shown, caption, data_method=method))
    line = element("input", type="range", min="0", max="100", value="50", step="0.5", class_="scripted")
    bar = (_picker("left", list(view.pictures)), Html(ZOOM), _picker("right", list(view.pictures)))
    captions = (element("output", class_=side) for side in ("left", "right"))
    parts = [
        element("h3", view.name),
        element("div", *bar, class_="bar scripted"),
        element("div", *figures, line, class_="stage"),
        element("div", *captions, class_="captions scripted"),
    ]
    if view.kernel is not None:
        kernel = picture(view.kernel, f"{view.name}: estimated kernel")
        parts.append(element("figure", kernel, element("figcaption", "estimated kernel"), class_="kernel"))
    return element("section", *parts, class_="photo", id=anchor, style=f"--w: {width}; --h: {height}")


ZOOM = """<span class="zoom" role="group" aria-label="Zoom">
<button type="button" value="0.5" aria-label="Zoom out">−</button><output></output>
<button type="button" value="2" aria-label="Zoom in">+</button>
<button type="button" value="0">Fit</button></span>"""


def _picker(side: str, methods: Sequence[str], chosen: str = "") -> Html:
    """A choice of the method that is seen on a side; in the photos' own, the script chooses."""
    options = (
        element("option", method, **({"selected": "selected"} if method == chosen else {})) for method in methods
    )
    return element("label", f"{side} ", element("select", *options, class_=side))


def _pools(pools: Mapping[str, Sequence[Picture]]) -> Iterator[Html]:
    if pools:
        yield element("h2", "Kernels and noise that were trained with")
    for heading, pictures in pools.items():
        yield element("h3", heading)
        shown = (picture(pixels, f"{heading}, {i}") for i, pixels in enumerate(pictures, 1))
        yield element("div", *shown, class_="strip")
