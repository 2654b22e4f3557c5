"""The command line: file names with any character, which Hydra's grammar would misread, and commands to copy."""

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from realsr.runtime.errors import InputError
from realsr.runtime.help import group_options

# options whose value is a path or a name; in `methods` each element is NAME:PATH
PATHS = re.compile(
    r"\+*(((data|data\.validation|testset)\.)?([hl]r|root|title)|name|group|pools|methods|(.*[._])?(dir|dirpath|folder|crops"
    r"|ckpt|input|output|weights|backbone|init_from|init_discriminator_from))"
)
PLAIN = re.compile(r"[./]*[A-Za-z_][\w./-]*", re.ASCII)  # text to Hydra without quotes, but for these words
WORDS = ("true", "false", "nan", "inf", "null")
NO_NAME = re.compile(r"null|true|false|[-+]?[\d.]+", re.IGNORECASE)  # of an option of a group
HYDRAS = {  # options of Hydra's parser, which is private; test_help.py compares them
    *("help", "hydra-help", "version", "cfg", "resolve", "package", "run", "multirun", "shell-completion", "info"),
    *("config-path", "config-name", "config-dir", "experimental-rerun"),
}
QUOTED = re.compile(r"'.*'|\".*\"|(choice|range|glob|shuffle|sort)\(.*\)", re.DOTALL)  # quoted already, or a sweep


def and_next(result: str, *commands: Sequence[str]) -> str:
    """The last lines of a command: where its result lies, and the commands that people run next, ready to be copied.

    Paths below the working directory are shown relative to it.

    >>> print(and_next("3 kernels in pools/my phone", ("gap", "data.source_dir=my phone", "photos=3")))
    3 kernels in pools/my phone; next:
      python -m realsr.gap 'data.source_dir=my phone' photos=3
    """
    lines = [f"  python -m realsr.{name} {shlex.join(options)}" for name, *options in commands]
    return "\n".join([f"{result}; next:" if lines else result, *lines]).replace(f"{Path.cwd()}{os.sep}", "")


def check_dashes(options: Sequence[str]) -> None:
    """Raise InputError at an option with dashes that is not Hydra's; it says how to write the option."""
    for option in options:
        key, _, value = option.lstrip("-").partition("=")
        if option.startswith("--") and key not in HYDRAS:
            raise InputError(f"{option}: no such option; options have no dashes, give {key}={value or '...'}")


def quote_paths(options: Sequence[str]) -> list[str]:
    """Quote the values of options that are paths, where Hydra's grammar would not take them for text.

    ``start`` takes the name of a network or a file. Commas separate values in a sweep (``-m``). A leading ``~`` becomes
    the home directory, since some shells leave it as it is after a ``=``.

    Raises:
        InputError: a group is set to null or a number, for which Hydra's message names no group; ``name`` leads out of
            its folder.

    >>> quote_paths(["input=my photos (1)", "start=none", "start=x4.pth", "scale=2"])
    ["input='my photos (1)'", 'start=none', 'start.weights=x4.pth', 'scale=2']
    """
    several = bool({"-m", "--multirun"} & {*options})
    return [_quote_option(option, several) for option in options]


def _quote_option(option: str, several: bool) -> str:
    key, equals, value = option.partition("=")
    values = value.split(",") if several else [value]
    if key == "name" and any(".." in Path(each).parts for each in values):  # before Hydra makes folders
        raise InputError(f"{option}: leads out of outputs; give a name, or the whole folder by hydra.run.dir=DIR")
    names = group_options("start")
    words = (each in names or (re.fullmatch(r"\w+", each, re.ASCII) and not Path(each).exists()) for each in values)
    if key == "start" and not all(words):  # for a word that is no name Hydra lists them
        key = "start.weights"
    if NO_NAME.fullmatch(value) and (names := group_options(key)):
        raise InputError(f"{key}={value}: choose {', '.join(names)}")
    if not equals or not PATHS.fullmatch(key) or QUOTED.fullmatch(value):
        return option
    if key.endswith("methods"):
        elements = re.findall(r"""'[^']*'(?=,|$)|"[^"]*"(?=,|$)|[^,]+""", value[1:-1])  # commas in quotes part nothing
        return f"{key}=[{','.join(map(_quote, elements))}]" if re.fullmatch(r"\[.+\]", value) else option
    return f"{key}={','.join(map(_quote, values))}"


def _quote(text: str) -> str:
    """A value, in quotes if Hydra's grammar needs them."""
    kind, path = re.fullmatch(r"(\w+:)?(.*)", text, re.DOTALL).groups("")  # type: ignore[union-attr]
    text = kind + os.path.expanduser(path)  # noqa: PTH111  (which fails where there is no such user)
    if text in ("", "null") or QUOTED.fullmatch(text) or (PLAIN.fullmatch(text) and text.lower() not in WORDS):
        return text
    text = re.sub(r"(\\*)'", r"\1\1\\'", text)
    return "'" + re.sub(r"(\\+)$", r"\1\1", text) + "'"
