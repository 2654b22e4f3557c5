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
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
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
            check_config(cfg, name)
            return run(cfg)

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
        link = link.__cause__ or link.__context__
    for link in chain:
        if isinstance(link, InputError):
            return str(link)
        if isinstance(link, OSError) and link.errno is not None and link.filename is not None:
            return f"{link.filename}: {os.strerror(link.errno)}"
        if isinstance(link, OSError) and link.errno == 28:
            return "the disk is full"
        if isinstance(link, YAMLError):
            return f"a config file is no YAML: {' '.join(str(link).split())}"
    for link in chain:
        if type(link).__name__ == "MisconfigurationException":  # Lightning's word for impossible Trainer options
            return " ".join(str(link).split())
    for link in chain:
        if isinstance(link, (HydraException, OmegaConfBaseException)) and "Error in call to target" not in str(link):
            return _explain_hydra(str(link))
    return None


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
    for key in map(str, node):
        if key not in SPECIAL_KEYS and key not in known:
            raise InputError(f"{path}.{key}: {target.__qualname__} has no such option{_nearest(key, known)}")


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


def _pool_name(source_dir: str) -> str:
    """A folder name that is readable and different for every source folder."""
    path = Path(source_dir).expanduser().resolve()
    return f"{path.name}-{hashlib.sha256(str(path).encode()).hexdigest()[:6]}"


OmegaConf.register_new_resolver("pool_name", _pool_name, replace=True)


def _stop(line: str, status: int) -> None:
    print(f"realsr: {line}", file=sys.stderr)
    sys.exit(status)
