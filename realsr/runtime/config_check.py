"""Check the keys and values of a composed config against the signatures of its targets, which Hydra does not."""

import difflib
import functools
import inspect
import pkgutil
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import hydra
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, ListConfig, OmegaConf

from realsr.runtime.errors import InputError

SPECIAL_KEYS = {"_target_", "_partial_", "_args_", "_convert_", "_recursive_"}
PLAIN = (int, float, str, bool, type(None))
# names that must not be empty, since Path("") is the working directory
NAMES = ("ckpt", "hr", "input", "lr", "name", "output", "pool_dir", "pools", "start.weights")


def check_config(cfg: DictConfig, name: str) -> None:
    """Check every key and value of a command's config; Hydra checks keys on the command line, but not those of files.

    Raises:
        InputError: a key is unknown (names the nearest known one), a value is missing (``???``) or of a wrong type, or
            an option of a group is for another command.
    """
    default = _default(name)
    known = [str(key) for key in default if key != "hydra"]
    groups = GlobalHydra.instance().config_loader().list_groups("")
    for key in map(str, cfg):
        if key not in known:
            header = "; a file in it begins with # @package _global_" if key in groups else ""
            raise InputError(f"{key}: no such option of realsr.{name}{header or nearest(key, known)}")
    if missing := sorted(OmegaConf.missing_keys(cfg)):
        raise InputError(f"{missing[0]} is not set; give {missing[0]}=... on the command line")
    _check(cfg, OmegaConf.to_container(default), "")


@functools.cache  # tests compose hundreds of configs
def _default(name: str) -> DictConfig:
    """A primary config composed without options, with Hydra's own part."""
    return hydra.compose(name, return_hydra_config=True)


def _check(node: Any, default: Any, path: str) -> None:
    """Check what is at ``path`` of a config; ``default`` is the same place of the primary config, if it has one."""
    if isinstance(node, ListConfig):
        for index, item in enumerate(node):
            _check(item, None, f"{path}[{index}]")
    if not isinstance(node, DictConfig):
        return
    plain = default if isinstance(default, dict) and "_target_" not in node else {}
    if "_target_" in node:
        _check_target(node, path)
    elif isinstance(default, dict) and "_target_" in default:
        raise InputError(f"{path}: has no _target_; leave ~{path} out, or give {path}.OPTION=VALUE")
    for key in map(str, node):
        name = f"{path}.{key}" if path else key
        if key in plain and not OmegaConf.is_interpolation(node, key):
            _check_plain(name, node[key], plain[key])
        _check(node[key], plain.get(key), name)


def _check_plain(name: str, value: Any, default: Any) -> None:
    """Check that a value outside of targets has the type of the default; there ``null`` and ``???`` mean text."""
    if value == "" and name in NAMES:  # of an unset shell variable
        option = name.removesuffix(".weights")  # start=FILE stands for start.weights=FILE
        raise InputError(f"{option}= is empty; give a name, or leave {option}= out")
    wanted = str if default in (None, "???") else type(default)
    built = isinstance(default, dict) and "_target_" in default
    one_option = re.fullmatch(r"\$\{[^}]*\}", str(default))  # which may be null
    left_out = value is None and (default is None or built or one_option)
    if not left_out and not _fits(value, wanted):
        raise InputError(_misfit(name, value, wanted))


def _check_target(node: DictConfig, path: str) -> None:
    try:
        target = pkgutil.resolve_name(node["_target_"])
        parameters = inspect.signature(target).parameters
    except (ImportError, AttributeError, TypeError, ValueError) as e:
        raise InputError(f"{path}._target_={node['_target_']}: no such class or function ({e})") from e
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    known = [p for p in parameters if p != "self"]
    needed = [key for key, p in parameters.items() if p.default is p.empty and key not in node]
    if needed and node["_target_"].startswith("realsr.") and not node.get("_partial_"):  # others tell it themselves
        raise InputError(f"{path}.{needed[0]} is missing; leave ~{path}.{needed[0]} out")
    try:
        hints = get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except NameError:  # of names that a package imports for its type checker alone
        hints = {}
    for key in map(str, node):
        if key in SPECIAL_KEYS:
            continue
        if key not in known:
            raise InputError(f"{path}.{key}: {target.__qualname__} has no such option{nearest(key, known)}")
        if key.endswith("_dir") and node[key] == "" and not OmegaConf.is_interpolation(node, key):
            raise InputError(f"{path}.{key} is empty; give a folder, or {path}.{key}=null for none")
        if not _fits(node[key], hints.get(key, Any)):
            raise InputError(_misfit(f"{path}.{key}", node[key], hints[key]))


def _fits(value: Any, hint: Any) -> bool:
    """Whether a config's value fits a type annotation; of a section with a ``_target_`` the result is not checked.

    >>> _fits(4, int | None), _fits("4", int), _fits(4, float), _fits("4", Any)
    (True, False, True, True)
    """
    if hint is Any:
        return True
    origin, options = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, option) for option in options)
    if origin is Literal:
        return value in options
    kind = origin or hint
    if not isinstance(kind, type):
        return True
    if isinstance(value, ListConfig):
        items = [item for item in options if item is not ...] or [Any]
        if kind is tuple and ... not in options and len(value) != len(options or value):
            return False
        fits = all(any(_fits(value[i], item) for item in items) for i in range(len(value)))
        return fits and not issubclass(kind, (*PLAIN, Mapping))
    if isinstance(value, DictConfig):
        if kind is functools.partial:
            return "_target_" in value and bool(value.get("_partial_"))
        return "_target_" in value or not issubclass(kind, PLAIN)
    return type(value) is kind or (type(value), kind) in ((int, float), (str, Path))


def _misfit(name: str, value: Any, wanted: Any) -> str:
    """A line that says how to write a value of the wanted type."""
    shown = f"{name}={'null' if value is None else value}"
    if choices := _choices(wanted):
        return f"{shown}: choose {', '.join(choices)}"
    if get_origin(wanted) is Sequence and (choices := _choices(*get_args(wanted))):
        return f"{shown}: give some of [{','.join(choices)}]"
    if wanted is dict or (value is None and isinstance(wanted, type) and wanted not in (list, *PLAIN)):
        return f"{shown}: has options of its own, give {name}.OPTION=VALUE"
    if "functools.partial[" in str(wanted) or "abc.Callable[" in str(wanted):
        return f"{name}: must have a _target_ and _partial_: true"
    if wanted is list:
        return f"{shown}: must be a list; write {name}=[{value or ''}]"
    return f"{shown}: must be {wanted.__name__ if wanted in PLAIN else wanted}"


def _choices(hint: Any) -> list[str]:
    """The words that an annotation allows; none if it allows others too."""
    union = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    options = [option for option in union if option is not type(None)]
    if not all(get_origin(option) is Literal for option in options):
        return []
    return list(dict.fromkeys(str(word) for option in options for word in get_args(option)))


def nearest(word: str, known: Iterable[str], prefix: str = "") -> str:
    """The known word that is most like ``word``, with the prefix, as a question; empty if none is like it.

    >>> nearest("crop_sise", ["batch_size", "crop_size"])
    ', did you mean crop_size?'
    """
    return "".join(f", did you mean {prefix}{close}?" for close in difflib.get_close_matches(word, list(known), 1, 0.5))
