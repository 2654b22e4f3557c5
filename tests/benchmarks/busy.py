"""One program with PyTorch's threads as they are by default and as our commands set them, alone and beside others."""

import contextlib
import os
import statistics
import subprocess
import sys
import time

import realsr

POLICIES = {"default": {}, "asleep": {"OMP_WAIT_POLICY": "passive"}, "ours": realsr.WAITING}
LOADS = {  # what others compute all the time: a process for each core, or one with a thread for each
    "python": "print(flush=True)\nwhile os.getppid() == parent: sum(range(10000))",
    "torch": "import torch\nx = torch.rand(512, 512)\nprint(flush=True)\nwhile os.getppid() == parent: (x @ x).relu()",
}
START = "import os\nparent = os.getppid()\n"  # it ends with the benchmark, however that ends
PAUSE = 0.05  # seconds, after which threads of the one that is waiting spin no more


class Runner:
    """A process that does one step for every line it gets, and answers with its seconds.

    Args:
        command: that starts it.
        variables: of its environment; of OpenMP it has no others.
    """

    def __init__(self, command, variables=None):
        plain = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_", "KMP_", "MKL_"))}
        how = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": plain | (variables or {})}
        self.process = subprocess.Popen(command, **how)

    def step(self):
        time.sleep(PAUSE)
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.kill()
        self.process.communicate()


@contextlib.contextmanager
def others(load):
    """Other processes that are at work when this is entered, and killed when it is left."""
    with contextlib.ExitStack() as stack:
        count = os.cpu_count() if load == "python" else 1
        started = [stack.enter_context(Runner([sys.executable, "-c", START + LOADS[load]])) for _ in range(count)]
        for runner in started:
            runner.process.stdout.readline()
        yield


def in_turns(runners, seconds, least=2):
    """Seconds of the steps of each runner, which take turns for so long, in ``least`` rounds at least."""
    end, rounds = time.monotonic() + seconds, []
    while len(rounds) < least or time.monotonic() < end:
        rounds.append([runner.step() for runner in runners])
    return list(zip(*rounds, strict=True))


def compare(command, load, seconds):
    """Print what a step takes with each policy, alone and beside ``load``, and by how much the default is slower."""
    with contextlib.ExitStack() as stack:
        runners = [stack.enter_context(Runner(command, variables)) for variables in POLICIES.values()]
        in_turns(runners, 0, 1)  # the first ones allocate
        times = {"alone": in_turns(runners, seconds)}
        with others(load):
            times["busy"] = in_turns(runners, 3 * seconds)
    for state, of_policies in times.items():
        for name, steps in zip(POLICIES, of_policies, strict=True):
            shown = [1e3 * f(steps) for f in (statistics.median, min, max)]
            print("{}, {}: {:.0f} ms a step (min {:.0f}, max {:.0f}), {} steps".format(name, state, *shown, len(steps)))
    (before, _, alone), (default, _, ours) = times.values()
    print(f"ours keeps {statistics.median(alone) / statistics.median(ours):.2f} of its speed under the load")
    for name, slow, fast in (("ratio alone", before, alone), ("ratio", default, ours)):
        ratios = [a / b for a, b in zip(slow, fast, strict=True)]
        print(f"{name}: {statistics.median(ratios):.2f} (min {min(ratios):.2f}, max {max(ratios):.2f})")
