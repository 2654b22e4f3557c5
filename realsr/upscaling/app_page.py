"""The page of ``realsr.app``: upload a photo, compare before and after with a slider, download the result.

Gradio reads its settings when it is imported, so :mod:`realsr.upscaling.server` makes them before it imports this
module.
"""

from __future__ import annotations

import hashlib
import html
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import gradio as gr

from realsr.imaging import image_size
from realsr.reports.pictures import WHOLE, before_and_after, view_files
from realsr.runtime.config import explain
from realsr.runtime.errors import InputError
from realsr.runtime.files import EXTRAS, SUFFIXES
from realsr.upscaling.backends import Network
from realsr.upscaling.files import upscale_file

DOWNLOADS = {"PNG": ".png", "JPEG": ".jpg", "WebP": ".webp"}
CSS = """
.gradio-container {max-width: 60rem !important; width: 100%; margin: auto}
#divider .head > :last-child, #divider .min_value, #divider .max_value {display: none}
#status p {margin: 0}
#status [role=alert] {color: var(--error-text-color); font-weight: 600}
"""
MOVE_DIVIDER = "position => ({__type__: 'update', slider_position: position})"  # Gradio's own moves by mouse alone
PROGRESS, SHOWN, HIDDEN = gr.Progress(), gr.update(visible=True), gr.update(visible=False)


@dataclass
class Actions:
    """The actions of the page's buttons. Files of each open page lie in its own folder, deleted when it is closed."""

    network: Network
    root: Path  # of the folders, and of Gradio's uploads
    options: dict[str, Any]  # of upscale_file
    max_megapixels: float  # of a photo
    stops: dict[str, Event] = field(default_factory=dict)  # by open page: to stop the work that it began last

    def take(self, upload: dict[str, Any], request: gr.Request) -> tuple[Any, ...]:
        """Make an upload the page's photo. Updates upload, photo, status line, button and results."""
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
        """Begin to enlarge. Updates the buttons to enlarge and to stop, status line and results."""
        self.stop(request)
        self.stops[str(request.session_hash)] = Event()
        return HIDDEN, SHOWN, "", HIDDEN

    def enlarge(
        self, photo: dict[str, Any], scale: float, kind: str, request: gr.Request, progress: gr.Progress = PROGRESS
    ) -> tuple[Any, ...]:
        """Enlarge the photo. Updates status line, results, download, slider, divider and choice of views."""
        start, source, results = time.monotonic(), Path(photo["path"]), self._folder(request) / "results"
        target, nothing = results / f"{source.stem}_x{scale:g}{DOWNLOADS[kind]}", (HIDDEN, *[gr.skip()] * 4)
        stop = self.stops.get(str(request.session_hash))
        try:
            if stop is None or not source.exists():
                raise InputError("the photo was deleted, since the page was closed or long unused; drop it again")
            shutil.rmtree(results, ignore_errors=True)

            def report(share: float) -> None:
                if stop.is_set():
                    raise InterruptedError
                progress(share, desc=f"Enlarging {source.name}")

            report(0)
            upscale_file(source, target, self.network, scale, report=report, **self.options)
            (width, height), views = before_and_after(source, target)
            report(1)
        except InterruptedError:
            gone = str(request.session_hash) not in self.stops
            shutil.rmtree(self._folder(request) if gone else results, ignore_errors=True)
            return _line("Stopped."), *nothing
        except (InputError, OSError) as e:
            return _wrong(e, source.parent), *nothing
        line, seconds = f"{width} × {height} pixels, {target.stat().st_size / 1e6:.1f} MB", time.monotonic() - start
        last, choices = len(views) - 1, [(name, i) for i, name in enumerate(views)]
        return (
            _line(f"{line}, {seconds:.0f} s" if seconds >= 1 else line),
            SHOWN,
            gr.update(value=str(target), label=f"Download {target.name}"),
            gr.update(value=view_files(results, last), slider_position=50),
            50,
            gr.update(choices=choices, value=last, visible=last > 0),
        )

    def view(self, number: int, request: gr.Request) -> tuple[str, str]:
        """The two pictures of a view for the slider."""
        return view_files(self._folder(request) / "results", number)

    def stop(self, request: gr.Request) -> None:
        """Stop the page's work."""
        self.stops.get(str(request.session_hash), Event()).set()

    def leave(self, request: gr.Request) -> None:
        """Stop the work of a closed page and delete its files."""
        self.stops.pop(str(request.session_hash), Event()).set()
        shutil.rmtree(self._folder(request), ignore_errors=True)

    def _folder(self, request: gr.Request) -> Path:
        """A page's folder, named by a hash since the browser chooses the page's name."""
        return self.root / hashlib.sha256(str(request.session_hash).encode()).hexdigest()


def build_page(actions: Actions, scale: int, model: str, keep_seconds: int) -> gr.Blocks:
    """The page of a model of this name and scale; Gradio deletes files after ``keep_seconds``, also of open pages."""
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

        # Gradio's preprocessing of files would leave an empty file beside each
        private: dict[str, Any] = {"api_visibility": "private", "preprocess": False}
        quick = {**private, "show_progress": "hidden", "queue": False}
        upload.upload(actions.take, upload, [upload, photo, status, go, results], **quick)
        begun = go.click(actions.begin, None, [go, halt, status, results], **quick)
        shown = [status, results, download, slider, divider, views]
        options = {"show_progress_on": [status], "concurrency_limit": 1, **private}
        enlarged = begun.then(actions.enlarge, [photo, size, kind], shown, **options)
        enlarged.then(lambda: (SHOWN, HIDDEN), None, [go, halt], **quick)
        halt.click(actions.stop, None, None, **quick)
        views.input(actions.view, views, slider, **quick)
        divider.input(None, divider, slider, js=MOVE_DIVIDER, **quick)
        page.unload(actions.leave)
    page.queue(max_size=20, api_open=False)
    return page


def _line(text: str, role: str = "status") -> str:
    return f'<p role="{role}">{html.escape(text)}</p>'


def _wrong(error: Exception, folder: Path) -> str:
    """An error's line without the names of this machine's folders."""
    return _line((explain(error) or str(error)).replace(f"{folder}/results/", "").replace(f"{folder}/", ""), "alert")
