"""Map a function over items in worker processes; a killed worker loses its own item alone."""

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
from queue import SimpleQueue
from typing import Any, TypeVar

import torch
from threadpoolctl import threadpool_limits

from realsr.runtime.errors import InputError

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")
# signals that end a command: Ctrl-C, a closed terminal, and those that schedulers send before they kill
STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)
)
GPU_WORKERS = 4  # not measured; small networks leave most of a GPU idle, but each process has a context there


def default_workers(device: torch.device) -> int:
    """Number of worker processes: one for each core that this process may use, or :data:`GPU_WORKERS` on a GPU."""
    if device.type != "cpu":
        return GPU_WORKERS
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ignore_signals(worker: int = 0) -> None:
    """Ignore STOP_SIGNALS, in a worker of a DataLoader: they go to all processes, and the main one ends its workers."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def end_workers() -> None:
    """Kill the DataLoader workers that an error left; they ignore SIGTERM, and this process would wait for them."""
    for worker in multiprocessing.active_children():
        with suppress(RuntimeError):  # PyTorch's, about a killed worker
            worker.kill()
            worker.join()


def side_by_side(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int
) -> Generator[tuple[Item, Result], None, None]:
    """Call a function for every item in worker processes; with one worker or item, in this process.

    A worker has one thread, logs through this process and ignores Ctrl-C and SIGTERM. Closing the iterator kills the
    workers. If this process is killed, each worker finishes its item and ends.

    joblib's workers would each import PyTorch: 5 seconds of a core and 500 MB each. These take 120 MB, forked from one
    process that has imported it. And a killed worker of joblib's ends the others.

    Args:
        function: pickled, as are items and results. An exception in it ends all workers.
        items: each goes to the next worker that is free.
        workers: number of processes at most; none on Windows.

    Yields:
        Each item with its result, as they become ready; in order without workers.

    Raises:
        InputError: workers were killed; the others have done the remaining items.

    >>> list(side_by_side(abs, [-1, 2], workers=1))
    [(-1, 1), (2, 2)]
    """
    workers = min(workers, len(items))
    if workers <= 1 or sys.platform == "win32":
        yield from ((item, function(item)) for item in items)
        return
    _start_server()
    context = multiprocessing.get_context("forkserver")
    links = [context.Pipe() for _ in range(workers)]
    processes = [context.Process(target=_work, args=(function, theirs), daemon=True) for _, theirs in links]
    todo, lost, idle = deque(items), [], [ours for ours, _ in links]
    busy: dict[Connection, Item] = {}
    try:
        for process, (_, theirs) in zip(processes, links, strict=True):
            process.start()
            theirs.close()  # so that the link ends with the worker
        while busy or (idle and todo):
            while idle and todo:
                link = idle.pop()
                busy[link] = todo.popleft()
                with suppress(OSError):  # the worker was killed meanwhile
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


def _work(function: Callable[[Any], Any], link: Connection) -> None:
    """Loop of a worker: one item after another, until the link ends."""
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
    """Start, once, the process that workers are forked from; it imports for all of them what is imported here.

    Workers inherit its blocked signals, so that no signal reaches them before they could ignore it.
    """
    main = getattr(sys.modules["__main__"], "__spec__", None)  # a worker runs this module itself
    names = [name for name in sys.modules if name.startswith("realsr.") and (main is None or name != main.name)]
    names.append(type(multiprocessing.get_context()).__module__)  # in joblib's jobs it is one of joblib's
    forkserver.set_forkserver_preload(names)
    resource_tracker.ensure_running()  # else the server starts it, which unblocks the signals
    heard = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, heard)
