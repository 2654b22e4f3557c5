"""One function of many items, side by side in worker processes; a process that is killed takes its item at most."""

from __future__ import annotations

import logging
import logging.handlers
import multiprocessing
import os
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from typing import Any, TypeVar

import torch
from threadpoolctl import threadpool_limits

from realsr.runtime.errors import InputError

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")
# what ends a command: Ctrl-C, a terminal that is closed, and what schedulers send before they kill
STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)
)
GPU_WORKERS = 4  # not measured: small networks leave most of a GPU idle, but every process has its own context there


def default_workers(device: torch.device) -> int:
    """A process for each core that this one may use; on a GPU a fixed number."""
    if device.type != "cpu":
        return GPU_WORKERS
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ignore_signals(worker: int = 0) -> None:
    """In a worker of a DataLoader: schedulers and Ctrl-C signal all processes, and the main one ends its workers."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def end_workers() -> None:
    """Kill the DataLoader workers that an error has left: deaf to SIGTERM, they would keep this process for ever."""
    for worker in multiprocessing.active_children():
        with suppress(RuntimeError):  # PyTorch's, of a worker that was killed
            worker.kill()
            worker.join()


def side_by_side(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int
) -> Generator[tuple[Item, Result], None, None]:
    """Call ``function`` for every item, in worker processes; a single worker or item stays in this process.

    A worker has one thread, logs through this process and hears neither Ctrl-C nor SIGTERM: closing the iterator ends
    it at once. Should this process be killed, a worker finishes its item and ends.

    Not by joblib, whose workers each import PyTorch anew: 5 seconds of a core and 500 MB each, here 120 MB, since they
    are forked from one process that has; and one that is killed would take with it what the others are at.

    Args:
        function: is pickled where there are workers, and so are items and results. What it raises ends them all.
        items: the next one goes to the worker that is ready first.
        workers: number of processes at most. On Windows there are none.

    Yields:
        Each item with its result as they become ready; in order where they stay in this process.

    Raises:
        InputError: workers were killed; the others have gone on with what was left.
    """
    workers = min(workers, len(items))
    if workers <= 1 or sys.platform == "win32":
        yield from ((item, function(item)) for item in items)
        return
    todo, lost = deque(items), []
    idle: list[Connection] = []
    busy: dict[Connection, Item] = {}
    processes: list[BaseProcess] = []
    _start_server()
    try:
        idle += (_start(function, processes) for _ in range(workers))
        while busy or (idle and todo):
            while idle and todo:
                link = idle.pop()
                busy[link] = todo.popleft()
                with suppress(OSError):  # it was killed meanwhile, and its link is at an end
                    link.send(busy[link])
            for link in wait(list(busy)):  # type: ignore[assignment]
                try:
                    result, error, trace, records = link.recv()
                except (EOFError, OSError):
                    lost.append(busy.pop(link))
                    log.warning("a worker process was killed at %s", lost[-1])
                    continue
                for record in records:
                    logging.getLogger(record.name).handle(record)
                if error is not None:
                    raise error from RuntimeError(trace)
                idle.append(link)
                yield busy.pop(link), result
    finally:
        for process in processes:
            if process.is_alive():
                process.kill()
                process.join()
    if lost:
        more = f" and {len(todo)} more to do" if todo else ""
        raise InputError(
            f"{len(lost)} of {len(processes)} worker processes were killed, at {', '.join(map(str, lost))}{more}; "
            "the same command goes on, with workers=N (in training data.num_workers=N) for fewer if memory ran out"
        )


def _start(function: Callable[[Item], Result], processes: list[BaseProcess]) -> Connection:
    """Start a worker, add it to the processes, and give the link to it."""
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe()
    processes.append(context.Process(target=_work, args=(function, theirs), daemon=True))
    processes[-1].start()
    theirs.close()  # else the link would not end with the worker
    return ours


def _work(function: Callable[[Any], Any], link: Connection) -> None:
    """In a worker: one item after another, until the other side is closed or is no more."""
    torch.set_num_threads(1)
    threadpool_limits(1)
    logged: SimpleQueue[logging.LogRecord] = SimpleQueue()
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[logging.handlers.QueueHandler(logged)])
    with suppress(EOFError, OSError):
        while True:
            item = link.recv()
            answer: tuple[Any, Exception | None, str]
            try:
                answer = function(item), None, ""
            except Exception as e:
                answer = None, e, traceback.format_exc()
            link.send((*answer, [logged.get() for _ in range(logged.qsize())]))


def _start_server() -> None:
    """Start, once, the process that workers are forked from: it imports what this one has imported, for all of them.

    Workers inherit from it that signals are blocked, before they could hear one.
    """
    main = getattr(sys.modules["__main__"], "__spec__", None)  # each worker runs this module itself
    names = [name for name in sys.modules if name.startswith("realsr.") and (main is None or name != main.name)]
    names.append(type(multiprocessing.get_context()).__module__)  # joblib's jobs have one that workers have to find
    forkserver.set_forkserver_preload(names)
    resource_tracker.ensure_running()  # the server would start it, and unblock the signals
    heard = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, heard)
