"""Hydra for all commands: a config is composed and checked, and a mistake ends with one line and an exit code."""

import hashlib
import io
import math
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from realsr.runtime.command_line import check_dashes, quote_paths
from realsr.runtime.config_check import check_config, nearest
from realsr.runtime.errors import InputError, one_line
from realsr.runtime.files import atomic_write
from realsr.runtime.hardware import pick_device
from realsr.runtime.help import conf_dir, group_options
from realsr.runtime.workers import STOP_SIGNALS

REFUSED = ('Could not detect "srun"', "Config group override must be")  # messages of submitit and Hydra
KILLED = ("TerminatedWorkerError", "UncompletedJobError")  # joblib's and submitit's exceptions
# in a run's folder: metrics of the last validation, once it is done; why it failed, in the first line
METRICS, FAILED = "metrics.json", "failed.txt"
OPTIONS = "options.yaml"  # of the run's command line; Hydra's own file may be of a later run that was refused there
RENAMED = {  # beginnings of options of 0.1.0 that are not like their new ones
    **{"data.val_": "data.validation.", "data.build_pools": "data.pools.build", "pools": "pool_dir", "data": "testset"},
    "data.estimate_workers": "data.pools.builder.workers",
}


def command(name: str, then: str = "") -> Callable[[Callable[[DictConfig], Any]], Callable[[], None]]:
    """Decorator that makes a function of a composed config the ``main`` of ``python -m realsr.<name>``.

    The config is checked before the function runs. Bad input ends with one line and exit code 2, Ctrl-C and the other
    STOP_SIGNALS with 130. In a sweep that ends with a table (``hydra.callbacks.table``) a failed run does not end the
    others.

    Args:
        name: of the primary config.
        then: how to go on after an interruption.
    """

    def decorate(run: Callable[[DictConfig], Any]) -> Callable[[], None]:
        def checked(cfg: DictConfig) -> Any:
            try:
                check_config(cfg, name)
                return run(cfg)
            except Exception as e:
                job, line = HydraConfig.get(), explain(e, name)
                if job.mode is RunMode.RUN and line:
                    stop(line, 2)  # from here, since Hydra would add lines
                if job.mode is RunMode.MULTIRUN and "table" in job.callbacks:
                    _write_failure(e, line)  # the others go on, and the table at the end reports it
                    return math.nan
                raise

        after = f"; {then}" if then else ""

        def main() -> None:
            os.environ["HYDRA_FULL_ERROR"] = os.environ["OC_CAUSE"] = "1"  # Hydra raises, and prints nothing itself
            os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
            if isinstance(sys.stdout, io.TextIOWrapper):
                sys.stdout.reconfigure(errors="backslashreplace")  # file names that the terminal cannot show
            for number in STOP_SIGNALS:
                if signal.getsignal(number) is signal.SIG_DFL:
                    signal.signal(number, signal.default_int_handler)
            try:
                check_dashes(sys.argv[1:])
                # -m first: argparse does not know the options after one that stands between them
                sys.argv[1:] = sorted(quote_paths(sys.argv[1:]), key=lambda option: option not in ("-m", "--multirun"))
                hydra.main(version_base="1.3", config_path=conf_dir(), config_name=name)(checked)()
            except (KeyboardInterrupt, SystemExit) as e:
                if isinstance(e, KeyboardInterrupt) or e.code == 1:  # Lightning's after Ctrl-C; Hydra has none
                    stop(f"interrupted{after}", 130)
                raise
            except Exception as e:
                line = explain(e, name)
                if type(e).__name__ in KILLED:
                    killed = "a job of the sweep was killed (memory? hydra.launcher.timeout_min?); what is done stays"
                    line = f"{killed}{after}"
                if line is None:
                    raise
                stop(line, 2)

        return main

    return decorate


def _write_failure(error: Exception, line: str | None) -> None:
    """Print why a run of a sweep failed, and write it into the run's folder, with a traceback if the program failed."""
    path, trace = output_dir() / FAILED, ""
    if line is None:
        line = f"{type(error).__name__}: {' '.join(str(error).split())[:200]} (a fault of the program, see {path})"
        trace = traceback.format_exc()
    with atomic_write(path) as file:
        file.write(f"{line}\n{trace}".encode())
    print(f"realsr: {path.parent.name}: {line}", file=sys.stderr)


def explain(error: BaseException, command: str = "train") -> str | None:
    """One line about a mistake in the input or the config of a command; None for a fault of the program.

    >>> explain(InputError("scale=5: choose 2, 3 or 4"))
    'scale=5: choose 2, 3 or 4'
    >>> explain(TypeError("a fault of ours"))
    """
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    if any(isinstance(link, ConnectionResetError) or str(link).startswith("DataLoader worker (pid") for link in chain):
        return "a process that reads photos was killed (memory? lower data.num_workers); go on with ckpt=auto"
    lines = (*map(_own_line, chain), *(_config_line(link, command) for link in chain))
    return next(filter(None, lines), None)


def _own_line(error: BaseException) -> str | None:
    """The line of an InputError, or of an OSError with the file that it names."""
    if not isinstance(error, InputError | OSError) or isinstance(error, HydraException):  # some of Hydra's are both
        return None
    if str(error).startswith("Caught "):
        # from a DataLoader's worker; PyTorch makes the traceback its text, whose last line is the error
        return str(error).splitlines()[-1].partition(": ")[2]
    if isinstance(error, InputError):
        return str(error)
    where = f"{error.filename}: " if error.filename else ""
    return one_line(f"{where}{os.strerror(error.errno)}; make room or choose another folder") if error.errno else None


