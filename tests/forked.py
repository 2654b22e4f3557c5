"""Commands as ``python -m`` runs them, but for the six seconds of a core that their imports take."""

from __future__ import annotations

import atexit
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
from multiprocessing import get_context, set_start_method
from pathlib import Path

from realsr.runtime.workers import STOP_SIGNALS, _start_server


class Command:
    """A command of realsr in a process of its own, with the part of ``subprocess.Popen`` that tests use.

    It is forked from the process that workers are forked from, which has imported PyTorch and has done nothing yet.

    Args:
        arguments: the module and its options.
        cwd: folder in which it runs.
        session: make it the leader of a session, and so of a process group.
    """

    def __init__(self, *arguments: object, cwd: Path, session: bool = False) -> None:
        _start_server()
        self.folder = tempfile.TemporaryDirectory()
        self.files = [Path(self.folder.name) / name for name in ("out", "err")]
        given = [*map(str, arguments)], str(cwd), dict(os.environ), session, [*map(str, self.files)]
        self.process = get_context("forkserver").Process(target=_become, args=given)
        self.process.start()
        atexit.register(self.process.kill)  # else pytest would wait for one that a test has left

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end, and give what it printed to stdout and to stderr."""
        self.process.join(timeout)
        assert self.returncode is not None, f"still running after {timeout} s"
        return self.files[0].read_text(), self.files[1].read_text()

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)


def run_forked(
    *arguments: object, cwd: Path, check: bool = True, session: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    process = Command(*arguments, cwd=cwd, session=session)
    out, err = process.communicate()
    assert not check or process.returncode == 0, out + err
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def _become(arguments: list[str], cwd: str, environment: dict[str, str], session: bool, files: list[str]) -> None:
    """Make this process the command."""
    if session:
        os.setsid()
    for number in STOP_SIGNALS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for file, descriptor in zip(files, (1, 2), strict=True):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    set_start_method(None, force=True)  # the default, not that of this process
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.path[:0] = [cwd, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = arguments
    sys.modules.pop(arguments[0], None)  # it is to run, though it is imported
    try:
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    finally:
        threading._shutdown()  # as an interpreter ends: joblib's idle workers would be waited for, five minutes
