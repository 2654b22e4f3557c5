"""The page of ``realsr.app``: a photo dropped, before and after with a slider, the result to be downloaded.

Gradio's settings are read when it is imported, so :mod:`realsr.app` makes them before it imports this module.
"""

from __future__ import annotations

import hashlib
import html
import shutil
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import gradio as gr
import numpy as np
import pyvips
from PIL import Image

from realsr.imaging import image_size, read_image
from realsr.reports.pictures import sharpest_crop
from realsr.runtime.config import explain
from realsr.runtime.errors import InputError
from realsr.runtime.files import EXTRAS, SUFFIXES
from realsr.upscaling.backends import Network
from realsr.upscaling.files import upscale_file

DOWNLOADS = {"PNG": ".png", "JPEG": ".jpg", "WebP": ".webp"}
WHOLE, DETAIL = "whole photo", "detail, pixel by pixel"
MOST, SIDE = 2048, 768  # pixels that are shown of the longer side of a whole photo, and of the detail
CSS = """
.gradio-container {max-width: 60rem !important; width: 100%; margin: auto}
#divider .head > :last-child, #divider .min_value, #divider .max_value {display: none}
#status p {margin: 0}
#status [role=alert] {color: var(--error-text-color); font-weight: 600}
"""
MOVE_DIVIDER = "position => ({__type__: 'update', slider_position: position})"  # Gradio's own moves by mouse alone
PROGRESS, SHOWN, HIDDEN = gr.Progress(), gr.update(visible=True), gr.update(visible=False)


@dataclass
class Desk:
    """What the page's buttons do; what belongs to an open page lies in a folder of its own, which goes with it."""

    network: Network
    root: Path  # of the folders; Gradio's uploads are there too
    options: dict[str, Any]  # of upscale_file
    max_megapixels: float  # of a photo
    stops: dict[str, Event] = field(default_factory=dict)  # by open page, of the work that it began last

    def take(self, upload: dict[str, Any], request: gr.Request) -> tuple[Any, ...]:
        """An upload becomes the page's photo: place for the next, the photo, a line, the button, no results."""
        self.stop(request)
        folder = self._folder(request)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        source = folder / Path(upload["path"]).name
        try:
            Path(upload["path"]).replace(source)
            height, width = image_size(source)
            if (size := height * width / 1e6) > (most := self.max_megapixels):
                advice = "are taken here; make it smaller, or use python -m realsr.upscale"
                raise InputError(f"{source.name}: has {size:.3g} megapixels, at most {most:g} {advice}")
        except (InputError, OSError) as e:
            shutil.rmtree(folder, ignore_errors=True)
            return None, None, _wrong(e, folder), gr.update(interactive=False), HIDDEN
        line = _line(f"{source.name}: {width} × {height} pixels")
        return None, str(source), line, gr.update(interactive=True), HIDDEN

    def begin(self, request: gr.Request) -> tuple[Any, ...]:
        """Work is wanted: no button for it but one to stop it, no line, no results."""
        self.stop(request)
        self.stops[str(request.session_hash)] = Event()
        return HIDDEN, SHOWN, "", HIDDEN

    def enlarge(
        self, photo: dict[str, Any], scale: float, kind: str, request: gr.Request, progress: gr.Progress = PROGRESS
    ) -> tuple[Any, ...]:
        """The photo enlarged: the line about it, the results, of these the file, the pictures and which."""
        start, source, results = time.monotonic(), Path(photo["path"]), self._folder(request) / "results"
        target, nothing = results / f"{source.stem}_x{scale:g}{DOWNLOADS[kind]}", (HIDDEN, *[gr.skip()] * 4)
        stop = self.stops.get(str(request.session_hash))
        try:
            if stop is None or not source.exists():
                raise InputError("the photo was deleted, since the page was closed or long unused; drop it again")
            shutil.rmtree(results, ignore_errors=True)
            report = partial(_tell, stop, progress, f"Enlarging {source.name}")
            report(0)
            upscale_file(source, target, self.network, scale, report=report, **self.options)
            (width, height), views = _pictures(source, target)
            report(1)
        except InterruptedError:
            gone = str(request.session_hash) not in self.stops
            shutil.rmtree(self._folder(request) if gone else results, ignore_errors=True)
            return _line("Stopped."), *nothing
        except (InputError, OSError) as e:
            return _wrong(e, source.parent), *nothing
        line, seconds = f"{width} × {height} pixels, {target.stat().st_size / 1e6:.1f} MB", time.monotonic() - start
        return (
            _line(f"{line}, {seconds:.0f} s" if seconds >= 1 else line),
            SHOWN,
            gr.update(value=str(target), label=f"Download {target.name}"),
            gr.update(value=_files(results, len(views) - 1), slider_position=50),
            50,
            gr.update(
                choices=[(name, i) for i, name in enumerate(views)], value=len(views) - 1, visible=len(views) > 1
            ),
        )

    def view(self, number: int, request: gr.Request) -> tuple[str, str]:
        """The pictures for the slider."""
        return _files(self._folder(request) / "results", number)

    def stop(self, request: gr.Request) -> None:
        """No result is wanted any more."""
        self.stops.get(str(request.session_hash), Event()).set()

    def leave(self, request: gr.Request) -> None:
        """The page was closed."""
        self.stops.pop(str(request.session_hash), Event()).set()
        shutil.rmtree(self._folder(request), ignore_errors=True)

    def _folder(self, request: gr.Request) -> Path:
        """Of a page; the page's name is the browser's and may be anything, so it is not in the folder's."""
        return self.root / hashlib.sha256(str(request.session_hash).encode()).hexdigest()