def _config_line(error: BaseException, command: str) -> str | None:
    """The message of OmegaConf, Lightning, W&B, Hydra or a launcher about the config, as one line."""
    text = str(error)
    if isinstance(error, YAMLError):
        return f"a config file is no YAML: {' '.join(text.split())}"
    if isinstance(error, OverrideParseException):
        return f"{error.override!r} is no option; write key=value, and \"key='value'\" with special characters in it"
    if isinstance(error, InstantiationException) and error.__cause__:
        # values that Lightning, PyTorch or spandrel refuse; of our constructors, others than these are faults
        refused = "target 'realsr." not in text or isinstance(error.__cause__, ValueError | ModuleNotFoundError)
        return f"{text.partition('full_key: ')[2]}: {' '.join(str(error.__cause__).split())}" if refused else None
    if text.startswith("Could not override '"):  # Hydra's next line advises to append it, which helps few
        key = text.split("'")[1]
        inner = re.search(rf"full_key: ({re.escape(key)}\.\S+)", str(error.__cause__))  # which is unknown in KEY={a:1}
        key = inner[1] if inner else key
        return f"{key}: no such option{_hint(key, command)}"
    if found := re.search(r"Missing mandatory value: (\S+)", text):
        return f"{found[1]} is not set; give {found[1]}=... on the command line"
    config = isinstance(error, HydraException | OmegaConfBaseException) or text.startswith(REFUSED)
    config = config or "Misconfiguration" in type(error).__name__ or type(error).__module__.startswith("wandb.errors")
    return " ".join(text.partition("Config search path")[0].split()) if config else None


def _hint(key: str, command: str) -> str:
    """For an unknown option of a command: where it is, or the name that is most like it, or how a class gets it."""
    section, _, name = key.rpartition(".")
    files = {option: Path(conf_dir(), section, f"{option}.yaml") for option in group_options(section)}
    having = [f"{section}={option}" for option, file in files.items() if f"\n{name}: " in f"\n{file.read_text()}"]
    if having:
        return f" but with {' and '.join(having)}"
    known = _option_names(command)
    if key in known:
        return " beside the other options, which leave its part out"
    inside = sorted(option for option in known if option.startswith(f"{section}.") and option.endswith(f".{name}"))
    renamed = [now + key.removeprefix(was) for was, now in RENAMED.items() if key.startswith(was)]
    placed = sorted(name for name in known if name.startswith(f"{key}@"))[:1]  # a group that a command has in places
    if close := " or ".join(inside or placed or [name for name in renamed if name in known]):
        return f", did you mean {close}?"
    home = f"{section}." if section in known else ""
    hint = nearest(key.removeprefix(home), [name.removeprefix(home) for name in known if name.startswith(home)], home)
    return hint or (f" in conf/; +{key}=VALUE gives its class one more" if f"{home}_target_" in known else "")


def _option_names(command: str) -> set[str]:
    """Full names of the options in a command's file and in those of its groups, and of the groups."""
    names, root = set[str](), Path(conf_dir())
    groups = re.findall(r"^  - (\w+)(@[\w.]+)?: ", (root / f"{command}.yaml").read_text(), re.MULTILINE)
    files = [(file, place[1:]) for group, place in groups for file in (root / group).rglob("*.yaml")]
    for file, place in [(root / f"{command}.yaml", ""), *files]:
        group = ".".join(file.parent.relative_to(root).parts)
        header = re.search(r"# @package (\S+)", file.read_text())
        home = place or (header[1].replace("_global_", "") if header else group)
        names.add(f"{group}@{place}" if place else group)
        names |= {*_names_in(OmegaConf.to_container(OmegaConf.load(file)), home)}
    return names - {""}


def _names_in(node: Any, path: str) -> Iterator[str]:
    for key, value in node.items() if isinstance(node, dict) else ():
        name = f"{path}.{key}".lstrip(".")
        yield from (name, *_names_in(value, name))


def output_dir() -> Path:
    """Absolute path of this run's folder."""
    return Path(HydraConfig.get().runtime.output_dir)


def pools_given(cfg: DictConfig) -> list[str]:
    """``pool_dir=DIR`` for the next command, if it was given; no option where it follows from the photos' folder.

    >>> pools_given(OmegaConf.create({"pool_dir": "mine"})), pools_given(OmegaConf.create({"pool_dir": "${name}"}))
    (['pool_dir=mine'], [])
    """
    return [] if OmegaConf.is_interpolation(cfg, "pool_dir") else [f"pool_dir={cfg.pool_dir}"]


def _pool_name(source_dir: str | None) -> str:
    """Name of the pools' folder: readable, and another for every source folder."""
    if not source_dir:
        raise InputError("no photos; give data.source_dir=DIR, your camera's photos (or pool_dir=DIR, its pools)")
    path = Path(source_dir).expanduser().resolve()
    return f"{path.name}-{hashlib.sha256(str(path).encode()).hexdigest()[:6]}"


def _sweep_name(group: str | None) -> str | None:
    """``group``; where that is None, in a sweep, the name of the sweep's folder."""
    job = HydraConfig.get()
    return group or (Path(job.sweep.dir).name if job.mode is RunMode.MULTIRUN else "") or None


OmegaConf.register_new_resolver("pool_name", _pool_name, replace=True)
OmegaConf.register_new_resolver("on_gpu", lambda name: pick_device(name).type == "cuda", replace=True)
OmegaConf.register_new_resolver("sweep_name", _sweep_name, replace=True)
OmegaConf.register_new_resolver("given", lambda value: value is not None, replace=True)


def stop(line: str, status: int) -> NoReturn:
    """End the command with a line on stderr and an exit status."""
    print(f"realsr: {line}", file=sys.stderr)
    sys.exit(status)
