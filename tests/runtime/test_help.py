"""``--help`` says what holds: options and their defaults, examples, groups; and imports nothing for it."""

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import hydra
import pytest
from hydra._internal.utils import get_args_parser
from omegaconf import OmegaConf

from realsr import __version__
from realsr.runtime.command_line import HYDRAS
from realsr.runtime.help import conf_dir, help_of

COMMANDS = sorted(path.stem for path in Path(conf_dir()).glob("*.yaml"))


@pytest.mark.parametrize("name", COMMANDS)
def test_help_says_what_the_command_does_before_anything_is_imported(name, tmp_path):
    asked = [sys.executable, "-m", f"realsr.{name}", "scale=4", "--help"]
    environment = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}
    done = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 0
    assert done.stdout == help_of(name)
    imported = set(re.findall(r"\| +([\w.]+)$", done.stderr, re.MULTILINE))
    assert "realsr.runtime.help" in imported
    assert not imported & {"torch", "numpy", "hydra", "pytorch_lightning", "wandb", "pyvips"}


@pytest.mark.parametrize("name", COMMANDS)
def test_options_have_the_defaults_that_help_gives(name, compose):
    options = re.findall(r"^  ([\w.]+)=(\S+)  +\S", help_of(name).partition("Groups:")[0], re.MULTILINE)
    assert 2 <= len(options) <= 10
    asked = [key for key, default in options if default == "???"]
    raw = hydra.compose(name)
    for key in asked:
        parent, _, leaf = key.rpartition(".")
        home = OmegaConf.select(raw, parent) if parent else raw
        assert OmegaConf.is_missing(home, leaf) or home[leaf] is None, key
    cfg = compose(name, *(f"{key}=given" for key in asked))
    for key, default in options:
        if key == "start":
            assert cfg.start.weights is None
        elif default == "...":  # what other options say
            assert isinstance(OmegaConf.select(cfg, key), str), key
        elif default != "???":
            value = OmegaConf.select(cfg, key, throw_on_missing=True)
            assert OmegaConf.create({"value": value}) == OmegaConf.from_dotlist([f"value={default}"]), key


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_are_commands(name, compose):
    examples = re.findall(rf"^  python -m realsr\.{name}(.*)$", help_of(name), re.MULTILINE)
    assert len(examples) == 2
    for example in examples:
        compose(name, *shlex.split(example))


def test_groups_are_those_of_the_command():
    groups = {name: re.findall(r"^  (\w+)= ", help_of(name).partition("Groups:")[2], re.MULTILINE) for name in COMMANDS}
    assert groups["upscale"] == groups["export"] == groups["app"] == []
    assert groups["collect"] == ["collector"]
    assert groups["gap"] == ["noise", "logger"]
    assert help_of("gap").count("\n  degradation@variants.NAME= any_camera, ") == 1
    assert {"model", "disc", "degradation", "experiment"} < set(groups["train"])


def test_a_command_without_a_config_says_its_use(tmp_path):
    asked = [sys.executable, "-m", "realsr.sweep", "--help"]
    done = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("python -m realsr.sweep DIR: a table")
    assert help_of("nothing") is None


def test_the_version_is_the_same_everywhere():
    root = Path(conf_dir()).parent
    assert f'version = "{__version__}"' in (root / "pyproject.toml").read_text()
    assert f"version: {__version__}" in (root / "CITATION.cff").read_text()
    assert f"## {__version__}" in (root / "CHANGELOG.md").read_text()


def test_the_options_with_dashes_are_hydras():
    options = {name for action in get_args_parser()._actions for name in action.option_strings}
    assert {name[2:] for name in options if name.startswith("--")} == HYDRAS


def test_an_option_with_dashes_is_answered_with_how_to_write_it(tmp_path):
    asked = [sys.executable, "-m", "realsr.upscale", "--ckpt", "x4.pth", "input=a"]
    done = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "realsr: --ckpt: no such option; options have no dashes, give ckpt=...\n"


def test_an_interrupt_while_modules_are_imported_is_a_line(tmp_path):
    environment = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}
    asked = [sys.executable, "-m", "realsr.upscale", "ckpt=a", "input=b", "output=c"]
    process = subprocess.Popen(asked, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=environment)
    for line in process.stderr:
        if "| " in line and "realsr.runtime.errors" in line:  # then comes PyTorch
            break
    process.send_signal(signal.SIGINT)
    said = [line for line in process.stderr.read().splitlines() if not line.startswith("import time:")]
    assert process.wait(60) in (130, -signal.SIGINT)
    assert said == ["realsr: interrupted"]
