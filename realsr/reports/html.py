"""HTML pages made from ``templates/``: single files that need neither network nor JavaScript."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image

from realsr.reports.pictures import Picture
from realsr.runtime.files import write_file


def code(text: str) -> Markup:
    """HTML of a text, with ``code`` for what stands between backticks.

    >>> code("run `a < b`")
    Markup('run <code>a &lt; b</code>')
    """
    return Markup(re.sub("`([^`]*)`", r"<code>\1</code>", str(escape(text))))


def picture(pixels: Picture, alt: str, photo: bool = False) -> Markup:
    """An ``<img>`` of ``(h, w, 3)`` or ``(h, w)`` uint8 that contains its file and is decoded when scrolled to.

    The file is PNG, or for photos WebP of quality 90 (at most 16383 pixels a side).
    """
    file = io.BytesIO()
    kind = "webp" if photo else "png"
    Image.fromarray(pixels).save(file, kind, **({"quality": 90} if photo else {"optimize": True}))
    image = '<img src="data:image/{};base64,{}" width="{}" height="{}" alt="{}" title="{}" loading="lazy" {}>'
    data, (height, width) = base64.b64encode(file.getvalue()).decode(), pixels.shape[:2]
    return Markup(image).format(kind, data, width, height, alt, alt, Markup('decoding="async"'))


def write_page(path: Path, template: str, **values: object) -> None:
    """Write a page atomically; bytes of file names that are not UTF-8 become question marks.

    Args:
        path: of the file.
        template: its name in ``templates/``.
        values: of the template's variables, ``title`` among them; all are escaped but :class:`markupsafe.Markup`.
    """
    write_file(path, _TEMPLATES.get_template(template).render(values))


_TEMPLATES = Environment(
    loader=PackageLoader("realsr.reports"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_TEMPLATES.filters["code"] = code
