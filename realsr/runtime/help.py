"""``--help`` of the commands: the comment at the head of ``conf/NAME.yaml``, without importing anything large."""

import ast
import itertools
import re
import sys
from pathlib import Path

REST = """\
All options with what they are now:  {command} ... --cfg job
Comments on them:                    {conf}
Several values, a run each:          {command} -m key=a,b
Hydra's own options:                 {command} --hydra-help
"""


def conf_dir() -> str:
    """Absolute path of conf/: beside the package in a checkout, inside it in a wheel."""
    here = Path(__file__).resolve().parents[1]
    for folder in (here.parent / "conf", here / "conf"):
        if (folder / "train.yaml").is_file():
            return str(folder)
    raise FileNotFoundError(f"no conf/ beside or in {here}: the installation is not complete")


def group_options(group: str) -> list[str]:
    """The options of a config group, sorted; none where there is no such group."""
    return sorted(path.stem for path in Path(conf_dir(), group).glob("*.yaml")) if group else []


def help_of(name: str) -> str | None:
    """The text of ``python -m realsr.<name> --help``: the config's comment, the command's groups, where the rest is.

    A module without a config, such as ``sweep``, has its docstring. None: there is no such module.
    """
    file, module = Path(conf_dir(), f"{name}.yaml"), Path(__file__).parents[1] / f"{name}.py"
    if not file.is_file():
        if not module.is_file():
            return None
        return f"{ast.get_docstring(ast.parse(module.read_text()))}\n".replace("``", "")
    lines = file.read_text().splitlines()
    head = [line[2:] for line in itertools.takewhile(lambda line: line.startswith("#"), lines)]
    groups = [group[1] for line in lines if (group := re.match(r"  - (\w+(?:@[\w.]+)?): ", line))]
    named = dict.fromkeys(re.sub(r"(@.*\.)\w+$", r"\1NAME", group) for group in groups)  # a variant of gap is a place
    chosen = [f"  {group + '=':13} {', '.join(group_options(group.partition('@')[0]))}" for group in named]
    parts = [*head, *(["", "Groups:", *chosen] if chosen else []), ""]
    return "\n".join(parts) + "\n" + REST.format(command=f"python -m realsr.{name}", conf=file)


def print_help(arguments: list[str]) -> None:
    """Print the help and exit, if ``sys.orig_argv`` starts a command with ``--help``."""
    if not {"--help", "-h"} & {*arguments}:
        return
    called = " ".join(arguments)
    command = re.search(r"-m realsr\.(\w+)(?: |$)", called) or re.search(r"\brealsr-(\w+)(?: |$)", called)
    if command and (text := help_of(command[1])):
        print(text, end="")
        sys.exit()