def build_page(desk: Desk, scale: int, model: str, keep_seconds: int) -> gr.Blocks:
    """The page, of the model of a name and a scale; Gradio deletes files that are so old, also of open pages."""
    with gr.Blocks(title="realsr", analytics_enabled=False, delete_cache=(60, keep_seconds)) as page:
        gr.Markdown(f"# Enlarge a photo\nModel: `{model}`. Photos and results are deleted when this page is closed.")
        upload = gr.File(label="Photo", file_types=["image", *SUFFIXES, *EXTRAS], height=140, elem_id="photo")
        photo = gr.File(visible=False)
        with gr.Row():
            size = gr.Radio([(f"{n} ×", n) for n in range(2, scale + 1)], value=scale, label="Size", elem_id="size")
            kind = gr.Radio(list(DOWNLOADS), value="PNG", label="Download as", elem_id="kind")
        go = gr.Button("Enlarge", variant="primary", interactive=False)
        halt = gr.Button("Stop", variant="stop", visible=False)
        status = gr.HTML(elem_id="status", min_height=60, padding=True)
        with gr.Column(visible=False) as results:
            download = gr.DownloadButton("Download", variant="primary", elem_id="download")
            slider = gr.ImageSlider(label="Before and after", buttons=["fullscreen"], max_height=640, elem_id="slider")
            divider = gr.Slider(0, 100, 50, step=1, label="Before | After", buttons=[], elem_id="divider")
            views = gr.Radio([WHOLE], label="Show", elem_id="views")

        # without Gradio's own preprocessing of files, which leaves an empty file beside each
        private: dict[str, Any] = {"api_visibility": "private", "preprocess": False}
        quick = {**private, "show_progress": "hidden", "queue": False}
        upload.upload(desk.take, upload, [upload, photo, status, go, results], **quick)
        begun = go.click(desk.begin, None, [go, halt, status, results], **quick)
        shown = [status, results, download, slider, divider, views]
        options = {"show_progress_on": [status], "concurrency_limit": 1, **private}
        enlarged = begun.then(desk.enlarge, [photo, size, kind], shown, **options)
        enlarged.then(lambda: (SHOWN, HIDDEN), None, [go, halt], **quick)
        halt.click(desk.stop, None, None, **quick)
        views.input(desk.view, views, slider, **quick)
        divider.input(None, divider, slider, js=MOVE_DIVIDER, **quick)
        page.unload(desk.leave)
    page.queue(max_size=20, api_open=False)
    return page


def _pictures(source: Path, target: Path) -> tuple[tuple[int, int], list[str]]:
    """Write what a browser can show beside a result: bicubic and the result, whole and, if it is large, in detail.

    The whole of a large result is its means over squares of pixels; the detail is its part with most of it.

    Returns:
        Width and height of the result, and what the pictures show.
    """
    read = partial(pyvips.Image.new_from_file, str(target), access="sequential")
    result = read()
    width, height, factor = result.width, result.height, -(-max(result.width, result.height) // MOST)
    whole = _on_white(result.shrink(min(factor, width), min(factor, height)))
    shown = {WHOLE if factor == 1 else f"{WHOLE}, reduced to 1/{factor}": ((0, 0, width, height), whole)}
    if factor > 1:
        y, x = sharpest_crop(np.asarray(whole), max(SIDE // factor, 1)) if min(whole.size) > 1 else (0, 0)
        left, top = max(min(x * factor, width - SIDE), 0), max(min(y * factor, height - SIDE), 0)
        box = left, top, min(width, SIDE), min(height, SIDE)
        shown[DETAIL] = box, _on_white(read().crop(*box))
    photo = read_image(source)
    pixels = photo.rgb if photo.alpha is None else np.dstack((photo.rgb, photo.alpha))
    kind = "rgb16" if pixels.dtype == np.uint16 else "srgb"
    before = _on_white(pyvips.Image.new_from_array(pixels, interpretation=kind))
    x, y = before.width / width, before.height / height
    profile = result.get("icc-profile-data") if "icc-profile-data" in result.get_fields() else None
    for number, ((left, top, w, h), after) in enumerate(shown.values()):
        seen = before.resize(after.size, Image.Resampling.BICUBIC, (left * x, top * y, (left + w) * x, (top + h) * y))
        for image, file in zip((seen, after), _files(target.parent, number), strict=True):
            image.save(file, compress_level=1, icc_profile=profile)
    return (width, height), list(shown)


def _on_white(image: pyvips.Image) -> Image.Image:
    """Gray or colours, of 8 or 16 bits, with alpha or without, to RGB of 8 bits."""
    image = image.colourspace("srgb")
    return Image.fromarray((image.flatten(background=255) if image.hasalpha() else image).numpy())


def _files(folder: Path, number: int) -> tuple[str, str]:
    """Of the pictures before and after."""
    return str(folder / f"view{number}_before.png"), str(folder / f"view{number}_after.png")


def _tell(stop: Event, progress: gr.Progress, what: str, share: float) -> None:
    """How much of the work is done, unless it is not wanted any more."""
    if stop.is_set():
        raise InterruptedError
    progress(share, desc=what)


def _line(text: str, role: str = "status") -> str:
    return f'<p role="{role}">{html.escape(text)}</p>'


def _wrong(error: Exception, folder: Path) -> str:
    """An error's line without this machine's folders."""
    return _line((explain(error) or str(error)).replace(f"{folder}/results/", "").replace(f"{folder}/", ""), "alert")
