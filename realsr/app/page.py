"""The page of ``realsr.app``: a photo dropped, before and after with a slider, the result to be downloaded.

Gradio's settings are read when it is imported, so :mod:`realsr.app.__main__` makes them before it imports this module.
"""

from __future__ import annotations

import html
import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import gradio as gr
from torch import Tensor

from realsr.app.previews import WHOLE, Previews
from realsr.app.visits import Pair, Visit, Visits
from realsr.backends import Network
from realsr.config import explain
from realsr.errors import InputError
from realsr.files import EXTRAS, SUFFIXES
from realsr.hardware import is_out_of_memory
from realsr.images import Photo, image_size, read_image
from realsr.images.encoding import check_writes, write_rows
from realsr.library import photo_bands, result_size
from realsr.tiling import Tiles

log = logging.getLogger(__name__)

FORMATS = {"PNG": ".png", "JPEG": ".jpg", "WebP": ".webp"}
QUEUE = 20  # people who wait at most
FONTS = "system-ui", "sans-serif"  # none that is fetched
THEME = gr.themes.Default(font=FONTS, font_mono=("ui-monospace", "monospace"), primary_hue="blue")
CSS = """
.gradio-container {max-width: 60rem !important; width: 100%; margin: auto}
#divider .head > :last-child, #divider .min_value, #divider .max_value {display: none}
#status p {margin: 0}
#status [role=alert] {color: var(--error-text-color); font-weight: 600}
"""
MOVE_DIVIDER = "position => ({__type__: 'update', slider_position: position})"  # Gradio's own moves by mouse alone


SHOWN, HIDDEN = gr.update(visible=True), gr.update(visible=False)


class Stopped(Exception):  # noqa: N818  (no error)
    """Somebody closed the page, or no longer wants the result."""


class Watched:
    """A network that tells how far it is, and that can be stopped between two tiles.

    Args:
        network: to be asked.
        stop: set when the result is no longer wanted.
        progress: takes the part that is done, 0 to 1.
        pixels: LR pixels that all tiles have together.
    """

    def __init__(self, network: Network, stop: Event, progress: Callable[[float], Any], pixels: int) -> None:
        self.scale, self.device = network.scale, network.device
        self._network, self._stop, self._progress, self._pixels, self._done = network, stop, progress, pixels, 0

    def __call__(self, lr: Tensor) -> Tensor:
        """As the network itself.

        Raises:
            Stopped: the result is no longer wanted.
        """
        if self._stop.is_set():
            raise Stopped
        self._progress(min(self._done / self._pixels, 1))
        self._done += lr.shape[0] * lr.shape[2] * lr.shape[3]
        return self._network(lr)


