"""Worker processes: what they have, what comes back from them, and what is left when one or all are killed."""

import logging
import os
import signal
import time
from contextlib import closing

import pytest
import torch

from realsr.runtime.errors import InputError
from realsr.runtime.workers import default_workers, side_by_side


def state(item):
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    return os.getpid(), torch.get_num_threads(), {signal.SIGINT, signal.SIGTERM} <= blocked


def log_it(item):
    logging.getLogger("realsr.somewhere").warning("at %s", item)
    return item


def refuse(item):
    if item == "b":
        raise OSError(28, "No space left on device", "pool/b.npz")
    return item


def be_killed(item):
    if item in ("b", "all"):
        os.kill(os.getpid(), signal.SIGKILL)
    return item.upper()


def take_a_minute(item):
    if item:
        time.sleep(60)
    return os.getpid()


def test_workers_are_processes_of_one_thread_that_hear_no_signal():
    pids, threads, deaf = zip(*(result for _, result in side_by_side(state, range(6), 3)), strict=True)
    assert os.getpid() not in pids
    assert 1 <= len(set(pids)) <= 3
    assert set(threads) == {1}
    assert all(deaf)
    assert {signal.SIGINT, signal.SIGTERM}.isdisjoint(signal.pthread_sigmask(signal.SIG_BLOCK, ()))


@pytest.mark.parametrize(("items", "workers"), [(3, 1), (1, 3), (0, 3)])
def test_no_process_is_started_for_nothing(items, workers):
    results = list(side_by_side(lambda item: os.getpid(), range(items), workers))
    assert results == [(item, os.getpid()) for item in range(items)]


def test_what_workers_log_is_logged_here(caplog):
    assert sorted(side_by_side(log_it, "abc", 2)) == [("a", "a"), ("b", "b"), ("c", "c")]
    assert sorted(record.getMessage() for record in caplog.records) == ["at a", "at b", "at c"]
    assert {record.name for record in caplog.records} == {"realsr.somewhere"}


def test_what_workers_raise_is_raised_here():
    with pytest.raises(OSError, match="No space") as error:
        list(side_by_side(refuse, "abc", 2))
    assert error.value.filename == "pool/b.npz"
    assert "in refuse" in str(error.value.__cause__)


def test_a_worker_that_is_killed_takes_one_item_with_it(caplog):
    results = {}
    with pytest.raises(InputError, match=r"1 of 2 worker processes were killed, at b; the same command goes on"):
        for item, result in side_by_side(be_killed, "abcdef", 2):
            results[item] = result
    assert results == {item: item.upper() for item in "acdef"}
    assert "a worker process was killed at b" in caplog.text


def test_all_workers_killed_say_what_is_left():
    with pytest.raises(InputError, match="2 of 2 worker processes were killed, at all, all and 1 more to do"):
        list(side_by_side(be_killed, ["all"] * 3, 2))


def test_closing_the_iterator_ends_the_workers_at_once():
    start = time.monotonic()
    with closing(side_by_side(take_a_minute, range(3), 2)) as results:
        _, pid = next(results)
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        for _ in range(100):
            os.kill(pid, 0)
            time.sleep(0.1)
    assert time.monotonic() - start < 50


def test_default_workers():
    assert 1 <= default_workers(torch.device("cpu")) <= os.cpu_count()
    assert default_workers(torch.device("cuda")) >= 1
