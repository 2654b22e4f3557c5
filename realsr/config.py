"""Hydra, once for all commands: where conf/ is, one clear line for every mistake, exit codes, option checks."""

from __future__ import annotations

import difflib
import hashlib
import inspect
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from realsr.errors import InputError

SPECIAL_KEYS = {"_target_", "_partial_", "_args_", "_convert_", "_recursive_"}


def conf_dir() -> str:
    """Absolute path of conf/: beside the package in a checkout, inside it in a wheel."""
    here = Path(__file__).resolve().parent
    for folder in (here.parent / "conf", here / "conf"):
        if (folder / "train.yaml").is_file():
            return str(folder)
    raise FileNotFoundError(f"no conf/ beside or in {here}: the installation is not complete")


def command(name: str) -> Callable[[Callable[[DictConfig], Any]], Callable[[], None]]:
    """Make a function of a composed config the ``main`` of ``python -m realsr.<name>``.

    The config is checked before the function runs. A user's mistake is printed as one line and exits with 2;
    Ctrl-C exits with 130.
    """

    def decorate(run: Callable[[DictConfig], Any]) -> Callable[[], None]:
        def checked(cfg: DictConfig) -> Any:
            try:
                check_config(cfg, name)
                return run(cfg)
            except Exception as e:
                # leave from here, since Hydra would add lines; but one run of a sweep does not end the others
                if HydraConfig.get().mode is RunMode.RUN and (line := explain(e)):
                    _stop(line, 2)
                raise

        def main() -> None:
            # have Hydra raise its exceptions instead of printing them over many lines
            os.environ["HYDRA_FULL_ERROR"] = "1"
            os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
            try:
                hydra.main(version_base="1.3", config_path=conf_dir(), config_name=name)(checked)()
            except KeyboardInterrupt:
                _stop("interrupted", 130)
            except Exception as e:
                if line := explain(e):
                    _stop(line, 2)
                raise

        return main

    return decorate


def explain(error: BaseException) -> str | None:
    """One line for a mistake of the user's; None for an error of the program's."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    for kind in (InputError, OSError, YAMLError, OverrideParseException, InstantiationException, HydraException):
        for link in chain:
            if isinstance(link, kind) and (line := _one_line(link)):
                return line
    return next((_explain_hydra(str(link)) for link in chain if isinstance(link, OmegaConfBaseException)), None)


def _one_line(error: BaseException) -> str | None:
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError) and not isinstance(error, HydraException):  # Hydra's are both
        if error.errno is None:
            return None
        return f"{error.filename}: {os.strerror(error.errno)}" if error.filename else os.strerror(error.errno)
    if isinstance(error, YAMLError):
        return f"a config file is no YAML: {' '.join(str(error).split())}"
    if isinstance(error, OverrideParseException):
        return f"{error.override!r} is no option; write key=value"
    if isinstance(error, InstantiationException):
        # a value that Lightning or torch refuses; other errors of a constructor are the program's
        cause = error.__cause__
        refused = isinstance(cause, ValueError) or "Misconfiguration" in type(cause).__name__
        return f"{str(error).partition('full_key: ')[2]}: {' '.join(str(cause).split())}" if refused else None
    return _explain_hydra(str(error))


def _explain_hydra(text: str) -> str:
    """Hydra's messages in one line, with the nearest option or key."""
    if found := re.search(r"Could not find '([^']+)/([^'/]+)'", text):
        group, option = found.groups()
        options = re.findall(r"^\t(\S+)$", text, re.MULTILINE)
        return f"{group}={option}: no such option{_nearest(option, options)} (there are {', '.join(options)})"
    if found := re.search(r"Could not override '([^']+)'", text):
        key = found.group(1)
        return f"{key}: no such option{_nearest(key, _override_names())}"
    return " ".join(text.split())


def _override_names() -> list[str]:
    """All that can stand left of `=` on the command line: config groups and keys of every group's options."""
    root = Path(conf_dir())
    names = {path.parent.relative_to(root).as_posix() for path in root.glob("*/*.yaml")}
    for path in root.rglob("*.yaml"):
        text = path.read_text()
        header = re.search(r"^# @package (\S+)", text, re.MULTILINE)
        package = header.group(1) if header else path.parent.relative_to(root).as_posix()
        prefix = "" if package in (".", "_global_") else f"{package}."
        names.update(f"{prefix}{key}" for key in _flat_keys(OmegaConf.load(path)))
    return sorted(names)


