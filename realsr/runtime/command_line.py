"""Names of files and folders on the command line: any name is taken, though Hydra's grammar would read more into it."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path

from realsr.runtime.errors import InputError

# options whose value is a path or a name; of `methods` each element is NAME:PATH
PATHS = re.compile(
    r"\+*((data\.)?((val_)?[hl]r|root|title)|name|group|pools|methods|(.*[._])?(dir|dirpath|folder|crops"
    r"|ckpt|input|output|weights|backbone|init_from|init_discriminator_from))"
)
PLAIN = re.compile(r"[./]*[A-Za-z_][\w./-]*", re.ASCII)  # what Hydra takes for text as well, but for these words
WORDS = ("true", "false", "nan", "inf", "null")
HYDRAS = {  # its options
    *("help", "hydra-help", "version", "cfg", "resolve", "package", "run", "multirun", "shell-completion", "info"),
    *("config-path", "config-name", "config-dir", "experimental-rerun"),
}
QUOTED = re.compile(r"'.*'|\".*\"|(choice|range|glob|shuffle|sort)\(.*\)", re.DOTALL)  # by the user, or a sweep's


def check_dashes(options: Sequence[str]) -> None:
    """Raise InputError for an option with dashes that is none of Hydra's own: ours have none."""
    for option in options:
        key, _, value = option.lstrip("-").partition("=")
        if option.startswith("--") and key not in HYDRAS:
            raise InputError(f"{option}: no such option; options have no dashes, give {key}={value or '...'}")


def quote_paths(options: Sequence[str], starts: Collection[str]) -> list[str]:
    """Options of the command line, those that are paths quoted where Hydra would take them for something else.

    ``start`` takes a file as well as the name of a group's option. Commas part values where several runs are asked for
    (``-m``). A ``~`` for the home directory is read here, since some shells leave it as it is behind a ``=``.

    Args:
        options: as they were given.
        starts: the options of the group ``start``.
    """
    several = bool({"-m", "--multirun"} & {*options})
    return [_quote_option(option, several, starts) for option in options]


def _quote_option(option: str, several: bool, starts: Collection[str]) -> str:
    key, equals, value = option.partition("=")
    values = value.split(",") if several else [value]
    if key == "start" and not all(_may_be_group(each, starts) for each in values):
        key = "start.weights"
    if not equals or not PATHS.fullmatch(key) or QUOTED.fullmatch(value):
        return option
    if key.endswith("methods"):
        elements = re.findall(r"""'[^']*'(?=,|$)|"[^"]*"(?=,|$)|[^,]+""", value[1:-1])  # commas in quotes part nothing
        return f"{key}=[{','.join(map(_quote, elements))}]" if re.fullmatch(r"\[.+\]", value) else option
    return f"{key}={','.join(map(_quote, values))}"


def _may_be_group(value: str, starts: Collection[str]) -> bool:
    """Whether Hydra is to look for it, which lists what there is."""
    return value in starts or bool(re.fullmatch(r"\w+", value, re.ASCII) and not Path(value).exists())


def _quote(text: str) -> str:
    """A value in quotes, if it needs them."""
    kind, path = re.fullmatch(r"(\w+:)?(.*)", text, re.DOTALL).groups("")  # type: ignore[union-attr]
    text = kind + os.path.expanduser(path)  # noqa: PTH111  (which fails where there is no such user)
    if text in ("", "null") or QUOTED.fullmatch(text) or (PLAIN.fullmatch(text) and text.lower() not in WORDS):
        return text
    text = re.sub(r"(\\*)'", r"\1\1\\'", text)
    return "'" + re.sub(r"(\\+)$", r"\1\1", text) + "'"
