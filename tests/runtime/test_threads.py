"""PyTorch's threads soon sleep at barriers in our commands: OpenMP is told before PyTorch is imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMANDS = sorted(p.stem for p in (ROOT / "realsr").glob("*.py") if "main = command(" in p.read_text())
TOLD = "os.environ.get('OMP_WAIT_POLICY'), os.environ.get('GOMP_SPINCOUNT')"
SCRIPT = "import sys\nfrom realsr.train import main\nsys.exit(main())\n"


@pytest.fixture
def told(tmp_path):
    """``told("-m", "realsr.train", NAME=...)``: what a fresh process tells OpenMP at the time it imports PyTorch."""
    (tmp_path / "torch.py").write_text(f"import os\nprint({TOLD}, flush=True)\nos._exit(0)\n")
    (tmp_path / "scripts").mkdir()
    for name in ("realsr-train", "own-train"):
        (tmp_path / "scripts" / name).write_text(SCRIPT)
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}

    def run(*arguments, **variables):
        env = {**plain, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", **variables}
        done = subprocess.run([sys.executable, *arguments], cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


def test_every_command_has_threads_sleep(told):
    assert {"train", "estimate", "quickstart", "upscale"} <= set(COMMANDS)
    for name in [*COMMANDS, "app"]:
        assert told("-m", f"realsr.{name}") == "passive 1000", name
    assert told("scripts/realsr-train") == "passive 1000"


@pytest.mark.parametrize(
    ("variables", "policy"),
    [({"OMP_WAIT_POLICY": "active"}, "active None"), ({"GOMP_SPINCOUNT": "0"}, "None 0")],
)
def test_what_the_user_says_holds(told, variables, policy):
    assert told("-m", "realsr.train", **variables) == policy


def test_programs_of_others_keep_theirs(told):
    assert told("scripts/own-train") == told("-c", "import realsr.train") == "None None"


def test_nothing_is_said_once_pytorch_is_there(told):
    late = "import os, sys; sys.modules['torch'], sys.argv = os, ['-m']; import realsr; "
    assert told("-c", f"{late}print({TOLD})") == "None None"