def _flat_keys(node: Any, prefix: str = "") -> Iterable[str]:
    if not isinstance(node, DictConfig):
        return
    for key in map(str, node):
        if key not in SPECIAL_KEYS and key != "defaults":
            yield f"{prefix}{key}"
            yield from _flat_keys(node._get_node(key), f"{prefix}{key}.")


def check_config(cfg: DictConfig, name: str) -> None:
    """Compare every key with what its target accepts; Hydra itself checks the command line but no file.

    Args:
        cfg: a composed config.
        name: of the primary config; what that composes to says which keys the top level has.

    Raises:
        InputError: an unknown key (with the nearest known one), or a value that was left at ``???``.
    """
    known = [str(key) for key in hydra.compose(name)]
    for key in map(str, cfg):
        if key not in known:
            raise InputError(f"{key}: no such option of realsr.{name}{_nearest(key, known)}")
    if missing := sorted(OmegaConf.missing_keys(cfg)):
        raise InputError(f"{missing[0]} is not set; give {missing[0]}=... on the command line")
    _check_node(cfg, "")


def _check_node(node: Any, path: str) -> None:
    if isinstance(node, ListConfig):
        for index in range(len(node)):
            _check_node(node[index], f"{path}[{index}]")
    if not isinstance(node, DictConfig):
        return
    if "_target_" in node:
        _check_target(node, path)
    for key in map(str, node):
        _check_node(node[key], f"{path}.{key}" if path else key)


def _check_target(node: DictConfig, path: str) -> None:
    target = hydra.utils.get_object(node["_target_"])
    parameters = inspect.signature(target).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    known = [p for p in parameters if p != "self"]
    hints = get_type_hints(target.__init__ if inspect.isclass(target) else target)
    for key in map(str, node):
        if key in SPECIAL_KEYS:
            continue
        if key not in known:
            raise InputError(f"{path}.{key}: {target.__qualname__} has no such option{_nearest(key, known)}")
        if not _fits(node[key], hints.get(key)):
            wanted = getattr(hints[key], "__name__", str(hints[key]))
            raise InputError(f"{path}.{key}={node[key]}: must be {wanted}")


def _fits(value: Any, hint: Any) -> bool:
    """Whether a plain value may stand where ``hint`` is; hints that are not about plain values fit all."""
    options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    plain = all(option in (int, float, str, bool, type(None)) for option in options)
    if not plain or isinstance(value, (DictConfig, ListConfig)):
        return True
    return type(value) in options or (type(value) is int and float in options)


def _nearest(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f", did you mean {close[0]}?" if close else ""


def output_dir() -> Path:
    """The folder of this run, as an absolute path."""
    return Path(HydraConfig.get().runtime.output_dir)


def check_writable(folder: Path, need_bytes: int = 50_000_000) -> None:
    """Fail now rather than after hours.

    Raises:
        InputError: ``folder`` cannot be made or written to, or has less than ``need_bytes`` free.
    """
    probe = folder / ".write-probe"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as e:
        raise InputError(f"{folder}: cannot be written to ({e.strerror}); choose another folder") from e
    free = shutil.disk_usage(folder).free
    if free < need_bytes:
        raise InputError(f"{folder}: only {free / 1e6:.0f} MB are free, {need_bytes / 1e6:.0f} are needed; make room")


def pick_device(accelerator: str) -> torch.device:
    """``auto``, ``cpu`` or ``gpu`` to a device.

    Raises:
        InputError: there is no such device.
    """
    gpus = [name for name, api in (("cuda", torch.cuda), ("mps", torch.mps)) if api.is_available()]
    if accelerator not in ("auto", "cpu", "gpu"):
        raise InputError(f"accelerator={accelerator}: choose auto, cpu or gpu")
    if accelerator == "gpu" and not gpus:
        raise InputError("accelerator=gpu: there is no GPU that PyTorch can use; take accelerator=cpu or auto")
    return torch.device(gpus[0] if gpus and accelerator != "cpu" else "cpu")


def _pool_name(source_dir: str | None) -> str:
    """A folder name that is readable and different for every source folder."""
    if source_dir is None:
        raise InputError("no photos; give data.source_dir=DIR, your camera's photos (or pool_dir=DIR, its pools)")
    path = Path(source_dir).expanduser().resolve()
    return f"{path.name}-{hashlib.sha256(str(path).encode()).hexdigest()[:6]}"


OmegaConf.register_new_resolver("pool_name", _pool_name, replace=True)


def _stop(line: str, status: int) -> None:
    print(f"realsr: {line}", file=sys.stderr)
    sys.exit(status)
