"""Serves the page of ``realsr.app`` on this machine."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import sys
import time
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from realsr.networks.tiling import Tiles
from realsr.runtime.command_line import and_next
from realsr.runtime.errors import InputError, package
from realsr.runtime.hardware import keep_memory
from realsr.runtime.workers import ignore_signals
from realsr.upscaling.backends import load_model

log = logging.getLogger(__name__)

PORTS = range(7860, 7960)
DELETED = "photos and results are deleted"
LOOPBACK = "127.0.0.1", "localhost", "::1"


def free_port(host: str, port: int) -> int:
    """The port itself, or for 0 the first free one of :data:`PORTS`; Gradio's search looks at 127.0.0.1 alone.

    Raises:
        InputError: the port does not exist, is in use or forbidden; or this machine has no such address.
    """
    if not 0 <= port < 2**16:
        raise InputError(f"port={port}: give a number up to 65535, or 0 for the first that is free")
    for candidate in [port] if port else PORTS:
        try:
            family, _, _, _, address = socket.getaddrinfo(host, candidate, type=socket.SOCK_STREAM)[0]
            with socket.create_server(address[:2], family=family):
                return candidate
        except OSError as e:
            said = str(getattr(e, "strerror", None) or e).partition(" (while")[0]
            reason = f"host={host} port={candidate}: {said}"
            if isinstance(e, socket.gaierror):  # the same at every port, after seconds each
                break
    raise InputError(f"{reason}; give another host, or another port, or port=0 for the first that is free")


def serve(cfg: DictConfig, root: Path) -> None:
    """Serve the page until Ctrl-C.

    Raises:
        InputError: Gradio is not installed, or an option is wrong.
    """
    port = free_port(cfg.host, cfg.port)
    for name in [name for name in os.environ if name.startswith("GRADIO_")]:  # the user's own settings
        del os.environ[name]
    os.environ.update(GRADIO_TEMP_DIR=str(root), GRADIO_ANALYTICS_ENABLED="False", HF_HUB_OFFLINE="1")
    # Gradio requests its own page at the start, which a proxy would not find
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), cfg.host, "localhost")))
    keep_memory()
    gr = package("gradio", "the page", "app")
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from realsr.upscaling.app_page import CSS, Actions, build_page

    network = load_model(cfg.ckpt, cfg.backend, cfg.accelerator, cfg.precision, ema=cfg.ema)
    tiles = Tiles(cfg.tile, cfg.overlap, cfg.batch)
    options = {"tiles": tiles, "keep_colours": cfg.keep_colours, "quality": cfg.quality}
    actions = Actions(network, root, options, cfg.max_megapixels)
    page = build_page(actions, network.scale, Path(cfg.ckpt).name, round(60 * cfg.keep_minutes))
    # against DNS rebinding: a website's name that leads here would make our page part of that website
    names = [cfg.host, "localhost"] if cfg.host in LOOPBACK[:2] else ["*"]
    fonts: Any = {"font": ("system-ui", "sans-serif"), "font_mono": ("ui-monospace", "monospace")}  # no downloads
    for name in ("httpx", "httpx2"):  # by which Gradio requests its own page
        logging.getLogger(name).setLevel(logging.WARNING)
    _, url, _ = page.launch(
        server_name=f"[{cfg.host}]" if ":" in cfg.host else cfg.host,  # IPv6
        server_port=port,
        auth=None if cfg.auth is None else tuple(cfg.auth.split(":", 1)),
        share=False,
        prevent_thread_lock=True,
        quiet=True,
        max_file_size=int(cfg.max_megabytes * 2**20),
        footer_links=[],
        run_history=False,  # the browser would keep it
        enable_monitoring=False,
        theme=gr.themes.Default(primary_hue="blue", **fonts),
        css=CSS,
        app_kwargs={"middleware": [Middleware(TrustedHostMiddleware, allowed_hosts=names)]},
    )
    where = f"{Path(cfg.ckpt).name} on {network.device}: open {url} (Ctrl-C ends it); for folders of photos"
    log.info(and_next(where, ("upscale", f"ckpt={cfg.ckpt}", "input=photos", "output=large")))
    if cfg.host not in LOOPBACK and cfg.auth is None:
        log.warning("host=%s: everybody who reaches this machine can use the page; auth=NAME:PASSWORD", cfg.host)
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        ignore_signals()  # a second Ctrl-C would leave files
        shutil.rmtree(root, ignore_errors=True)
        print(f"realsr: interrupted; {DELETED}", file=sys.stderr, flush=True)
        os._exit(130)  # Python crashes if it ends while a thread is in the middle of a tile
