"""HTML pages of one file: text, tables and pictures that are read without network and without JavaScript."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from PIL import Image

from realsr.files import atomic_write
from realsr.pictures import Picture

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 76rem; margin: 0 auto; padding: 0 1rem 3rem; color: #222 }
h1 { font-size: 1.5rem } h2 { font-size: 1.25rem; margin-top: 2.5rem; border-top: 1px solid #ccc; padding-top: 1rem }
h3 { font-size: 1rem; margin: 1.5rem 0 0 } p, ul { max-width: 54rem } img { max-width: 100%; height: auto }
code { overflow-wrap: anywhere; background: #f3f3f3; padding: 0 .2em }
.wide { overflow-x: auto } table { border-collapse: collapse; margin: .6rem 0 }
th { text-align: left; border-bottom: 2px solid #999 } td { border-bottom: 1px solid #ddd }
th, td { padding: .3rem 1.2rem .3rem 0; vertical-align: top }
td:first-child { min-width: 8rem; overflow-wrap: anywhere }
.numbers td + td, .numbers th + th { text-align: right } .numbers td + td { white-space: nowrap }
.strip { display: flex; flex-wrap: wrap; gap: 4px }
.pill { color: white; border-radius: .3rem; padding: 0 .4rem }
@media (max-width: 44rem) {
  .cards thead { display: none } .cards tr { display: block; padding: .6rem 0; border-bottom: 1px solid #999 }
  .cards td { display: inline-block; border: 0; padding: .1rem .6rem .1rem 0 }
  .cards td:first-child, .cards td:last-child { display: block }
}
@media print { body { font-size: 10px; max-width: none } tr { break-inside: avoid } .wide { overflow: visible } }
"""
EMPTY = {"img", "input"}  # elements that are not closed


class Html(str):
    """Text that is HTML; all other text is escaped."""

    __slots__ = ()


def element(name: str, *content: object, **attributes: str) -> Html:
    """``<name attribute="...">content</name>``; ``class_`` is written as ``class``, ``data_x`` as ``data-x``."""
    given = "".join(f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"' for key, value in attributes.items())
    return Html(f"<{name}{given}>" if name in EMPTY else f"<{name}{given}>{_joined(content)}</{name}>")


def prose(text: str) -> Html:
    """Text in which ``code`` stands between backticks."""
    parts = escape(text).split("`")
    return Html("".join(element("code", Html(part)) if i % 2 else part for i, part in enumerate(parts)))


def bullets(items: Iterable[object]) -> Html:
    """A list."""
    return element("ul", *(element("li", item) for item in items))


def table(head: Sequence[str], rows: Iterable[Sequence[object]], look: str = "") -> Html:
    """A table that is scrolled sideways where it is wider than the screen.

    Args:
        head: of the columns.
        rows: their cells.
        look: ``numbers`` puts all columns but the first to the right; ``cards`` stands the cells of a row one below the
            other, without the head, on a phone.
    """
    titles = element("thead", element("tr", *(element("th", title) for title in head)))
    body = element("tbody", *(element("tr", *(element("td", cell) for cell in row), "\n") for row in rows))
    return element("div", element("table", titles, body, class_=look), class_="wide")


def picture(pixels: Picture, alt: str, photo: bool = False) -> Html:
    """An image of ``(h, w, 3)`` or ``(h, w)`` uint8, held by the page and decoded when it is seen.

    PNG, or WebP at quality 90 of a photo (of at most 16383 pixels a side, WebP's limit).
    """
    file = io.BytesIO()
    kind = "webp" if photo else "png"
    Image.fromarray(pixels).save(file, kind, **({"quality": 90} if photo else {"optimize": True}))
    data = f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
    height, width = (str(side) for side in pixels.shape[:2])
    return element("img", src=data, width=width, height=height, alt=alt, title=alt, loading="lazy", decoding="async")


def write_page(path: Path, title: str, parts: Iterable[Html], style: str = "", script: str = "") -> None:
    """Write the page, whole or not at all. Names of files that are no text are written with question marks.

    Args:
        path: of the file.
        title: also its heading.
        parts: what follows.
        style: CSS of this page, besides ``STYLE``.
        script: JavaScript, run before the page is read; without it the page must be readable, too.
    """
    page = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}{style}</style>"
        + (f"<script>{script}</script>" if script else "")
        + "</head>\n<body>\n"
        + "\n".join([element("h1", title), *parts])
        + "\n</body></html>\n"
    )
    with atomic_write(path) as file:
        file.write(page.encode("utf-8", "replace"))


def _joined(content: Iterable[object]) -> str:
    return "".join(part if isinstance(part, Html) else escape(str(part)) for part in content)