class Desk:
    """What the page's buttons do.

    Args:
        network: enlarges.
        visits: of the open pages.
        tiles: how photos are cut.
        keep_colours: see :func:`realsr.library.upscale`.
        quality: of JPEG and WebP.
        max_megapixels: of a photo.
    """

    def __init__(
        self,
        network: Network,
        visits: Visits,
        tiles: Tiles,
        keep_colours: bool = False,
        quality: int = 95,
        max_megapixels: float = 24,
    ) -> None:
        self._network, self._visits, self._tiles = network, visits, tiles
        self._keep_colours, self._quality, self._max_megapixels = keep_colours, quality, max_megapixels

    def take(self, upload: dict[str, Any], request: gr.Request) -> tuple[Any, ...]:
        """An upload becomes the visit's photo: place for the next, the line about this one, the button, no results."""
        visit = self._visits.visit(request.session_hash or "")
        try:
            source = visit.take(Path(upload["path"]))
            height, width = image_size(source)
            if height * width > self._max_megapixels * 1e6:
                raise InputError(
                    f"{source.name}: has {height * width / 1e6:.3g} megapixels, at most {self._max_megapixels:g} are "
                    "taken here; make it smaller, or use python -m realsr.upscale"
                )
        except InputError as e:
            line = _public(e, visit)
            visit.clear()
            return None, _alert(line), gr.update(interactive=False), HIDDEN
        return None, _said(f"{source.name}: {width} × {height} pixels"), gr.update(interactive=True), HIDDEN

    def begin(self, request: gr.Request) -> tuple[Any, ...]:
        """Work is wanted: no button for it but one to stop it, no line, no results."""
        self._visits.visit(request.session_hash or "").begin()
        return HIDDEN, SHOWN, "", HIDDEN

    def enlarge(
        self,
        scale: float,
        kind: str,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> tuple[Any, ...]:
        """The visit's photo enlarged: the line about it, the results, of these the file, the pictures and which."""
        start = time.monotonic()
        session = request.session_hash or ""
        try:
            with self._visits.work(session) as visit:
                target, line = self._upscale(visit, scale, FORMATS[kind], progress)
                seconds = time.monotonic() - start
                names = list(visit.views)
                return (
                    _said(f"{line}, {seconds:.0f} s" if seconds >= 1 else line),
                    SHOWN,
                    gr.update(value=str(target), label=f"Download {target.name}"),
                    gr.update(value=visit.views[names[-1]], slider_position=50),
                    50,
                    gr.update(choices=names, value=names[-1], visible=len(names) > 1),
                )
        except Stopped:
            line = _said("Stopped.")
        except (InputError, OSError) as e:
            line = _alert(_public(e, self._visits.visit(session)))
        except Exception as e:
            log.exception("a photo cannot be enlarged")
            reason = "there is no memory for it" if is_out_of_memory(e) else "the program's terminal says why"
            line = _alert(f"The photo cannot be enlarged; {reason}.")
        return line, HIDDEN, *[gr.skip()] * 4

    def view(self, name: str, request: gr.Request) -> Pair | None:
        """The pictures for the slider."""
        return self._visits.visit(request.session_hash or "").views.get(name)

    def stop(self, request: gr.Request) -> None:
        """No result is wanted any more."""
        self._visits.visit(request.session_hash or "").stop.set()

    def leave(self, request: gr.Request) -> None:
        """The page was closed."""
        self._visits.leave(request.session_hash or "")

    def _upscale(self, visit: Visit, scale: float, suffix: str, progress: gr.Progress) -> tuple[Path, str]:
        """Write the result and the views of it; its file, and a line about it."""
        assert visit.source is not None
        stop, name = visit.stop, visit.source.name
        progress(0, desc=f"Reading {name}")
        photo = read_image(visit.source)
        height, width = result_size(photo, self._network, scale)
        target = visit.new_results() / f"{visit.source.stem}_x{scale:g}{suffix}"
        check_writes(target, height, width, (1 if photo.gray else 3) + (photo.alpha is not None))
        previews = Previews(photo, height, width)
        watched = Watched(self._network, stop, partial(progress, desc=f"Enlarging {name}"), self._tile_pixels(photo))
        bands = photo_bands(photo, watched, scale, self._tiles, self._keep_colours)
        write_rows(target, previews.watch(bands), height, width, photo, self._quality)
        progress(1, desc="Pictures for the page")
        profile = None if photo.gray else photo.icc_profile
        for number, (view, pictures) in enumerate(previews.pictures().items()):
            files = [target.parent / f"view{number}_{side}.png" for side in ("before", "after")]
            for picture, file in zip(pictures, files, strict=True):
                picture.save(file, compress_level=1, icc_profile=profile)
            visit.views[view] = str(files[0]), str(files[1])
        size = target.stat().st_size / 1e6
        return target, f"{width} × {height} pixels, {size:.1f} MB"

    def _tile_pixels(self, photo: Photo) -> int:
        """LR pixels of all tiles together, their surroundings too."""
        height, width = photo.rgb.shape[:2]
        tiles = self._tiles.fitted(height, width, self._network.device)
        sides = (side + 2 * tiles.overlap * (-(-side // tiles.tile) - 1) for side in (height, width))
        return max(next(sides) * next(sides), 1)


def build_page(desk: Desk, scale: int, model: str) -> gr.Blocks:
    """The page.

    Args:
        desk: does the work.
        scale: of the network.
        model: its name.
    """
    kinds = ["image", *SUFFIXES, *EXTRAS]
    with gr.Blocks(title="realsr", analytics_enabled=False) as page:
        gr.Markdown(f"# Enlarge a photo\nModel: `{model}`. Photos and results are deleted when this page is closed.")
        photo = gr.File(label="Photo", file_types=kinds, height=140, elem_id="photo")
        with gr.Row():
            sizes = [(f"{n} ×", n) for n in range(2, scale + 1)]
            size = gr.Radio(sizes, value=scale, label="Size", elem_id="size")
            kind = gr.Radio(list(FORMATS), value="PNG", label="Download as", elem_id="kind")
        go = gr.Button("Enlarge", variant="primary", interactive=False)
        halt = gr.Button("Stop", variant="stop", visible=False)
        status = gr.HTML(elem_id="status", min_height=60, padding=True)
        with gr.Column(visible=False) as results:
            download = gr.DownloadButton("Download", variant="primary", elem_id="download")
            slider = gr.ImageSlider(label="Before and after", buttons=["fullscreen"], max_height=640, elem_id="slider")
            divider = gr.Slider(0, 100, 50, step=1, label="Before | After", buttons=[], elem_id="divider")
            views = gr.Radio([WHOLE], value=WHOLE, label="Show", elem_id="views")

        private: dict[str, Any] = {"api_visibility": "private"}
        quick = {**private, "show_progress": "hidden", "queue": False}
        # without its own preprocessing, which leaves an empty file beside each
        photo.upload(desk.take, photo, [photo, status, go, results], preprocess=False, **quick)
        begun = go.click(desk.begin, None, [go, halt, status, results], **quick)
        enlarged = begun.then(
            desk.enlarge,
            [size, kind],
            [status, results, download, slider, divider, views],
            show_progress_on=[status],
            concurrency_limit=1,
            **private,
        )
        enlarged.then(lambda: (SHOWN, HIDDEN), None, [go, halt], **quick)
        halt.click(desk.stop, None, None, **quick)
        views.input(desk.view, views, slider, **quick)
        divider.input(None, divider, slider, js=MOVE_DIVIDER, **quick)
        page.unload(desk.leave)
    page.queue(max_size=QUEUE, api_open=False)
    return page


def _public(error: Exception, visit: Visit) -> str:
    """An error's line without this machine's folders."""
    return (explain(error) or str(error)).replace(f"{visit.folder}/results/", "").replace(f"{visit.folder}/", "")


def _said(line: str) -> str:
    return f'<p role="status">{html.escape(line)}</p>'


def _alert(line: str) -> str:
    return f'<p role="alert">{html.escape(line)}</p>'
