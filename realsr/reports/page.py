"""HTML pages of one file, made of ``templates/``: they are read without network, and without JavaScript."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image

from realsr.reports.pictures import Picture
from realsr.runtime.files import atomic_write


def code(text: str) -> Markup:
    """Text in which ``code`` stands between backticks."""
    return Markup(re.sub("`([^`]*)`", r"<code>\1</code>", str(escape(text))))


def picture(pixels: Picture, alt: str, photo: bool = False) -> Markup:
    """An image of ``(h, w, 3)`` or ``(h, w)`` uint8, held by the page and decoded when it is seen.

    PNG, or WebP at quality 90 of a photo (of at most 16383 pixels a side, WebP's limit).
    """
    file = io.BytesIO()
    kind = "webp" if photo else "png"
    Image.fromarray(pixels).save(file, kind, **({"quality": 90} if photo else {"optimize": True}))
    image = '<img src="data:image/{};base64,{}" width="{}" height="{}" alt="{}" title="{}" loading="lazy" {}>'
    data, (height, width) = base64.b64encode(file.getvalue()).decode(), pixels.shape[:2]
    return Markup(image).format(kind, data, width, height, alt, alt, Markup('decoding="async"'))


def write_page(path: Path, template: str, **values: object) -> None:
    """Write the page, whole or not at all. Names of files that are no text are written with question marks.

    Args:
        path: of the file.
        template: in ``templates/``; what it is given is escaped, but for what :func:`code` and :func:`picture` made.
        values: that the template names, ``title`` among them.
    """
    page = _TEMPLATES.get_template(template).render(values)
    with atomic_write(path) as file:
        file.write(page.encode("utf-8", "replace"))


_TEMPLATES = Environment(
    loader=PackageLoader("realsr.reports"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_TEMPLATES.filters["code"] = code
